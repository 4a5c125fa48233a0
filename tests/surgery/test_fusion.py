"""Fused networks compute the same with less."""

import copy
import json
import pickle
import warnings

import pytest
import rich
import timm
import torch
import torchvision
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

import acmix
from acmix import ACmix
from acmix.surgery import FusedACmix
from tests.test_nn import LIKE_A_CONVOLUTION


def trained(network):
    """Rates, biases and batch norms as after training."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, ACmix):
                module.rate_attention.fill_(0.7)
                module.rate_convolution.fill_(-1.3)
                module.dep_weight.add_(torch.randn_like(module.dep_weight) / 9)
                if module.bias is not None:
                    module.bias.normal_()
            elif isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                if module.weight is not None:
                    module.weight.uniform_(0.5, 1.5).mul_(torch.randn_like(module.weight).sign())
                    module.bias.normal_()
    return network.eval()


def names(network, kind):
    return [name for name, module in network.named_modules() if isinstance(module, kind)]


@pytest.mark.parametrize("heads", [2, 4, 8])
@pytest.mark.parametrize("options", [{}, {"stride": 2, "bias": True, "kernel_conv": 5}])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d(16), nn.BatchNorm2d(16, affine=False), FrozenBatchNorm2d(16)])
def test_operator_with_batch_norm(heads, options, norm):
    network = trained(nn.Sequential(ACmix(6, 16, heads=heads, **options), copy.deepcopy(norm)).double())
    fused = acmix.fuse(network)
    x = torch.randn(2, 6, 9, 12, dtype=torch.float64)
    torch.testing.assert_close(fused(x), network(x))
    assert isinstance(fused[0], FusedACmix)
    # With many heads the convolution path keeps its two steps, which have no place for a scale a channel.
    two_steps = fused[0].fc_weight is not None
    assert two_steps == (heads == 8 and not options)
    assert isinstance(fused[1], nn.Identity) != two_steps


def test_a_bare_operator():
    operator = trained(ACmix(6, 16, dilation=2))
    x = torch.randn(2, 6, 9, 12)
    torch.testing.assert_close(acmix.fuse(operator)(x), operator(x))


def test_no_attention():
    network = trained(nn.Sequential(ACmix(4, 8), nn.BatchNorm2d(8)))
    network[0].rate_attention.data.zero_()
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(acmix.fuse(network)(x), network(x))


APART = "cannot be folded: its scales differ more than 1000 times between channels that share values"


@pytest.mark.parametrize(
    ("set_norm", "reason"),
    [
        (lambda norm: norm.weight.zero_(), None),
        (lambda norm: norm.weight.fill_(1e-20), None),
        (lambda norm: norm.weight.fill_(-1e20), None),
        (lambda norm: norm.running_var.zero_(), None),
        (lambda norm: norm.running_var.fill_(1e30), None),
        (lambda norm: norm.weight[3].fill_(0), APART),
        (lambda norm: norm.weight[3].fill_(1e-7), APART),
        (lambda norm: norm.running_var[3].fill_(1e30), APART),
        (lambda norm: norm.weight.fill_(1e-42), "cannot be folded: weights leave the range of torch.float32"),
        (lambda norm: norm.weight.fill_(3e38), "cannot be folded: a bias leaves the range of torch.float32"),
        (lambda norm: norm.bias[0].fill_(torch.inf), "cannot be folded: its scale or shift is not finite"),
        (lambda norm: norm.running_var[1].fill_(-1), "cannot be folded: its scale or shift is not finite"),
    ],
)
@pytest.mark.parametrize("layer", [ACmix, lambda *channels: nn.Conv2d(*channels, 3)], ids=["ACmix", "Conv2d"])
def test_scales_of_any_size(layer, set_norm, reason):
    network = trained(nn.Sequential(layer(4, 8), nn.BatchNorm2d(8)))
    with torch.no_grad():
        set_norm(network[1])
    fused = acmix.fuse(network)
    x = torch.randn(1, 4, 6, 6)
    found, expected = fused(x).double(), network(x).double()
    assert torch.equal(found.isnan(), expected.isnan())
    size = expected[expected.isfinite()].abs().max().item()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * size, equal_nan=True)
    # A convolution has no channels that share values.
    expected = None if reason == APART and isinstance(network[0], nn.Conv2d) else reason
    assert fused.fusion_report.layers[-1].reason == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scales", [(1e-3, 1.0), (1e-6, 1e-6), (30.0, 30.0), (1e4, 1e4), (1e-2, 1e2)])
@pytest.mark.parametrize("layer", [ACmix, lambda *channels: nn.Conv2d(*channels, 3)], ids=["ACmix", "Conv2d"])
def test_half_precision_loses_nothing(layer, scales, dtype):
    network = nn.Sequential(layer(8, 16), nn.BatchNorm2d(16)).eval()
    network[1].weight.data = torch.logspace(*torch.tensor(scales).log10().tolist(), 16)[torch.randperm(16)]
    network = network.to(dtype)
    x = torch.randn(2, 8, 12, 12).to(dtype)
    exact = copy.deepcopy(network).double()(x.double())
    fused = acmix.fuse(network)
    errors = [
        ((each(x).double() - exact).square().sum((0, 2, 3)) / exact.square().sum((0, 2, 3)))
        for each in (fused, network)
    ]
    assert (errors[0] <= 9 * errors[1] + torch.finfo(dtype).eps ** 2).all(), fused.fusion_report


class UNet(nn.Module):
    """Its stem has its layers under names of its own, as pretrained encoders are used."""

    def __init__(self):
        super().__init__()
        self.encoder = torchvision.models.resnet18(num_classes=3)
        self.stem = nn.Sequential(self.encoder.conv1, self.encoder.bn1, self.encoder.relu)
        self.first = nn.Sequential(self.encoder.maxpool, self.encoder.layer1)

    def forward(self, x):
        stem = self.stem(x)
        return stem[..., ::2, ::2] + self.first(stem)


def test_an_encoder_with_a_stem_of_its_own():
    network = UNet()
    acmix.replace_convolutions(network)
    trained(network)
    fused = acmix.fuse(network)
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(fused(x), network(x), rtol=1e-3, atol=1e-3)
    assert isinstance(fused.stem[0], FusedACmix)
    assert fused.stem[0] is fused.encoder.conv1
    assert fused.stem[1] is fused.encoder.bn1
    assert isinstance(fused.stem[1], nn.Identity)
    # What is never called cannot be folded.
    left = {layer.name.split(".")[1] for layer in fused.fusion_report.left if layer.kind != "ReLU"}
    assert left == {"layer2", "layer3", "layer4"}


def test_the_report_is_data_a_table_and_part_of_the_network(capsys):
    network = trained(nn.Sequential(ACmix(4, 8), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8)))
    fused = acmix.fuse(network)
    report = fused.fusion_report
    assert report == pickle.loads(pickle.dumps(fused)).fusion_report == copy.deepcopy(fused).fusion_report  # noqa: S301
    assert json.loads(json.dumps(report.to_dict()))["layers"] == [
        {"name": "0", "reason": None, "kind": "ACmix", "into": None, "replaced": True},
        {"name": "1", "reason": None, "kind": "BatchNorm2d", "into": "0", "replaced": True},
        {
            "name": "3",
            "reason": "follows neither a convolution nor ACmix",
            "kind": "BatchNorm2d",
            "into": None,
            "replaced": False,
        },
        {"name": "2", "reason": None, "kind": "ReLU", "into": "0", "replaced": True},
    ]
    assert str(report).splitlines()[0] == "3 of 4 operators, batch norms, ReLUs and bottlenecks fused"
    rich.print(report)
    assert "follows neither a convolution nor ACmix" in capsys.readouterr().out
    assert not hasattr(network, "fusion_report")


def test_a_network_that_is_fused_already_is_equal():
    network = trained(nn.Sequential(ACmix(4, 8), nn.BatchNorm2d(8)))
    network[1].register_forward_hook(lambda *_: None)
    fused = acmix.fuse(network)
    assert isinstance(fused[1], nn.BatchNorm2d)
    fused[1]._forward_hooks.clear()
    again = acmix.fuse(fused)
    assert isinstance(again[1], nn.Identity)
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(again(x), network(x))
    torch.testing.assert_close(acmix.fuse(again)(x), network(x))


def test_a_fused_operator_tells_what_a_convolution_tells():
    operator = ACmix(4, 8, stride=2, dilation=3)
    fused = acmix.fuse(operator)
    for name in LIKE_A_CONVOLUTION:
        assert getattr(fused, name) == getattr(operator, name)
    assert fused.weight.dtype == operator.weight.dtype


def test_tied_weights_stay():
    network = trained(nn.Sequential(*(module for _ in range(2) for module in (ACmix(8, 8), nn.BatchNorm2d(8)))))
    network[2].qkv.weight = network[0].qkv.weight
    network[3].running_var = network[1].running_var
    fused = acmix.fuse(network)
    x = torch.randn(1, 8, 6, 6)
    torch.testing.assert_close(fused(x), network(x))
    assert [layer.reason for layer in fused.fusion_report.layers] == [
        None,
        None,
        "shares weights with 3",
        "shares weights with 1",
    ]
    assert fused[2].qkv.weight is fused[0].qkv.weight


class Reaching(nn.Module):
    """A hook of one layer that is a method of the network, and reads another."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.other = ACmix(4, 8), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)
        self.other.register_forward_hook(self.scale)

    def scale(self, _, inputs, output):  # noqa: ARG002
        return output * self.norm.weight[:, None, None]

    def forward(self, x):
        return self.other(self.norm(self.layer(x)))


def test_what_hooks_can_read_stays():
    network = trained(Reaching())
    fused = acmix.fuse(network)
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(fused(x), network(x))
    assert {layer.reason for layer in fused.fusion_report.layers} == {"can be read by a hook of other"}
    expected = fused(x)
    nn.init.zeros_(network.norm.weight)
    torch.testing.assert_close(fused(x), expected)


def test_hooks_of_a_whole_network_leave_it():
    network, seen = trained(nn.Sequential(ACmix(4, 8), nn.BatchNorm2d(8))), []
    network.register_forward_hook(lambda *all_of_it: seen.append(all_of_it[-1]))
    fused = acmix.fuse(network)
    assert seen == []
    assert {layer.reason for layer in fused.fusion_report.layers} == {"can be read by a hook of the network"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: acmix.create_model("acmix_resnet14_small", num_classes=3),
        lambda: timm.create_model("test_efficientnet", num_classes=3),
        lambda: timm.create_model("test_resnet", num_classes=3),
    ],
    ids=["acmix", "efficientnet", "resnet"],
)
def test_networks(make):
    network = make()
    acmix.replace_convolutions(network)
    trained(network)
    before = copy.deepcopy(network.state_dict())
    fused = acmix.fuse(network)
    assert names(fused, nn.BatchNorm2d) == []
    assert names(fused, ACmix) == []
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    with torch.inference_mode():
        x = torch.randn(2, 3, 48, 40)
        exact = network.double()(x.double())
        error = (fused(x) - exact).norm() / exact.norm()
        assert error < 1e-4
        half = fused.bfloat16()(x.bfloat16())
    assert (half - exact).norm() / exact.norm() < 0.2


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = ACmix(4, 8), ACmix(4, 8), nn.BatchNorm2d(8)
        self.third, self.last = nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x):
        first, third = self.first(x), self.third(x)
        return self.norm(first) + first + self.norm(self.second(x)) + self.last(third) * third.mean()


def test_what_others_read_is_not_folded():
    network = trained(Branching())
    fused = acmix.fuse(network)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(fused(x), network(x))
    assert names(fused, nn.BatchNorm2d) == ["norm", "last"]


class Untraceable(nn.Sequential):
    def __init__(self, does, *layers):
        super().__init__(*layers)
        self.does = [does]

    def forward(self, x):
        return self[1](self[0](self.does[0](x)))


def rewritten(x):
    x = x.clone()
    x[0] = 1
    return x


UNTRACEABLE = {
    "decides": (lambda x: x if x.sum() > 0 else -x, "it decides by what it computes"),
    "loops": (lambda x: torch.stack([*x]), "it goes through the parts of what it computes, one by one"),
    "counts": (lambda x: x / len(x), "it counts the parts of what it computes"),
    "writes": (rewritten, "it writes into a part of what it is given or computes"),
    "a number": (lambda x: x * float(x.mean()), "it does with what it computes what a trace cannot follow"),
    "a range": (lambda x: x + sum(range(x.shape[0])), "it does with what it computes what a trace cannot follow"),
}


@pytest.mark.parametrize("way", UNTRACEABLE)
def test_a_network_that_cannot_be_traced_keeps_its_batch_norms_and_says_so(way):
    does, reason = UNTRACEABLE[way]
    network = trained(Untraceable(does, ACmix(4, 8), nn.BatchNorm2d(8)))
    with pytest.warns(
        UserWarning, match=rf"^the batch norms of Untraceable stay, torch\.fx cannot trace it: {reason}$"
    ):
        fused = acmix.fuse(network)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(fused(x), network(x))
    assert isinstance(fused[1], nn.BatchNorm2d)


def test_traces_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        acmix.fuse(acmix.create_model("acmix_resnet14_small"))
