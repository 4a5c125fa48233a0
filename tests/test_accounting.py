"""Accounting: sums that can be checked by hand, the published figures, and nothing dropped silently."""

import pytest
import torch
from torch import nn

from acmix import ACmix
from acmix.accounting import account, convolution_twin
from acmix.models import create_model

# arXiv 2111.14556, table 2: multiply-adds with ACmix, then parameters and multiply-adds of the convolutional network.
PUBLISHED = {
    "acmix_resnet26": (2.3e9, 13.7e6, 2.4e9),
    "acmix_resnet38": (2.9e9, 19.6e6, 3.2e9),
    "acmix_resnet50": (3.6e9, 25.6e6, 4.1e9),
}


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name):
    operations, twin_parameters, twin_operations = PUBLISHED[name]
    network = create_model(name, device="meta")
    result = account(network, (3, 224, 224))
    assert result.network.total.parameters == count(network)
    # The published count runs fc and dep_conv in two steps, ours composes them.
    assert 0.95 * operations < result.network.total.multiply_adds < operations
    assert result.twin.total.parameters == pytest.approx(twin_parameters, abs=0.05e6)
    assert result.twin.total.multiply_adds == pytest.approx(twin_operations, abs=0.06e9)
    assert result.network.other == result.twin.other


def test_composed_operator_by_hand():
    result = account(ACmix(6, 8, heads=2, kernel_att=5, stride=2), (6, 10, 7)).network
    cells, outputs, head_size = 10 * 7, 5 * 4, 4
    assert result.projection.parameters == 24 * 6 + 24
    assert result.projection.multiply_adds == 24 * 6 * cells
    assert result.attention.parameters == head_size * 2 + 1
    assert result.attention.multiply_adds == 2 * 25 * 8 * outputs + (2 * head_size + 8) * cells + 8 * outputs
    assert result.convolution.parameters == 9 * 6 + 8 * 9 * 9 + 1
    assert result.convolution.multiply_adds == 6 * 9 * 8 * outputs + 6 * 9 * 8 * 9
    assert result.other.parameters == result.other.multiply_adds == 0
    assert result.uncounted == {}


def test_two_step_operator_by_hand():
    result = account(ACmix(8, 16, heads=8, stride=2), (8, 6, 6)).network
    assert result.convolution.multiply_adds == 9 * 24 * 2 * 36 + 9 * 9 * 16 * 9


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


def test_what_is_not_counted_is_reported():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 4, 1), Scale())
    result = account(network, (3, 9, 9)).network
    assert result.uncounted == {"BatchNorm2d": 8, "ConvTranspose2d": 20, "Scale": 7, "Linear": 12}
    assert result.other.parameters == count(network)
    assert result.other.multiply_adds == 4 * 27 * 49


def test_other_layers_and_shared_weights():
    shared = nn.Linear(6, 6)
    network = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.Flatten(2), nn.Linear(9, 6), shared, shared)
    result = account(network, (4, 7, 7)).network
    assert result.other.multiply_adds == 6 * 18 * 9 + 6 * 6 * 9 + 2 * 6 * 6 * 6
    assert result.other.parameters == count(network)


def test_account_leaves_the_network_alone():
    network = nn.Sequential(ACmix(3, 8, dtype=torch.float64), nn.BatchNorm2d(8, dtype=torch.float64))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    account(network, (3, 8, 8))
    assert network.training
    assert all(not module._forward_hooks for module in network.modules())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


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


@pytest.mark.parametrize("size", [(3, 8), (3, 0, 8)])
def test_wrong_input_size(size):
    with pytest.raises(ValueError, match="input_size must be three positive sizes"):
        account(nn.Conv2d(3, 4, 1), size)


def test_input_that_the_network_cannot_take():
    with pytest.raises(ValueError, match=r"input_size must suit Conv2d, got \(5, 8, 8\)"):
        account(nn.Conv2d(3, 4, 1), (5, 8, 8))
