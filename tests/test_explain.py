"""Shown attention is the attention that is computed."""

import pytest
import torch

from acmix import explain
from acmix.nn import ACmix
from acmix.ops import reference
from acmix.ops.geometry import position_map


@pytest.mark.parametrize(("size", "stride", "dilation"), [((5, 9), 1, 1), ((2, 12), 1, 2), ((8, 8), 2, 1)])
def test_map_is_the_folded_reference(size, stride, dilation):
    layer = ACmix(4, 8, heads=2, kernel_att=5, stride=stride, dilation=dilation).double()
    features = torch.randn(2, 4, *size, dtype=torch.float64)
    query, key, _ = layer.qkv(features).unflatten(1, (6, 4)).chunk(3, 1)
    position = position_map(layer.position_weight, *size)
    weights = reference.attention_weights(query, key, position, 5, stride, dilation)
    for row, column in [(0, 0), (size[0] - 2, 4)]:
        maps = explain.attention_map(layer, features, (row, column))
        assert maps.shape == (2, 2, *size)
        torch.testing.assert_close(maps.sum((-2, -1)), torch.ones(2, 2).double())
        # Attention applied to one-hot values must give the map back.
        cells = torch.eye(size[0] * size[1], dtype=torch.float64).view(1, 1, -1, *size).expand(2, 2, -1, -1, -1)
        wide = torch.einsum("bnyxuv,bndyxuv->bndyx", weights, reference.unfold_window(cells, 5, stride, dilation))
        torch.testing.assert_close(maps.flatten(2), wide[..., row // stride, column // stride])


def test_cells_without_a_query_are_refused():
    layer = ACmix(4, 8, stride=2)
    with pytest.raises(ValueError, match=r"row must be a multiple of the stride 2 in \[0, 6\), got 3"):
        explain.attention_map(layer, torch.randn(1, 4, 6, 6), (3, 0))
    with pytest.raises(ValueError, match="column must be .*got 6"):
        explain.attention_map(layer, torch.randn(1, 4, 6, 6), (0, 6))


def test_inputs_and_rates_of_every_layer():
    network = torch.nn.Sequential(ACmix(3, 4), torch.nn.ReLU(), ACmix(4, 8, stride=2))
    images = torch.randn(2, 3, 6, 6)
    inputs = explain.layer_inputs(network, images)
    assert list(inputs) == ["0", "2"]
    assert torch.equal(inputs["0"], images)
    assert inputs["2"].shape == (2, 4, 6, 6)
    assert explain.rates(network) == [explain.Rates("0", 0.5, 0.5), explain.Rates("2", 0.5, 0.5)]
    assert not network[0]._forward_pre_hooks
