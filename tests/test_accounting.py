"""Accounting: sums that can be checked by hand, the published figures, and nothing dropped silently."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torchvision.ops import DeformConv2d

from acmix import ACmix, fuse, ops
from acmix.accounting import account, convolution_twin
from acmix.models import create_model
from tests.ops.counting import enumerate_multiply_adds


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("heads", "composed"), [(2, True), (8, False)])
def test_operator_is_what_a_count_gives(heads, composed):
    operator = ACmix(6, 16, heads=heads, kernel_att=5, stride=2)
    result = account(operator, (6, 10, 7)).network
    sizes = {"inputs": 6, "channels": 16, "heads": heads, "window": 5, "kernel": 3, "stride": 2}
    counts = enumerate_multiply_adds(10, 7, composed=composed, **sizes)
    assert result.projection.parameters == 48 * 6 + 48
    assert result.attention.parameters == 16 // heads * 2 + 1
    assert result.convolution.parameters == 9 * 3 * heads + 16 * 9 * 9 + 1
    assert result.projection.multiply_adds == counts["projection"]
    assert result.convolution.multiply_adds == counts["composition"] + counts["mixing"] + counts["convolution"]
    assert result.total.multiply_adds == counts.total()
    assert result.other.parameters == result.other.multiply_adds == 0
    assert result.uncounted == {}


@pytest.mark.skipif("cpu" not in ops.backends(), reason="other backends multiply more than the definition")
def test_fused_operator_is_what_a_count_gives():
    fused = fuse(ACmix(6, 16, bias=True))
    fused.rectified_input = fused.rectified = True
    result = account(fused, (6, 10, 7)).network
    sizes = {"inputs": 6, "channels": 16, "heads": 4, "window": 7, "kernel": 3, "stride": 1}
    counts = enumerate_multiply_adds(10, 7, composed=True, **sizes)
    # Its kernels are composed already; positions and the final sum are no products of matrices.
    left_out = counts["composition"] + counts["positions"] + counts["sum"]
    assert result.total.multiply_adds == counts.total() - left_out
    assert result.uncounted == {}


def test_twin_operator_by_hand():
    result = account(ACmix(6, 8, heads=2, kernel_conv=5, stride=2), (6, 10, 7)).twin
    assert result.convolution.parameters == 25 * 6 * 8
    assert result.convolution.multiply_adds == 25 * 6 * 8 * 20
    assert result.total == result.convolution


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(7))

    def forward(self, x):
        return x * self.scale


class Deformed(nn.Module):
    """An operation that PyTorch's counter has no formula of."""

    def __init__(self):
        super().__init__()
        self.convolution = DeformConv2d(4, 4, 3)

    def forward(self, x):
        return self.convolution(x, x.new_zeros(len(x), 18, x.shape[2] - 2, x.shape[3] - 2))


def test_what_is_not_counted_is_reported():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Deformed(), Scale())
    result = account(network, (3, 11, 11)).network
    assert result.uncounted == {"BatchNorm2d": 8, "DeformConv2d": 4 * 4 * 9 + 4, "Scale": 7, "Linear": 12}
    assert result.other.parameters == count(network)
    assert result.other.multiply_adds == 4 * 27 * 81


def test_other_layers_and_shared_weights():
    shared = nn.Linear(6, 6)
    network = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.Flatten(2), nn.Linear(9, 6), shared, shared)
    result = account(network, (4, 7, 7)).network
    assert result.other.multiply_adds == 6 * 18 * 9 + 6 * 6 * 9 + 2 * 6 * 6 * 6
    assert result.other.parameters == count(network)


# Published: arXiv 1512.03385 (with timm's stride in the 3x3 convolution), 2012.12877, 2103.14030, in timm 1.0 as here.
TIMM = {
    "resnet50": (25.56e6, 4.09e9),
    "vit_tiny_patch16_224": (5.72e6, 1.25e9),
    "swin_tiny_patch4_window7_224": (28.29e6, 4.49e9),
}


@pytest.mark.parametrize("name", TIMM)
def test_published_figures_of_other_networks(name):
    parameters, multiply_adds = TIMM[name]
    result = account(timm.create_model(name, device="meta"), (3, 224, 224))
    assert result.network == result.twin
    assert result.network.total.parameters == pytest.approx(parameters, rel=5e-3)
    assert result.network.total.multiply_adds == pytest.approx(multiply_adds, rel=5e-3)


class Called(nn.Module):
    """A module on the image as tokens `(1, 20, 12)`, and a function of the two."""

    def __init__(self, module, function=lambda module, x: module(x)):
        super().__init__()
        self.module = module
        self.function = function

    def forward(self, x):
        return self.function(self.module, x.flatten(2).mT)


def attend(module, x):
    return module(x, x, x)


def holding(*sizes):
    module = nn.Module()
    module.weight = nn.Parameter(torch.randn(*sizes))
    return module


PLAIN, ATTENDED = 20 * 12 * 12, 20 * 20 * 12
FUNCTIONS = {
    "attention": (nn.MultiheadAttention(12, 3, batch_first=True), attend, 4 * PLAIN + 2 * ATTENDED),
    "transformer": (
        nn.TransformerEncoderLayer(12, 3, dim_feedforward=24, batch_first=True),
        None,
        8 * PLAIN + 2 * ATTENDED,
    ),
    "recurrent": (nn.LSTM(12, 12, batch_first=True), None, 4 * 2 * PLAIN),
    "bilinear": (nn.Bilinear(12, 12, 5), lambda m, x: m(x, x), 20 * 5 * 12 * 12),
    "linear": (holding(7, 12), lambda m, x: functional.linear(x, m.weight), 20 * 12 * 7),
    "einsum": (holding(12, 7), lambda m, x: torch.einsum("bnc,cd->bdn", x, m.weight), 20 * 12 * 7),
    "vector": (holding(12), lambda m, x: x @ m.weight, 20 * 12),
    "added vector": (holding(12), lambda m, x: torch.addmv(x[0, :, 0], x[0], m.weight), 20 * 12),
    "dot": (holding(12), lambda m, x: x[0, 0] @ m.weight, 12),
    "baddbmm": (holding(1, 12, 7), lambda m, x: torch.baddbmm(x[..., :1], x, m.weight), 20 * 12 * 7),
    "addbmm": (holding(1, 12, 7), lambda m, x: torch.addbmm(x[0, :, :1], x, m.weight), 20 * 12 * 7),
    "tied": (holding(12, 12), lambda m, x: x @ m.weight @ m.weight.mT, 2 * PLAIN),
    "normalised": (parametrizations.weight_norm(nn.Linear(12, 12)), None, PLAIN),
    "low rank": (holding(12, 3), lambda m, x: x @ (m.weight @ m.weight.mT), PLAIN + 12 * 12 * 3),
    "convolution": (holding(6, 12, 3), lambda m, x: functional.conv1d(x.mT, m.weight), 18 * 6 * 12 * 3),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_products_are_counted_wherever_they_are_called(name):
    module, function, multiply_adds = FUNCTIONS[name]
    network = Called(module) if function is None else Called(module, function)
    result = account(network, (12, 4, 5)).network
    assert result.other.multiply_adds == result.total.multiply_adds == multiply_adds
    assert result.uncounted == ({"LayerNorm": 48} if name == "transformer" else {})


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (2, 2)])
def test_transposed_convolutions_are_counted(groups, stride):
    layer = nn.ConvTranspose2d(4, 6, 3, groups=groups, stride=stride)
    result = account(layer, (4, 5, 6)).network
    # Every cell of the input, with every tap, gives to all outputs of its group.
    assert result.total.multiply_adds == 5 * 6 * 9 * 4 * 6 // groups
    assert result.uncounted == {}


def test_parts_of_a_network_beside_what_is_not_ours():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.operator = ACmix(4, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            tokens = self.operator(torch.cat((x, x))).flatten(2).mT
            return self.attention(tokens, tokens, tokens)[0]

    result, alone = account(Network(), (4, 5, 6)), account(ACmix(4, 8), (4, 5, 6))
    # The operator is called with two images.
    for part in ("projection", "attention", "convolution"):
        assert getattr(result.network, part).multiply_adds == 2 * getattr(alone.network, part).multiply_adds
    assert result.twin.convolution.multiply_adds == 2 * 30 * 8 * 4 * 9
    assert result.network.other == result.twin.other
    assert result.network.other.multiply_adds == 2 * (4 * 30 * 8 * 8 + 2 * 30 * 30 * 8)


def test_a_projection_with_an_adapter_is_counted_whole():
    class Adapted(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer, self.down, self.up = layer, nn.Conv2d(4, 2, 1, bias=False), nn.Conv2d(2, 24, 1, bias=False)

        def forward(self, x):
            return self.layer(x) + self.up(self.down(x))

    operator = ACmix(4, 8)
    plain = account(operator, (4, 5, 6)).network
    operator.qkv = Adapted(operator.qkv)
    adapted = account(operator, (4, 5, 6)).network
    assert adapted.projection.multiply_adds - plain.projection.multiply_adds == 30 * (4 * 2 + 2 * 24)
    assert adapted.projection.parameters - plain.projection.parameters == 4 * 2 + 2 * 24


def test_account_leaves_the_network_alone():
    network = nn.Sequential(ACmix(3, 8, dtype=torch.float64), nn.BatchNorm2d(8, dtype=torch.float64))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    account(network, (3, 8, 8))
    assert network.training
    assert all(not module._forward_hooks for module in network.modules())
    assert torch.backends.mha.get_fastpath_enabled()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_tensors_that_are_no_parameters_are_taken():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = ACmix(3, 8)
            self.scales = [torch.full((1, 8, 1, 1), 2.0)]

        def forward(self, x):
            return self.layer(x) * self.scales[0]

    network = Scaled()
    assert account(network, (3, 8, 8)).network.total == account(network.layer, (3, 8, 8)).network.total
    assert network.scales[0].sum() == 16


def test_twin_has_the_shape_of_the_network_and_its_other_weights():
    operator = ACmix(4, 8, stride=2, dilation=3, dtype=torch.float64)
    network = nn.Sequential(nn.Conv2d(3, 4, 1, dtype=torch.float64), operator, nn.ModuleDict({"again": operator}))
    twin = convolution_twin(network.eval())
    convolution = twin[1]
    assert isinstance(convolution, nn.Conv2d)
    assert convolution is twin[2]["again"]
    assert convolution.bias is None
    assert not convolution.training
    assert isinstance(network[1], ACmix)
    assert torch.equal(twin[0].weight, network[0].weight)
    assert twin[0].weight is not network[0].weight
    x = torch.randn(2, 3, 11, 8, dtype=torch.float64)
    assert twin[:2](x).shape == network[:2](x).shape


@pytest.mark.parametrize("size", [(3, 8), (3, 0, 8), 64])
def test_wrong_input_size(size):
    with pytest.raises(ValueError, match="input_size must be three positive sizes"):
        account(nn.Conv2d(3, 4, 1), size)


def test_input_that_the_network_cannot_take():
    with pytest.raises(ValueError, match=r"input_size must suit Conv2d, got \(5, 8, 8\)"):
        account(nn.Conv2d(3, 4, 1), (5, 8, 8))


def test_parts_of_a_swin():
    """The convolution path is what a Swin has more."""
    ours, theirs = (
        account(create_model(name, device="meta"), (3, 224, 224)).network
        for name in ("acmix_swin_tiny", "swin_tiny_patch4_window7_224")
    )
    assert ours.total.parameters == 28_649_908
    assert ours.total.parameters - theirs.total.parameters == ours.convolution.parameters + 12
    added = ours.total.multiply_adds - theirs.total.multiply_adds
    assert ours.convolution.multiply_adds == pytest.approx(added, rel=0.06)
    assert ours.projection.parameters == sum(3 * c * (c + 1) * n for c, n in ((96, 2), (192, 2), (384, 6), (768, 2)))
