"""Fusing changes nothing, whatever the network: chains, branches, aliases, hooks, wrappers, norms of every kind."""

import copy
import functools
from types import MethodType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import BatchNormAct2d, FrozenBatchNormAct2d
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune
from torchvision.ops import FrozenBatchNorm2d

import acmix
from acmix import ACmix
from acmix.surgery import FusedACmix

C = 4


class LouderNorm(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


class LouderConvolution(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


class LouderACmix(ACmix):
    def forward(self, x):
        return 2 * super().forward(x)


class Adapter(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base, self.down, self.up = base, nn.Conv2d(C, 1, 1), nn.Conv2d(1, base.out_channels, 1)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def adapted(layer):
    layer.qkv = Adapter(layer.qkv)
    return layer


def normed_projection(layer):
    parametrizations.weight_norm(layer.qkv)
    return layer


def operator(kind=ACmix, **options):
    return kind(C, C, **{"heads": 2, "kernel_att": 3} | options)


LAYERS = [
    operator,
    operator,
    lambda: operator(bias=True, heads=4),
    lambda: adapted(operator()),
    lambda: normed_projection(operator()),
    lambda: operator(LouderACmix),
    lambda: FusedACmix(operator()),
    lambda: nn.Conv2d(C, C, 3, padding=1),
    lambda: nn.Conv2d(C, C, 3, padding=1, bias=False, padding_mode="reflect"),
    lambda: nn.Conv2d(C, C, 1, groups=2),
    lambda: LouderConvolution(C, C, 1),
    lambda: nn.ConvTranspose2d(C, C, 1),
]
NORMS = [
    lambda: nn.BatchNorm2d(C),
    lambda: nn.BatchNorm2d(C),
    lambda: nn.BatchNorm2d(C, eps=0.3, momentum=None),
    lambda: nn.BatchNorm2d(C, affine=False),
    lambda: nn.BatchNorm2d(C, track_running_stats=False),
    lambda: nn.SyncBatchNorm(C),
    lambda: FrozenBatchNorm2d(C),
    lambda: BatchNormAct2d(C),
    lambda: FrozenBatchNormAct2d(C, act_layer=nn.Tanh),
    lambda: LouderNorm(C),
]


class LouderReLU(nn.ReLU):
    def forward(self, x):
        return 2 * super().forward(x)


ACTIVATIONS = [nn.ReLU, lambda: nn.ReLU(inplace=True), nn.Identity, LouderReLU]
# All others, parametrised ones too, are left.
PLAIN = (ACmix, nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d, BatchNormAct2d, FrozenBatchNormAct2d)


def doubled(module, *arguments):
    return type(module).forward(module, *arguments) * 2


def keep_forward(module):
    module.forward = functools.partial(doubled, module)


def keep_bound_forward(module):
    module.forward = MethodType(doubled, module)


def with_weight(change):
    return lambda module: change(module) if isinstance(getattr(module, "weight", None), nn.Parameter) else None


def add_one(module, inputs, named, output):  # noqa: ARG001
    return output + 1


CHANGES = [
    lambda module: module.register_forward_hook(lambda *all_of_it: 2 * all_of_it[-1]),
    lambda module: module.register_forward_hook(add_one, with_kwargs=True),
    lambda module: module.register_forward_pre_hook(lambda _, inputs: tuple(2 * x for x in inputs)),
    lambda module: module.register_full_backward_hook(lambda *_: None),
    keep_forward,
    keep_bound_forward,
    with_weight(lambda module: parametrizations.weight_norm(module) if module.weight.ndim > 1 else None),
    with_weight(lambda module: prune.l1_unstructured(module, "weight", 0.5)),
]
# Of one norm: ordinary, all zero, or of any size.
SCALES = [[0.7, -1.3, 2.0], [0.7, -1.3, 2.0], [0.0], [0.0, 1e-20, 1e-3, 0.7, -1.3]]
VARIANCES = [[0.5, 2.0], [0.5, 2.0], [0.0], [0.0, 0.5, 1e30]]


class Drawn(nn.Module):
    """Runs steps on a list of values; the last is the output."""

    def __init__(self, modules, steps):
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.blocks = nn.ModuleList(
            nn.Sequential(modules[i], modules[j]) if kind == "block" else nn.Identity() for kind, i, j, _ in steps
        )
        self.held, self.steps = [*modules], steps
        self.kept = None

    def forward(self, x, optional=None):
        values = [x]
        for step, (kind, i, j, source) in enumerate(self.steps):
            value = values[source % len(values)]
            if kind in ("call", "block", "keyword", "held") and isinstance(self.parts[i], ACmix | FusedACmix):
                value = torch.tanh(value)  # Large logits make a softmax of any rounding.
            values.append(self.step(kind, i, j, value, values, self.blocks[step], optional))
        return values[-1]

    def step(self, kind, i, j, value, values, block, optional):
        if kind == "call":
            return self.parts[i](value)
        if kind == "held":
            return self.held[i](value)
        if kind == "block":
            return block(value)
        if kind == "keyword":
            name = "input" if isinstance(self.parts[i], nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d) else None
            return self.parts[i](**{name: value}) if name and type(self.parts[i]).__module__[:5] == "torch" else value
        if kind == "function":
            return functional.relu(value, inplace=True)
        if kind == "add":
            return value + values[j % len(values)]
        if kind == "weight":
            name = "rate_attention" if isinstance(self.parts[i], ACmix | FusedACmix) else "weight"
            weight = getattr(self.parts[i], name, None)
            return value if weight is None else value + weight.sum()
        if kind == "statistics":
            return value + sum(buffer.sum() for buffer in self.parts[i].buffers() if buffer.is_floating_point())
        if kind == "no bias":
            return value * (2 if getattr(self.parts[i], "bias", None) is None else 3)
        if kind == "keep":
            self.kept = value
        elif kind == "optional":
            return value if optional is None else value + values[j % len(values)]
        elif kind == "type":
            return value + values[j % len(values)] if isinstance(value, torch.Tensor) else value
        return value


KINDS = ["call", "call", "block", "held", "keyword", "function", "add"]
KINDS += ["weight", "statistics", "no bias", "keep", "optional", "type"]


@st.composite
def numbers(draw, kinds):
    return torch.tensor(draw(st.lists(st.sampled_from(draw(st.sampled_from(kinds))), min_size=C, max_size=C)))


@st.composite
def networks(draw):
    torch.manual_seed(draw(st.integers(0, 999)))
    modules = []
    for _ in range(draw(st.integers(1, 3))):
        modules += [draw(st.sampled_from(LAYERS))(), draw(st.sampled_from(NORMS))()]
    for norm in modules[1::2]:
        if norm.running_var is not None:
            norm.running_mean.normal_()
            norm.running_var.copy_(draw(numbers(VARIANCES)))
        if norm.weight is not None:
            norm.weight.data.copy_(draw(numbers(SCALES)))
            norm.bias.data.normal_()
    layers = len(modules)
    modules += [draw(st.sampled_from(ACTIVATIONS))() for _ in range(draw(st.integers(1, 4)))]
    if draw(st.integers(0, 7)) == 0:
        tie(modules)
    for module in modules:
        if draw(st.integers(0, 11)) == 0:
            draw(st.sampled_from(CHANGES))(module)
    index = st.integers(0, len(modules) - 1)
    steps = []
    # Most of the time a layer and then its norm, so that there is something to fold, with ReLUs around them.
    for layer in range(0, layers, 2):
        if draw(st.booleans()):
            steps += [("block", layer, layer + 1, -1)]
        else:
            steps += [("call", layer, 0, -1), ("call", layer + 1, 0, -1)]
        for activation in draw(st.lists(st.integers(layers, len(modules) - 1), max_size=2)):
            steps += [("call", activation, 0, -1)]
    others = st.tuples(st.sampled_from(KINDS), index, index, st.sampled_from([-1, -1, -1, 0, 1, 2]))
    for step in draw(st.lists(others, max_size=2)):
        steps.insert(draw(st.integers(0, len(steps))), step)
    network = Drawn(modules, steps)
    return network.train(draw(st.booleans())).double()


def tie(modules):
    """Share the weights of the first two convolutions of one kind."""
    convolutions = [module for module in modules if isinstance(module, nn.Conv2d)]
    for other in convolutions[1:]:
        if other.weight.shape == convolutions[0].weight.shape:
            other.weight = convolutions[0].weight


def state(network):
    """All that a fuse may not touch."""
    return {
        name: (type(module), module.training, [*vars(module)], [*module._forward_hooks.values()], module.forward)
        for name, module in network.named_modules(remove_duplicate=False)
    }


def outputs(network, *inputs):
    """What it returns, keeps and leaves of its inputs."""
    inputs = [x.clone() for x in inputs]
    with torch.no_grad():
        returned = [torch.nan_to_num(network(*inputs), nan=7e7)]
    return returned + ([] if network.kept is None else [network.kept]) + inputs


@pytest.mark.filterwarnings("ignore:the batch norms of Drawn stay")
@settings(max_examples=100)
@given(networks())
def test_nothing_changes(network):
    before, weights = state(network), copy.deepcopy(network.state_dict())
    fused = acmix.fuse(network)
    assert state(network) == before
    assert network.kept is None
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())
    reasons = {layer.name: layer.reason for layer in fused.fusion_report.layers}
    for name, module in network.named_modules():
        if isinstance(module, ACmix) or hasattr(module, "running_var"):
            assert type(module) in PLAIN or reasons[name], fused.fusion_report
            assert not (module._forward_hooks or module._forward_pre_hooks) or reasons[name], fused.fusion_report
    network.eval()
    x = torch.randn(2, C, 5, 6, dtype=torch.float64)
    for inputs in ((x,), (x, x)):
        for found, expected in zip(outputs(fused, *inputs), outputs(network, *inputs), strict=True):
            size = expected.abs().amax((0, 2, 3), keepdim=True)
            assert ((found - expected).abs() <= 1e-9 * size + 1e-12).all(), fused.fusion_report
    exact = outputs(network, x)[0]
    own = outputs(network.float(), x.float())[0].double() - exact
    error = outputs(acmix.fuse(network), x.float())[0].double() - exact
    assert error.norm() <= 10 * max(own.norm(), 1e-6 * exact.norm()), fused.fusion_report
