"""Shown attention is the attention that is computed."""

import pytest
import torch

from acmix import InputError, explain
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


def network():
    return torch.nn.Sequential(ACmix(3, 4, heads=2), torch.nn.AvgPool2d(2), ACmix(4, 8, heads=2, stride=2)).double()


def test_attention_of_a_pixel_in_every_layer_and_head():
    model, images = network(), torch.randn(2, 3, 10, 12, dtype=torch.float64)
    first, second = explain.pixel_attention(model, images, (7, 4))
    inputs = explain.layer_inputs(model, images)
    assert (first.layer, first.cell, first.region) == ("0", (7, 4), (7, 8, 4, 5))
    # Pixel (7, 4) lies in cell (3, 2) of the halved map, which is served by the query at (2, 2).
    assert (second.layer, second.cell, second.stride, second.region) == ("2", (2, 2), 2, (4, 6, 4, 6))
    assert torch.equal(second.weights, explain.attention_map(model[2], inputs["2"], (2, 2)))
    assert second.weights.shape == (2, 2, 5, 6)
    assert torch.equal(first.pixel_weights, first.weights)
    torch.testing.assert_close(second.pixel_weights[..., 5, 7], second.weights[..., 2, 3] / 4)
    torch.testing.assert_close(second.pixel_weights.sum((-2, -1)), torch.ones(2, 2).double())
    (alone,) = explain.pixel_attention(model, images, (7, 4), ["2"])
    assert torch.equal(alone.weights, second.weights)


def test_pixels_outside_and_networks_without_layers_are_refused():
    with pytest.raises(ValueError, match=r"pixel must lie in \[0, 10\), got 10"):
        explain.pixel_attention(network(), torch.randn(1, 3, 10, 12).double(), (10, 0))
    with pytest.raises(InputError, match="Conv2d has no ACmix layer"):
        explain.pixel_attention(torch.nn.Conv2d(3, 3, 1), torch.randn(1, 3, 4, 4), (0, 0))


@pytest.mark.parametrize(("size", "cells"), [(12, 3), (17, 9), (7, 7), (5, 1), (3, 8)])
def test_cells_divide_the_pixels(size, cells):
    spans = [explain.cell_span(cell, size, cells) for cell in range(cells)]
    assert (spans[0][0], spans[-1][1]) == (0, size)
    for pixel in range(size):
        start, end = spans[explain.cell_at(pixel, size, cells)]
        assert start <= pixel + 0.5 < end
    weights = torch.rand(2, cells, 4, dtype=torch.float64)
    pixels = explain.spread(weights, size, 4)
    assert pixels.shape == (2, size, 4)
    torch.testing.assert_close(pixels.sum(1), weights.sum(1))
    # A pixel shared by cells has of each what lies within it.
    shares = [max(0, min(end, 1) - max(start, 0)) / (end - start) for start, end in spans]
    torch.testing.assert_close(pixels[:, 0], torch.einsum("bcx,c->bx", weights, torch.tensor(shares).double()))
    with pytest.raises(ValueError, match=f"cell must lie in .0, {cells}., got {cells}"):
        explain.cell_span(cells, size, cells)
