"""Adaptive pooling in exported networks."""

import pytest
import torch
from torch import nn

from acmix.export import to_onnx
from acmix.export.pooling import AdaptiveAverage, let_pool_at_every_size


@pytest.mark.parametrize("size", [(1, 1), (4, 3), (7, 6), (12, 19)])
@pytest.mark.parametrize("output", [(2, 2), (3, 6), (6, 5)])
def test_it_is_adaptive_pooling(size, output):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(AdaptiveAverage(*output)(x), nn.AdaptiveAvgPool2d(output)(x))


def test_sides_that_stay_and_single_cells_are_left_alone():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((None, 2)), nn.AdaptiveAvgPool2d(3))
    let_pool_at_every_size(network)
    assert ["forward" in vars(module) for module in network] == [False, False, True]


def test_a_network_that_pools_to_several_cells_is_exported_for_every_size(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.AdaptiveAvgPool2d(3), nn.Conv2d(4, 2, 1)).eval()
    written = to_onnx(network, tmp_path / "network.onnx", input_size=(3, 64, 64))
    assert len({check.shape for check in written.checks}) > 1
