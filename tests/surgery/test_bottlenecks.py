"""A residual bottleneck around an operator becomes one module, if nobody else can tell."""

import copy
import functools
import pickle

import pytest
import timm
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import DropPath
from torch import nn
from torch.nn import functional
from torchvision.ops import StochasticDepth

import acmix
from acmix import ACmix
from acmix.surgery import FusedACmix, FusedBottleneck
from tests.numerics import DTYPES
from tests.surgery.test_fusion import trained
from tests.tracers import assert_traced


class Block(nn.Module):
    """A bottleneck with a convolution on the shortcut, its norms and ReLUs; `run` says how they are called."""

    def __init__(self, run, inplace=False, stride=1, outputs=12):
        super().__init__()
        self.conv1, self.bn1, self.act1 = nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace)
        self.conv2 = ACmix(4, 8, kernel_att=3, stride=stride)
        self.bn2, self.act2 = nn.BatchNorm2d(8), nn.ReLU(inplace)
        self.conv3, self.bn3, self.act3 = nn.Conv2d(8, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace)
        self.down = nn.Sequential(nn.Conv2d(8, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.drop, self.identity, self.run = nn.Dropout(), nn.Identity(), run
        self.path, self.depth = DropPath(0.5), StochasticDepth(0.5, "row")
        self.held = [self.conv3, self.bn3]
        self.body = nn.Sequential(self.conv1, self.bn1, nn.Sequential(self.act1, self.conv2))

    def forward(self, x):
        return self.run(self, x)


class Network(nn.Module):
    """A block, called by `call`, behind a convolution whose output others may hold."""

    def __init__(self, block, call=lambda network, x: network.block(x)):
        super().__init__()
        self.stem, self.block, self.call = nn.Conv2d(3, 8, 1), block, call
        self.other = nn.ReLU()

    def forward(self, x):
        stem = self.stem(x)
        return self.call(self, stem), stem


def ahead(b, x):
    return b.act1(b.bn1(b.conv1(x)))


def inner(b, x):
    return b.act2(b.bn2(b.conv2(ahead(b, x))))


def branch(b, x):
    return b.bn3(b.conv3(inner(b, x)))


def added(x, y):
    x += y
    return x


JOINED = {
    "plainly": lambda b, x: b.act3(branch(b, x) + b.down(x)),
    "the other way round": lambda b, x: b.act3(b.down(x) + branch(b, x)),
    "in place": lambda b, x: b.act3(added(branch(b, x), b.down(x))),
    "by a function": lambda b, x: b.act3(torch.add(branch(b, x), b.down(x))),
    "by a method": lambda b, x: b.act3(branch(b, x).add(b.down(x))),
    "by a method in place": lambda b, x: b.act3(branch(b, x).add_(b.down(x))),
    "one ReLU for all": lambda b, x: b.act1(
        b.bn3(b.conv3(b.act1(b.bn2(b.conv2(b.act1(b.bn1(b.conv1(x)))))))) + b.down(x)
    ),
    "no ReLU within": lambda b, x: b.act3(b.bn3(b.conv3(b.bn2(b.conv2(b.bn1(b.conv1(x)))))) + b.down(x)),
    "past what drops in training": lambda b, x: b.act3(
        b.identity(b.depth(b.path(b.drop(branch(b, b.identity(x)))))) + b.identity(b.down(x))
    ),
    "in sequences": lambda b, x: b.act3(b.bn3(b.conv3(b.act2(b.bn2(b.body(x))))) + b.down(x)),
    "through a list": lambda b, x: b.act3(b.held[1](b.held[0](inner(b, x))) + b.down(x)),
    "an attribute of a part": lambda b, x: b.act3(branch(b, x) + (b.down(x) if b.conv1.out_channels else x)),
}
# Why they stay.
BEHIND = "has more behind its last convolution than a shortcut and a ReLU"
ROWS = "has more than modules in rows before its last convolution or on its shortcut"
MORE = "computes more than its output"
INPUT = "may change its input"
STAYS = {
    "another function": (lambda b, x: torch.tanh(branch(b, x) + b.down(x)), BEHIND),
    "a function for the last ReLU": (lambda b, x: functional.relu(branch(b, x) + b.down(x)), BEHIND),
    "a scaled branch": (lambda b, x: b.act3(0.5 * branch(b, x) + b.down(x)), BEHIND),
    "a scaled sum": (lambda b, x: b.act3(torch.add(branch(b, x), b.down(x), alpha=2)), BEHIND),
    "attention over channels": (
        lambda b, x: b.act3((y := branch(b, x)) * y.mean((2, 3), keepdim=True) + b.down(x)),
        BEHIND,
    ),
    "a shortcut that is a number": (lambda b, x: b.act3(branch(b, x) + 1), ROWS),
    "a scaled shortcut": (lambda b, x: b.act3(branch(b, x) + 2 * b.down(x)), ROWS),
    "a weight": (lambda b, x: b.act3(branch(b, x) + b.down(x * b.bn1.running_var.mean())), ROWS),
    "a sum before": (lambda b, x: b.act3(branch(b, x + 1) + b.down(x)), ROWS),
    "the branch twice": (lambda b, x: b.act3((y := branch(b, x)) + y), MORE),
    "a shared beginning": (lambda b, x: b.act3(branch(b, y := b.act2(b.identity(x))) + b.down(y)), MORE),
    "something beside": (lambda b, x: (b.conv1(x), b.act3(branch(b, x) + b.down(x)))[1], MORE),
    "two outputs": (lambda b, x: (b.act3(branch(b, y := x) + b.down(x)), y)[0:2], BEHIND),
    "what others read": (lambda b, x: b.act3((y := branch(b, x)) + b.down(x)) + 0 * y, BEHIND),
    "the shortcut written": (lambda b, x: b.act3(added(b.down(x), branch(b, x))), INPUT),
    "a state": (
        lambda b, x: (setattr(b, "kept", y := b.act3(branch(b, x) + b.down(x))), y)[1],
        "keeps what it computes",
    ),
    "a count": (
        lambda b, x: (setattr(b, "count", getattr(b, "count", 0) + 1), b.act3(branch(b, x) + b.down(x)))[1],
        "keeps what it computes",
    ),
    "the input read again": (lambda b, x: b.act3(branch(b, x) + b.down(x)) + x.mean(), BEHIND),
}


def outputs(network, *shape):
    x = torch.randn(2, 3, 9, 10, dtype=torch.float64) if not shape else torch.randn(*shape, dtype=torch.float64)
    returned, stem = network(x)
    return returned, stem, x


def assert_same(fused, network):
    torch.manual_seed(1)
    expected = outputs(network)
    torch.manual_seed(1)
    for found, exact in zip(outputs(fused), expected, strict=True):
        torch.testing.assert_close(found, exact)


def reasons_of(fused):
    return {layer.name: layer.reason for layer in fused.fusion_report.layers if layer.kind == "Bottleneck"}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("run", JOINED)
def test_a_block_becomes_one_module(run, inplace):
    network = trained(Network(Block(JOINED[run], inplace)).double())
    fused = acmix.fuse(network)
    assert_same(fused, network)
    assert reasons_of(fused) == {"block": None}
    assert type(fused.block) is FusedBottleneck, fused.fusion_report
    assert type(network.block) is Block
    operator = fused.block.operator
    assert (operator.rectified_input, operator.rectified) == (run != "no ReLU within",) * 2
    assert (len(fused.block.before), type(fused.block.first)) == (0, nn.Conv2d)
    assert (len(fused.block.shortcut), type(fused.block.downsample)) == (0, nn.Conv2d)
    relus = {layer.name: (layer.into, layer.reason) for layer in fused.fusion_report.layers if layer.kind == "ReLU"}
    if run == "one ReLU for all":
        assert relus == {"block.act1": ("block", None)}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("case", STAYS)
def test_what_is_another_function_stays(case, inplace):
    run, reason = STAYS[case]
    network = trained(Network(Block(run, inplace)).double())
    fused = acmix.fuse(network)
    if case == "two outputs":
        for found, expected in zip(fused.block(x := torch.randn(1, 8, 5, 5).double()), network.block(x), strict=True):
            torch.testing.assert_close(found, expected)
    else:
        assert_same(fused, network)
    assert type(fused.block) is Block
    assert reasons_of(fused) == {"block": reason}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shortcut", [nn.Identity, lambda: nn.AvgPool2d(2, 2, ceil_mode=True)])
def test_shortcuts_of_other_kinds(shortcut, stride):
    block = Block(lambda b, x: b.act3(added(branch(b, x), b.down(x))), True, stride, outputs=8)
    block.down = shortcut()
    network = trained(Network(block).double())
    fused = acmix.fuse(network)
    assert type(fused.block) is FusedBottleneck
    if (stride == 2) == isinstance(block.down, nn.AvgPool2d):
        assert_same(fused, network)
    else:
        # As in the network.
        for each in (network, fused):
            with pytest.raises(RuntimeError, match="must match"):
                outputs(each)


# The shortcut is an identity, and the input is another's.
IDENTITIES = {
    "x + branch": (lambda b, x: b.act3(x + branch(b, x)), None, None),
    "x += branch": (lambda b, x: b.act3(added(x, branch(b, x))), INPUT, INPUT),
    "x.add_(branch)": (lambda b, x: b.act3(x.add_(branch(b, x))), INPUT, INPUT),
    "a ReLU first": (lambda b, x: b.act3(x + branch(b, b.pre(x))), None, INPUT),
    "a ReLU on the shortcut": (lambda b, x: b.act3(b.pre(x) + branch(b, x)), None, INPUT),
    "a ReLU before both": (lambda b, x: b.act3((y := b.pre(x)) + branch(b, y)), MORE, MORE),
    "a module of somebody's": (lambda b, x: b.act3(b.odd(x) + branch(b, x)), INPUT, INPUT),
    "a module of somebody's within": (
        lambda b, x: b.act3(x + b.bn3(b.conv3(b.bn2(b.conv2(b.odd(b.conv1(x))))))),
        None,
        None,
    ),
    "the operator first": (lambda b, x: b.act3(x + b.conv3(b.act2(b.only(x)))), None, None),
    "a ReLU, then the operator": (lambda b, x: b.act3(x + b.conv3(b.act2(b.only(b.pre(x))))), None, INPUT),
}


class Odd(nn.Module):
    def forward(self, x):
        return x.mul_(0.5)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("case", IDENTITIES)
def test_inputs_are_left_as_the_network_leaves_them(case, inplace):
    run, *expected = IDENTITIES[case]
    block = Block(run, inplace, outputs=8)
    block.pre, block.odd, block.only = nn.ReLU(inplace), Odd(), ACmix(8, 8, kernel_att=3)
    network = trained(Network(block).double())
    fused = acmix.fuse(network)
    assert_same(fused, network)
    assert reasons_of(fused) == {"block": expected[inplace]}


def test_a_relu_in_place_stays_behind_what_may_keep_its_output():
    block = Block(lambda b, x: b.act3(b.bn3(b.conv3(b.bn2(b.conv2(b.act1(b.odd(b.conv1(x))))))) + b.down(x)), True)
    block.odd = Odd()
    fused = acmix.fuse(network := trained(Network(block).double()))
    assert_same(fused, network)
    assert [type(module) for module in fused.block.before] == [nn.Conv2d, Odd, nn.ReLU]
    assert not fused.block.operator.rectified_input


class Optional(Block):
    def forward(self, x, scale=None):
        return super().forward(x if scale is None else x * scale)


def reading(read):
    return lambda n, x: n.block(x) * (1 + 0 * read(n.block))


CALLERS = {
    "a weight": (reading(lambda b: b.conv3.weight.mean()), "is read by the network: weight"),
    "a name": (reading(lambda b: b.conv3 is None), "is read by the network: conv3"),
    "its type": (reading(lambda b: isinstance(b, Block)), "is read by the network: its type"),
    "whether it is there": (reading(lambda b: hasattr(b, "conv3")), "is read by the network: conv3"),
    "twice": (lambda n, x: n.block(x) + n.block(x), "is called 2 times"),
    "by keyword": (lambda n, x: n.block(x=x), "is called with keywords"),
    "a part": (lambda n, x: n.block(x) + n.block.act3(x).mean(), "is read by the network: act3"),
    "written": (lambda n, x: (setattr(n.block, "mark", 1), n.block(x))[1], "is changed by the network"),
}


@pytest.mark.parametrize("case", CALLERS)
def test_what_the_network_sees_of_a_block_stays(case):
    call, reason = CALLERS[case]
    block = Block(lambda b, x: b.act3(b.conv3(b.act2(b.conv2(b.act1(b.conv1(x))))) + b.down(x)))
    network = trained(Network(block, call).double())
    fused = acmix.fuse(network)
    assert_same(fused, network)
    assert type(fused.block) is Block
    assert reason in reasons_of(fused)["block"]


def shared(network):
    network.other = network.block.act3
    network.call = lambda n, x: n.block(x) + n.other(x).mean()


def hooked(name):
    return lambda n: n.get_submodule(name).register_forward_hook(
        lambda *call: call[-1] if isinstance(call[-1], tuple) else 2 * call[-1]
    )


CHANGES = [
    (hooked("block"), None),
    (hooked("block.conv3"), None),
    (hooked("block.conv1"), "holds a module with hooks"),
    (hooked("block.down"), "holds a module with hooks"),
    (hooked("block.conv2"), None),
    (hooked("block.act3"), "holds a module with hooks"),
    (hooked("block.identity"), "holds a module with hooks"),
    (hooked(""), None),
    (hooked("stem"), False),
    (shared, "has a part that others call"),
    (lambda n: setattr(n, "feature_info", [{"module": "block.act2"}]), "holds a feature of the network"),
    (lambda n: setattr(n.other, "weight", n.block.conv3.weight), "shares weights with"),
    (lambda n: setattr(n.block.act3, "forward", functional.silu), BEHIND),
    (lambda n: setattr(n.block, "forward", functools.partial(Block.forward, n.block)), "has a forward of its own"),
    (lambda n: setattr(n.block, "act3", nn.SiLU()), BEHIND),
    (lambda n: setattr(n.block, "conv3", nn.Conv2d(8, 12, 1, groups=2)), None),
    (lambda n: setattr(n.block, "conv3", nn.Conv2d(8, 12, 3, padding=1)), None),
    (lambda n: setattr(n, "block", Optional(n.block.run)), "takes more than its input"),
]


@pytest.mark.parametrize(("change", "reason"), CHANGES)
def test_what_others_can_tell_stays(change, reason):
    network = Network(Block(lambda b, x: b.act3(b.identity(b.conv3(b.act2(b.conv2(b.act1(b.conv1(x)))))) + b.down(x))))
    change(network)
    network = trained(network.double())
    fused = acmix.fuse(network)
    assert_same(fused, network)
    assert type(fused.block) is (FusedBottleneck if reason is False else type(network.block))
    (found,) = reasons_of(fused).values() or [None]
    assert reason in found if reason else found is None


def test_a_network_that_cannot_be_traced():
    block = Block(lambda b, x: b.act3(b.conv3(b.conv2(b.conv1(x))) + b.down(x)))
    network = trained(Network(block, lambda n, x: n.block(x) if x.sum() > 0 else n.block(-x)).double())
    with pytest.warns(UserWarning, match="the batch norms of Network stay"):
        fused = acmix.fuse(network)
    assert_same(fused, network)
    assert reasons_of(fused)["block"].startswith("is part of a network: torch.fx cannot trace it: ")


def test_a_block_alone_and_one_in_another():
    run = JOINED["plainly"]
    block = trained(Block(run)).double()
    fused, x = acmix.fuse(block), torch.randn(2, 8, 9, 10, dtype=torch.float64)
    assert type(fused) is FusedBottleneck
    assert reasons_of(fused) == {"": None}
    torch.testing.assert_close(fused(x), block(x))
    outer = Block(lambda b, x: b.act3(branch(b, b.inner(x)) + b.down(x)))
    outer.inner = Block(run, outputs=8)
    network = trained(Network(outer).double())
    fused = acmix.fuse(network)
    assert_same(fused, network)
    assert reasons_of(fused) == {"block": INPUT, "block.inner": None}
    # Who holds a part still holds it.
    assert fused.block.inner.last in [*fused.modules()]


def test_what_is_no_bottleneck_is_not_reported():
    parallel = Block(lambda b, x: b.act3(b.conv3(b.down(x)[:, :8]) + b.conv2(b.conv1(x)).mean()))
    for block in (parallel, Block(lambda b, x: b.conv2(b.conv1(x)) + x)):
        network = trained(Network(block).double())
        fused = acmix.fuse(network)
        assert_same(fused, network)
        assert reasons_of(fused) == {}


@given(
    dtype=st.sampled_from(DTYPES),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    stride=st.integers(1, 3),
    last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_blocks_are_as_exact_as_the_networks(dtype, sizes, stride, last, seed):
    torch.manual_seed(seed)
    network = trained(Block(JOINED["in place"], True, stride)).to(dtype)
    batch, height, width = sizes
    x = torch.randn(batch, 8, height, width).to(dtype)
    x = x.to(memory_format=torch.channels_last) if last else x
    exact = copy.deepcopy(network).double()(x.double())
    fused = acmix.fuse(network)
    assert type(fused) is FusedBottleneck
    with torch.no_grad():
        given, found, expected = x.clone(), fused(x), network(x)
    assert torch.equal(x, given)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    last = torch.channels_last
    assert found.is_contiguous(memory_format=last) == expected.is_contiguous(memory_format=last)
    errors = [(each.double() - exact).norm() for each in (found, expected)]
    assert errors[0] <= 6 * errors[1] + 6 * torch.finfo(dtype).eps * exact.norm()


def fused_block(dtype=torch.float32):
    network = trained(Block(JOINED["in place"], True)).to(dtype)
    return network, acmix.fuse(network), torch.randn(2, 8, 9, 8).to(dtype)


def test_copies_pickles_and_words_have_it():
    network, fused, x = fused_block()
    for same in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused)), acmix.fuse(fused)):  # noqa: S301
        assert type(same) is FusedBottleneck
        torch.testing.assert_close(same(x), network(x))
    other = copy.deepcopy(fused)
    for parameter in other.parameters():
        parameter.zero_()
    other.load_state_dict(fused.state_dict())
    assert torch.equal(other(x), fused(x))
    assert "(last): Conv2d(8, 12" in repr(fused)
    wide = copy.deepcopy(fused).double()
    assert wide(x.double()).dtype == torch.float64
    torch.testing.assert_close(wide(x.double()).float(), network(x))
    torch.testing.assert_close(fused(x[0]), network(x)[0])


def test_hooks_of_later_are_called():
    network, fused, x = fused_block()
    for name in ("operator", "last", "operator.qkv", "first", "before", "shortcut", "downsample"):
        seen, each = [], copy.deepcopy(fused)
        handle = each.get_submodule(name).register_forward_hook(lambda *_, seen=seen: seen.append(1))
        torch.testing.assert_close(each(x), network(x))
        assert seen == [1], name
        handle.remove()
        assert torch.equal(each(x), fused(x))
    fused.last.register_forward_hook(lambda *call: 0 * call[-1])
    torch.testing.assert_close(fused(x), fused.downsample(x).relu())
    fused.last = nn.Sequential(fused.last)
    torch.testing.assert_close(fused(x), fused.downsample(x).relu())


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit", "ignore::DeprecationWarning")
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_whatever_traces_a_network_has_it(memory):
    network, fused, x = fused_block()
    x = x.to(memory_format=memory)
    assert_traced(fused, x, network(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert fused(x).dtype == network(x).dtype == torch.bfloat16
        torch.testing.assert_close(fused(x), network(x), rtol=0.1, atol=0.2)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_gradients_of_the_input_are_those_of_the_network():
    network, fused, x = fused_block(torch.float64)
    x.requires_grad_()
    expected, actual = (torch.autograd.grad(each(x).square().sum(), x)[0] for each in (network, fused))
    torch.testing.assert_close(actual, expected)
    tangent = torch.randn_like(x)
    expected, actual = (torch.func.jvp(each, (x.detach(),), (tangent,))[1] for each in (network, fused))
    torch.testing.assert_close(actual, expected)


def in_bottlenecks(network):
    acmix.replace_convolutions(network)
    return network


@pytest.mark.parametrize(
    ("make", "count", "left"),
    [
        (lambda: acmix.create_model("acmix_resnet26", num_classes=3), 8, 0),
        (lambda: acmix.create_model("acmix_resnet14_small", num_classes=3, drop_path_rate=0.2), 4, 0),
        (lambda: in_bottlenecks(torchvision.models.resnet50(num_classes=3)), 16, 0),
        (lambda: in_bottlenecks(timm.create_model("resnet26d", num_classes=3)), 8, 0),
        (lambda: in_bottlenecks(timm.create_model("seresnet50", num_classes=3)), 0, 16),
        (lambda: in_bottlenecks(torchvision.models.segmentation.fcn_resnet50(weights_backbone=None).backbone), 16, 0),
    ],
)
def test_networks(make, count, left):
    network = trained(make()).double()
    fused = acmix.fuse(network)
    blocks = [module for module in fused.modules() if isinstance(module, FusedBottleneck)]
    assert len(blocks) == count
    assert all(block.operator.rectified_input and block.operator.rectified for block in blocks)
    assert len(fused.fusion_report.left) == left, fused.fusion_report
    # In float64: without training, deep networks make much of a rounding.
    x = torch.randn(1, 3, 64, 48, dtype=torch.float64)
    with torch.inference_mode():
        expected, found = network(x), fused(x)
    expected, found = (each["out"] if isinstance(each, dict) else each for each in (expected, found))
    assert (found - expected).norm() < 1e-9 * expected.norm()
    assert sum(isinstance(module, FusedACmix) for module in fused.modules()) >= count
