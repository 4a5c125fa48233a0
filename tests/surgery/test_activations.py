"""ReLUs beside an operator become part of it, if nobody else can tell."""

import copy
import functools
import pickle

import pytest
import timm
import torch
import torchvision
from timm.layers import BatchNormAct2d, FrozenBatchNormAct2d
from torch import nn
from torch.nn import functional

import acmix
from acmix import ACmix
from acmix.surgery import FusedACmix
from tests.surgery.test_fusion import trained
from tests.tracers import assert_traced


class Network(nn.Module):
    """A ReLU before an operator, a norm and a ReLU behind; `run` says how they are called."""

    def __init__(self, run, inplace):
        super().__init__()
        self.first, self.before = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace)
        self.operator, self.norm, self.behind = ACmix(4, 8, kernel_att=3), nn.BatchNorm2d(8), nn.ReLU(inplace)
        self.identity, self.last, self.run = nn.Identity(), nn.Conv2d(8, 8, 1), run
        self.held = [self.before, self.behind]

    def forward(self, x, optional=None):
        return self.run(self, x, optional)


def ahead(n, x):
    return n.before(n.first(x))


def past(n, x):
    return n.behind(n.norm(n.operator(x)))


def kept(n, x):
    n.kept = x
    return x


def changed(x):
    x.add_(1)
    return x


BOTH = {
    "plainly": lambda n, x, _: past(n, ahead(n, x)),
    "through a list": lambda n, x, _: n.held[1](n.norm(n.operator(n.held[0](n.first(x))))),
    "past identities": lambda n, x, _: n.behind(
        n.identity(n.norm(n.operator(n.identity(n.before(n.identity(n.first(x)))))))
    ),
    "read behind": lambda n, x, _: (y := past(n, ahead(n, x))) + n.last(y),
    "with an argument": lambda n, x, optional: past(n, ahead(n, x)) + (0 if optional is None else optional),
    "kept behind": lambda n, x, _: kept(n, past(n, ahead(n, x))),
    "no module before": lambda n, x, _: past(n, ahead(n, x + 1)),
}
# Which stay, and why: before and behind, or what depends on whether they write in place.
OTHERS = "is read by others, too"
CASES = {
    "output of the ReLU before": (lambda n, x, _: past(n, y := ahead(n, x)) + y.sum(), OTHERS, None),
    "kept before": (lambda n, x, _: past(n, kept(n, ahead(n, x))), OTHERS, None),
    "as a keyword": (lambda n, x, _: past(n, n.before(n.first(x))) + n.operator(input=x), "twice", "twice"),
    "output of the norm": (
        lambda n, x, _: n.behind(y := n.norm(n.operator(ahead(n, x)))) + y,
        None,
        "follows what others read, too",
    ),
    "input of the network": (lambda n, x, _: past(n, n.before(x)) + x.sum(), "in place", None),
    "input of the network alone": (lambda n, x, _: past(n, n.before(x)), "in place", None),
    "view": (lambda n, x, _: past(n, n.before((y := n.first(x))[:, :])) + y.sum(), "in place", None),
    "output of a function": (lambda n, x, _: past(n, n.before(n.first(x) + 1)), "in place", None),
    "changed between": (
        lambda n, x, _: (y := n.first(x), z := n.before(y), changed(y), past(n, z))[-1],
        "changed",
        None,
    ),
    "both read": (
        lambda n, x, _: n.operator(n.before(y := n.first(x))) + n.last(n.operator(y)),
        "twice",
        "is not called",
    ),
    "called twice": (lambda n, x, _: past(n, n.before(n.before(n.first(x)))), "is called 2 times", None),
    "for both": (lambda n, x, _: n.before(n.norm(n.operator(ahead(n, x)))), "is called 2 times", "is not called"),
    "left out": (
        lambda n, x, optional: past(n, ahead(n, x) if optional is None else n.first(x)),
        "is left out when the network is called otherwise",
        None,
    ),
    "elsewhere": (
        lambda n, x, optional: past(n, ahead(n, x)) if optional is None else n.before(n.first(x)),
        "stands elsewhere when the network is called otherwise",
        None,
    ),
    "read": (
        lambda n, x, _: past(n, ahead(n, x)) * (2 if n.before.inplace else 3),
        "is read by the network: inplace",
        None,
    ),
    "function between": (lambda n, x, _: n.behind(n.norm(n.operator(ahead(n, x))).abs()), None, "is not beside"),
    "another norm": (lambda n, x, _: n.behind(n.norm(n.norm(n.operator(ahead(n, x))))), None, "is not beside"),
}


def outputs(network):
    for optional in (None, torch.ones((), dtype=torch.float64)):
        x = torch.linspace(-1, 1, 400, dtype=torch.float64).view(1, 4, 10, 10)
        yield network(x, optional)
        yield x
        yield getattr(network, "kept", torch.zeros(()))


def assert_equal(fused, network):
    for found, expected in zip(outputs(fused), outputs(network), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("run", BOTH)
def test_both_become_part_of_the_operator(run, inplace):
    network = trained(Network(BOTH[run], inplace).double())
    fused = acmix.fuse(network)
    assert_equal(fused, network)
    assert (fused.operator.rectified_input, fused.operator.rectified) == (True, True), fused.fusion_report
    assert all(type(module) is nn.Identity for module in (fused.before, fused.norm, fused.behind))
    layers = {layer.name: layer for layer in fused.fusion_report.layers}
    assert (layers["before"].kind, layers["before"].into, layers["behind"].into) == ("ReLU", "operator", "operator")


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_what_others_can_tell_stays(case, inplace):
    run, *expected = CASES[case]
    network = trained(Network(run, inplace).double())
    fused = acmix.fuse(network)
    assert_equal(fused, network)
    assert not hasattr(network, "kept") or case.startswith("kept")
    reasons = {layer.name: layer.reason for layer in fused.fusion_report.layers}
    for name, taken, reason in zip(
        ("before", "behind"), (fused.operator.rectified_input, fused.operator.rectified), expected, strict=True
    ):
        stays = reason is not None and (inplace or reason != "in place")
        assert taken != stays, fused.fusion_report
        assert isinstance(getattr(fused, name), nn.ReLU) == stays
        if stays and reason in ("is not called", "is not beside"):
            assert name not in reasons
        elif stays:
            words = {"twice": "operator that is called 2 times", "in place": "changes in place what others may read"}
            words["changed"] = words["in place"] if inplace else "reads what others may change"
            assert words.get(reason, reason) in reasons[name]


class LouderReLU(nn.ReLU):
    def forward(self, x):
        return 2 * super().forward(x)


def hooked(network, name):
    network.get_submodule(name).register_forward_hook(lambda *all_of_it: all_of_it[-1] + 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda n: setattr(n, "before", nn.ReLU6()), None),
        (lambda n: setattr(n, "before", nn.LeakyReLU()), None),
        (lambda n: setattr(n, "before", LouderReLU()), "is a LouderReLU, not ReLU itself"),
        (lambda n: hooked(n, "before"), "has forward hooks"),
        (lambda n: hooked(n, "operator"), "stands beside an operator that has forward hooks"),
        (lambda n: hooked(n, ""), None),
        (
            lambda n: n.last.register_forward_hook(functools.partial(lambda *_: None, n)),
            "can be read by a hook of last",
        ),
        (lambda n: setattr(n.before, "forward", functional.relu), "has a forward of its own"),
        (lambda n: setattr(n, "feature_info", [{"module": "before"}]), "stands beside a feature of the network"),
    ],
)
def test_what_is_no_plain_relu_stays(change, reason):
    network = trained(Network(BOTH["read behind"], inplace=False).double())
    change(network)
    kind = type(network.before)
    fused = acmix.fuse(network)
    assert_equal(fused, network)
    assert type(fused.before) is kind
    assert not getattr(fused.operator, "rectified_input", False)
    found = {layer.name: layer.reason for layer in fused.fusion_report.layers}
    assert found.get("before") == reason


def test_a_hook_before_sees_what_it_saw():
    network, seen = trained(Network(BOTH["plainly"], inplace=True).double()), []
    network.first.register_forward_hook(lambda *all_of_it: seen.append(all_of_it[-1]))
    fused = acmix.fuse(network)
    assert_equal(fused, network)
    assert (seen[0] >= 0).all()
    assert torch.equal(*seen[::2])


def test_a_feature_behind_stays():
    network = trained(Network(BOTH["plainly"], inplace=False).double())
    network.feature_info = [{"module": "norm"}]
    fused = acmix.fuse(network)
    assert_equal(fused, network)
    assert isinstance(fused.norm, nn.Identity)
    assert isinstance(fused.behind, nn.ReLU)


@pytest.mark.parametrize("norm", [BatchNormAct2d, FrozenBatchNormAct2d])
@pytest.mark.parametrize("heads", [2, 8])
def test_norms_with_an_activation(norm, heads):
    layers = nn.Conv2d(4, 4, 1), norm(4), ACmix(4, 16, heads=heads), norm(16)
    network = trained(nn.Sequential(*layers, nn.Conv2d(16, 4, 1)).double())
    fused = acmix.fuse(network)
    x = torch.randn(2, 4, 7, 9, dtype=torch.float64)
    torch.testing.assert_close(fused(x), network(x))
    # With many heads the norm stays, and its ReLU with it.
    assert (fused[2].rectified_input, fused[2].rectified) == (True, heads == 2)
    assert type(fused[1]) is nn.Identity
    assert (type(fused[3]) is nn.Identity) == (heads == 2)
    reasons = {layer.name: layer.reason for layer in fused.fusion_report.layers}
    assert (reasons["1.act"], reasons["3.act"]) == (None, None if heads == 2 else "follows a norm that stays")
    silu = trained(nn.Sequential(ACmix(4, 8), norm(8, act_layer=nn.SiLU)).double())
    fused = acmix.fuse(silu)
    torch.testing.assert_close(fused(x), silu(x))
    assert not fused[0].rectified


def test_a_relu_that_is_called_several_times_stays():
    network = torchvision.models.resnet18(num_classes=3)
    acmix.replace_convolutions(network)
    fused = acmix.fuse(trained(network))
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(fused(x), network(x), rtol=1e-3, atol=1e-3)
    reasons = {layer.name: layer.reason for layer in fused.fusion_report.layers if layer.kind == "ReLU"}
    assert reasons == {"relu": None} | {
        f"layer{i}.{j}.relu": "is called 2 times" for i in range(1, 5) for j in range(2)
    }
    assert "8 left: is called 2 times" in str(fused.fusion_report)


@pytest.mark.parametrize("model", ["acmix_resnet26", "acmix_resnet50"])
def test_networks_of_the_family(model):
    # In float64: such norms may make a network that turns roundings of float32 into a thousandth of its output.
    network = trained(acmix.create_model(model, num_classes=3)).double()
    fused = acmix.fuse(network)
    operators = [module for module in fused.modules() if isinstance(module, FusedACmix)]
    assert all(module.rectified_input and module.rectified and module.bias is not None for module in operators)
    assert fused.fusion_report.left == ()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        expected = network(x)
        assert (fused(x) - expected).norm() < 1e-9 * expected.norm()
        features = fused.forward_intermediates(x, intermediates_only=True)
        for found, expected in zip(features, network.forward_intermediates(x, intermediates_only=True), strict=True):
            assert (found - expected).norm() < 1e-9 * expected.norm()


def test_features_are_those_of_the_network():
    network = trained(timm.create_model("acmix_resnet26", features_only=True))
    fused = acmix.fuse(network)
    assert any(module.rectified for module in fused.modules() if isinstance(module, FusedACmix))
    x = torch.randn(1, 3, 64, 64)
    for found, expected in zip(fused(x), network(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def rectifying():
    network = trained(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), ACmix(4, 8), nn.BatchNorm2d(8), nn.ReLU()))
    return network, acmix.fuse(network)


def test_copies_pickles_and_words_have_it():
    network, fused = rectifying()
    x = torch.randn(2, 3, 9, 9)
    assert repr(fused[2]).startswith("FusedACmix(\n  4, 8, heads=4,")
    assert "bias=True, rectified_input=True, rectified=True" in repr(fused[2])
    for same in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused)), acmix.fuse(fused)):  # noqa: S301
        torch.testing.assert_close(same(x), network(x))
        assert (same[2].rectified_input, same[2].rectified) == (True, True)
    # Of a version that knew neither.
    for name in ("rectified_input", "rectified"):
        vars(fused[2]).pop(name)
    assert (fused[2].rectified_input, fused[2].rectified) == (False, False)


def test_a_norm_behind_a_rectified_output_stays():
    network, fused = rectifying()
    fused[4] = nn.BatchNorm2d(8).eval()
    again = acmix.fuse(fused)
    assert isinstance(again[4], nn.BatchNorm2d)
    direct = trained(nn.Sequential(fused[2], nn.BatchNorm2d(8)))
    assert (
        acmix.fuse(direct).fusion_report.layers[-1].reason
        == "cannot be folded: the layer before it rectifies its output"
    )
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(acmix.fuse(direct)(x), direct(x))
    assert network[4].inplace is False


def test_gradients_of_the_input_are_those_of_the_network():
    network, fused = (each.double() for each in rectifying())
    x = torch.randn(2, 3, 7, 8, dtype=torch.float64, requires_grad=True)
    expected, actual = (torch.autograd.grad(each(x).square().sum(), x)[0] for each in (network, fused))
    torch.testing.assert_close(actual, expected)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit", "ignore::DeprecationWarning")
def test_whatever_traces_a_network_has_them():
    network, fused = rectifying()
    x = torch.randn(2, 3, 9, 8)
    expected = network(x)
    assert_traced(fused, x, expected)
    torch.testing.assert_close(fused(x[0]), expected[0])
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(fused(x), network(x), rtol=0.1, atol=0.1)


def test_a_projection_that_is_more_than_a_convolution():
    network, fused = rectifying()
    for each in (network[2], fused[2]):
        each.qkv.register_forward_hook(lambda *all_of_it: all_of_it[-1] * 2)
    x = torch.randn(2, 3, 7, 8)
    # What is folded into the projection is doubled, too: of the norm's scale alone the convolution knows.
    network, fused = network[:2], fused
    seen = []
    fused[2].qkv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert (fused(x) >= 0).all()
    torch.testing.assert_close(seen[0], network(x))
