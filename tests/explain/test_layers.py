"""Rates, path shares and kernels of the layers of a network."""

import math

import pytest
import torch
from timm.models.swin_transformer import WindowAttention

import acmix
from acmix import InputError, explain
from acmix.models.swin import WindowACmix
from acmix.nn import ACmix
from acmix.ops import reference
from acmix.ops.geometry import position_map


def test_inputs_and_rates_of_every_layer():
    network = torch.nn.Sequential(ACmix(3, 4), torch.nn.ReLU(), ACmix(4, 8, stride=2))
    images = torch.randn(2, 3, 6, 6)
    inputs = explain.layer_inputs(network, images)
    assert list(inputs) == ["0", "2"]
    assert torch.equal(inputs["0"], images)
    assert inputs["2"].shape == (2, 4, 6, 6)
    assert explain.rates(network) == [explain.Rates("0", 0.5, 0.5), explain.Rates("2", 0.5, 0.5)]
    assert not network[0]._forward_pre_hooks
    assert list(explain.operators(network)) == ["0", "2"]


def test_arguments_by_name_are_in_order():
    class Shifted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = WindowACmix(WindowAttention(8, num_heads=2, window_size=(2, 2)))

        def forward(self, images):
            return self.layer(shift=(1, 1), x=images)

    images = torch.randn(1, 4, 4, 8)
    ((maps, shift),) = explain.layer_arguments(Shifted().eval(), images).values()
    assert torch.equal(maps, images)
    assert shift == (1, 1)


@pytest.mark.parametrize(
    "look", [explain.operators, explain.rates, lambda network: explain.layer_inputs(network, None)]
)
def test_fused_networks_are_refused(look):
    fused = acmix.fuse(torch.nn.Sequential(ACmix(3, 4)))
    with pytest.raises(InputError, match="is fused: .*; explain the network that acmix.fuse was given"):
        look(fused)


def test_log_ratio_is_that_of_the_sizes():
    assert explain.Rates("a", -0.5, 0.25).log_ratio == pytest.approx(math.log(2))
    assert explain.Rates("a", 0.0, 0.25).log_ratio == -math.inf


@pytest.mark.parametrize(("stride", "dilation"), [(1, 2), (2, 1)])
def test_shares_are_norms_of_the_paths_of_the_definition(stride, dilation):
    layer = ACmix(4, 8, heads=2, kernel_att=5, stride=stride, dilation=dilation).double()
    with torch.no_grad():
        layer.rate_attention.fill_(-0.7)
        layer.rate_convolution.fill_(0.2)
    images = torch.randn(5, 4, 6, 7, dtype=torch.float64)
    with torch.no_grad():
        projections = layer.qkv(images).unflatten(1, (6, 4))
        position = position_map(layer.position_weight, 6, 7)
        attention = -0.7 * reference.attend(*projections.chunk(3, 1), position, 5, stride, dilation).flatten(1, 2)
        convolution = 0.2 * reference.convolve(projections, layer.fc_weight, layer.dep_weight, stride, dilation)
        torch.testing.assert_close(attention + convolution, layer(images))
    (whole,) = explain.path_shares(torch.nn.Sequential(layer), [images])
    assert whole.layer == "0"
    assert whole.attention == pytest.approx(attention.square().mean().sqrt().item())
    assert whole.convolution == pytest.approx(convolution.square().mean().sqrt().item())
    assert whole.share == pytest.approx(whole.attention / (whole.attention + whole.convolution))
    # Batches of any size, with labels as a loader gives them, are one set of images.
    (parts,) = explain.path_shares(torch.nn.Sequential(layer), [(images[:2], torch.zeros(2)), images[2:]])
    assert parts.attention == pytest.approx(whole.attention)
    assert parts.convolution == pytest.approx(whole.convolution)


def test_shares_need_images():
    with pytest.raises(InputError, match="batches must hold at least one image"):
        explain.path_shares(torch.nn.Sequential(ACmix(4, 8)), [])
    assert explain.PathShare("a", 0.0, 0.0).share == 0.5


def test_kernels_move_from_shifts():
    layer = ACmix(4, 8, heads=2)
    (start,) = explain.kernel_changes(torch.nn.Sequential(layer))
    assert (start.layer, start.distance, start.shift_energy) == ("0", 0.0, 1.0)
    assert torch.equal(start.mean.flatten(1), torch.eye(9).double())
    with torch.no_grad():
        layer.dep_weight[:, 0, 2, 2] += 2
    (moved,) = explain.kernel_changes(torch.nn.Sequential(layer))
    # One of the nine kernels moved by 2; of its squared length 5 it keeps 1 in place.
    assert moved.distance == pytest.approx(math.sqrt(4 / 9))
    assert moved.shift_energy == pytest.approx(9 / 13)
    assert moved.mean[0, 2, 2] == 2
