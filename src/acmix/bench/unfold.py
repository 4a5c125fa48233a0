"""The formulation that fast code is measured against: every window cell of k, v and positions made in memory.

It is what a reader of the paper writes first (and what the published code computes): `torch.nn.functional.unfold` of
the reflection-padded keys and values, positions unfolded likewise, fc and grouped convolution in two steps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from acmix.ops.geometry import output_size, position_map


def _windows(feature: Tensor, window: int, stride: int) -> Tensor:
    """`(B, C, H, W)` to `(B, C, window^2, H', W')`, reflected."""
    batch, channels, height, width = feature.shape
    radius = window // 2
    padded = F.pad(feature, (radius,) * 4, mode="reflect")
    cells = F.unfold(padded, window, stride=stride)
    return cells.view(batch, channels, window**2, output_size(height, stride), output_size(width, stride))


def mix(
    projections: Tensor,
    position_weight: Tensor,
    fc_weight: Tensor,
    dep_weight: Tensor,
    rate_attention: Tensor,
    rate_convolution: Tensor,
    *,
    window: int = 7,
    stride: int = 1,
) -> Tensor:
    """Stages II and III as `acmix.ops.mix` computes them, dilation 1, maps larger than the window's radius."""
    query, key, value = projections.chunk(3, 1)
    batch, heads, head_size, height, width = query.shape

    def images(feature: Tensor) -> Tensor:
        return feature.reshape(batch * heads, head_size, height, width)

    position = position_map(position_weight, height, width)[None]
    query_at = images(query)[:, :, None, ::stride, ::stride] * head_size**-0.5
    position_at = position[:, :, None, ::stride, ::stride]
    keys = _windows(images(key), window, stride)
    positions = _windows(position, window, stride)
    weights = (query_at * (keys + position_at - positions)).sum(1, keepdim=True).softmax(2)
    attention = (weights * _windows(images(value), window, stride)).sum(2)
    attention = attention.reshape(batch, heads * head_size, *attention.shape[-2:])

    mixed = torch.einsum("pc,bcdyx->bdpyx", fc_weight, projections).flatten(1, 2)
    convolution = F.conv2d(mixed, dep_weight, stride=stride, padding=dep_weight.shape[-1] // 2, groups=head_size)
    return rate_attention * attention + rate_convolution * convolution
