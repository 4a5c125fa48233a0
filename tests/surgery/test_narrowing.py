"""Operators with fewer channels: what is promised exactly, and that nothing else changes."""

import pytest
import torch
from torch import nn

import acmix
from acmix.surgery.narrowing import keep_inputs, keep_outputs

DOUBLE = torch.float64


def operator(channels_in=6, channels=24, **options):
    layer = acmix.ACmix(channels_in, channels, **options, dtype=DOUBLE)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def channels_of(heads, head_size, dims):
    return [head * head_size + dim for head in range(heads) for dim in dims]


def test_inputs_that_are_left_out_are_zeros():
    layer, x, kept = operator(), torch.randn(2, 6, 9, 7, dtype=DOUBLE), [0, 2, 5]
    layer.qkv.weight.requires_grad_(False)
    expected = layer(x * torch.tensor([1, 0, 1, 0, 0, 1])[:, None, None])
    keep_inputs(layer, kept)
    assert (layer.in_channels, layer.qkv.in_channels, layer.qkv.weight.requires_grad) == (3, 3, False)
    torch.testing.assert_close(layer(x[:, kept]), expected)


@pytest.mark.parametrize("options", [{}, {"heads": 3, "bias": True, "stride": 2}, {"heads": 8, "kernel_conv": 5}])
def test_outputs_that_stay_are_what_they_were_where_a_smaller_operator_can(options):
    """Few inputs, so that the kernels can be fitted exactly, and queries of which only the channels kept count."""
    layer = operator(**options)
    heads, head_size, dims = layer.heads, 24 // layer.heads, [0, 2]
    kept = channels_of(heads, head_size, dims)
    groups = [kept[dim * heads + heads // 2] // heads for dim in range(len(dims))]
    with torch.no_grad():
        query = layer.qkv.weight.view(3, heads, head_size, -1)[0], layer.qkv.bias.view(3, heads, head_size, 1)[0]
        for part in query:
            part[:, [dim for dim in range(head_size) if dim not in groups]] = 0
    x = torch.randn(2, 6, 9, 7, dtype=DOUBLE)
    expected = layer(x)[:, kept]
    keep_outputs(layer, kept)
    assert layer.out_channels == len(kept)
    assert layer.qkv.out_channels == 3 * len(kept)
    torch.testing.assert_close(layer(x), expected)


def test_kernels_are_fitted_to_what_they_were():
    layer, x = operator(channels_in=40), torch.randn(2, 40, 9, 7, dtype=DOUBLE)
    kept = channels_of(4, 6, [1, 3, 4, 5])
    with torch.no_grad():
        layer.rate_attention.zero_()
        expected, copied = layer(x)[:, kept], layer.dep_weight[kept]
        keep_outputs(layer, kept)
        nearby = [layer.dep_weight + 0.3 * torch.randn_like(copied) for _ in range(3)]
        error = (layer(x) - expected).norm()
        assert error < 0.8 * expected.norm()
        for kernels in (copied, *nearby):
            other = torch.func.functional_call(layer, {"dep_weight": kernels}, (x,))
            assert (other - expected).norm() > 1.1 * error


def test_all_channels_change_nothing():
    layer, x = operator(channels_in=40), torch.randn(2, 40, 9, 7, dtype=DOUBLE)
    expected = layer(x)
    keep_outputs(layer, range(24))
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("kept", [[], [0, 1, 2, 3], [0, 6, 12], [0, 7, 12, 18], [6, 12, 18], [18, 12, 6, 0]])
def test_heads_are_cut_alike_or_not_at_all(kept):
    layer = operator()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with pytest.raises(ValueError, match=r"the same channels of each of the 4 heads, 6 channels each"):
        keep_outputs(layer, kept)
    assert all(torch.equal(before[name], tensor) for name, tensor in layer.state_dict().items())
    assert layer.out_channels == 24


def test_what_is_left_trains_and_is_fused():
    network = nn.Sequential(acmix.ACmix(6, 24, bias=True), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 2, 1))
    keep_inputs(network[0], [1, 2, 4])
    keep_outputs(network[0], channels_of(4, 6, [0, 1, 5]))
    x = torch.randn(2, 3, 8, 8)
    network(x).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    fused = acmix.fuse(network.eval())
    assert not fused.fusion_report.left
    torch.testing.assert_close(fused(x), network(x))
