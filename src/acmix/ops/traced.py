"""The operator as one graph for every size of map: what is traced and exported. Gathers, products, one convolution.

Queries are cut into tiles of `TILE` x `TILE` cells. One gather with reflected indices brings the keys that a tile's
windows reach, a row of D numbers a cell, so that no map is padded and a constant mask leaves each query its window.
Sizes of maps are only ever arguments of operations, never compared: in traces they are tensors or symbols. Tensors have
at most five axes, as CoreML wants it.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from acmix.ops import unfolded
from acmix.ops.contract import Convolution, Grid, Projection, Weights
from acmix.ops.geometry import output_size
from acmix.ops.places import TILE, key_count, mask, own_places, places_of_map
from acmix.ops.precision import widen
from acmix.ops.tracing import has_gathers, plain_shape, unrecorded

# Logits are raised to this much below the one of their query's own cell: e^-60 is nothing in float32, but not yet a
# number of the slow, denormal kind, through which ONNX Runtime's softmax makes 0 of -inf.
_FLOOR = -60.0
# Channels that runtimes on CPUs compute at once.
_BLOCK = 16


class Prepared(NamedTuple):
    """Weights in the graph's order: what an exporter may make of `Projection` and `Weights` beforehand.

    Attributes:
        weight: Of the projection, queries times D^-1/2, `(D * 3 N, C_in, 1, 1)`: all maps of one place in the heads
            together, as the groups of the convolution want them.
        bias: `(D * 3 N,)` or None.
        kernels: Of the convolution path, composed, `(C, 3 N j, k, k)` for j groups in one.
    """

    weight: Tensor
    bias: Tensor | None
    kernels: Tensor


def prepare(projection: Projection, weights: Weights, grid: Grid) -> Prepared:
    """Weights as the graph has them."""
    maps, size = 3 * grid.heads, plain_shape(weights.position)[0]

    def ordered(parameter: Tensor) -> Tensor:
        scaled = parameter.reshape(maps, size, -1) * _query_scale(parameter, grid.heads, size)[..., None, None]
        return scaled.transpose(0, 1)

    weight, bias = projection
    weight = ordered(weight).reshape(maps * size, -1, 1, 1)
    bias = None if bias is None else ordered(bias).reshape(maps * size)
    kernels = _kernels(weights.convolution, weight.dtype, _query_scale(weight, grid.heads, size))
    return Prepared(weight, bias, _join_groups(kernels, grid.heads))


def compute(x: Tensor, prepared: Prepared, position: Tensor, rate: Tensor, grid: Grid) -> Tensor:
    """All three stages, `(B, C_in, H, W)` to `(B, C, H', W')`."""
    maps = F.conv2d(x, prepared.weight, prepared.bias)
    attended = _attend(maps, position, rate, grid, plain_shape(position)[0])
    return attended + _convolve(maps, prepared.kernels, grid)


def project_and_mix(x: Tensor, projection: Projection, weights: Weights, grid: Grid) -> Tensor:
    """All three stages; see `acmix.ops.project_and_mix`."""
    return compute(x, prepare(projection, weights, grid), weights.position, weights.rate, grid)


def mix(projections: Tensor, weights: Weights, grid: Grid) -> Tensor:
    """Stages II and III; see `acmix.ops.mix`."""
    scale = _query_scale(projections, grid.heads, plain_shape(projections)[2])
    maps = _places_first(projections * scale[:, None, None, None])
    kernels = _join_groups(_kernels(weights.convolution, maps.dtype, scale), grid.heads)
    attended = _attend(maps, weights.position, weights.rate, grid, plain_shape(projections)[2])
    return attended + _convolve(maps, kernels, grid)


def local_attention(query: Tensor, key: Tensor, value: Tensor, position: Tensor | None, grid: Grid) -> Tensor:
    """The attention path, `(B, N, D, H', W')`; see `acmix.ops.local_attention`."""
    size = plain_shape(query)[2]
    maps = torch.cat((query * size**-0.5, key, value), 1)
    return _attend(_places_first(maps), position, None, grid, size).unflatten(1, (grid.heads, size))


def shift_conv(projections: Tensor, convolution: Convolution, grid: Grid) -> Tensor:
    """The convolution path, `(B, D * N, H', W')`; see `acmix.ops.shift_conv`."""
    kernels = _join_groups(_kernels(convolution, projections.dtype, None), grid.heads)
    return _convolve(_places_first(projections), kernels, grid)


def _places_first(projections: Tensor) -> Tensor:
    """`(B, 3 N, D, H, W)` to `(B, D * 3 N, H, W)`."""
    return projections.transpose(1, 2).flatten(1, 2)


@unrecorded
def _query_scale(like: Tensor, heads: int, size: int) -> Tensor:
    """D^-1/2 of the heads' queries and 1 of their keys and values, `(3 N,)`."""
    return torch.tensor([size**-0.5] * heads + [1.0] * 2 * heads, dtype=like.dtype, device=like.device)


def _kernels(convolution: Convolution, dtype: torch.dtype, scale: Tensor | None) -> Tensor:
    """Kernels `(C, 3 N, k, k)` of maps that are scaled, composed and with their rate in them."""
    dep, fc, rate = convolution
    (kernels,) = widen(dep)
    if fc is not None:
        channels, _, *cells = plain_shape(dep)
        kernels = (widen(fc)[0].t() @ kernels.flatten(2)).reshape(channels, -1, *cells)
    if rate is not None:
        kernels = kernels * rate.to(kernels.dtype)
    if scale is not None:
        kernels = kernels / scale[:, None, None].to(kernels.dtype)
    return kernels.to(dtype)


def _join_groups(kernels: Tensor, heads: int) -> Tensor:
    """Kernels of fewer, larger groups that compute the same, where this fills blocks: zeros cost less than small ones.

    Args:
        kernels: `(C, 3 N, k, k)`.
        heads: N.

    Returns:
        `(C, 3 N j, k, k)`, j groups in one.
    """
    channels, inputs, rows, _ = plain_shape(kernels)
    groups, joined = channels // heads, _BLOCK // math.gcd(_BLOCK, heads)
    if groups % joined:
        return kernels
    # A constant: LiteRT's interpreter does not know the iota that torch.eye becomes.
    own = unrecorded(torch.eye)(joined, dtype=kernels.dtype, device=kernels.device)[:, None, :, None]
    kernels = kernels.reshape(groups // joined, joined, heads, 1, inputs * rows * rows) * own
    return kernels.reshape(channels, joined * inputs, rows, rows)


def _convolve(maps: Tensor, kernels: Tensor, grid: Grid) -> Tensor:
    """The convolution path of `(B, D * 3 N, H, W)`, with joined kernels."""
    channels, inputs, rows, _ = plain_shape(kernels)
    groups = 3 * channels // inputs
    padding = grid.dilation * (rows // 2)
    return F.conv2d(maps, kernels, stride=grid.stride, padding=padding, dilation=grid.dilation, groups=groups)


def _attend(maps: Tensor, position: Tensor | None, rate: Tensor | None, grid: Grid, size: int) -> Tensor:
    """alpha times attention, `(B, N * D, H', W')`, of `(B, D * 3 N, H, W)` with queries times D^-1/2."""
    if not has_gathers():
        return unfolded.attend(maps, position, rate, grid, size)
    batch, _, height, width = maps.shape
    wide = torch.promote_types(maps.dtype, torch.float32)
    places = places_of_map(height, width, grid, wide, maps.device)
    # A cell is a row: (B, 3 N, H W, D).
    cells = maps.reshape(batch, size, 3 * grid.heads, height * width).permute(0, 2, 3, 1)
    query, key, value = cells[:, : grid.heads], cells[:, grid.heads : 2 * grid.heads], cells[:, 2 * grid.heads :]
    if position is not None:
        key = key - (places.locations @ position.to(wide).t()).to(key.dtype)

    def bring(cells: Tensor, places: Tensor, count: int) -> Tensor:
        return cells.index_select(2, places).reshape(batch, grid.heads, -1, count, size)

    key, value = (bring(cells, places.keys, key_count(grid) ** 2) for cells in (key, value))
    logits = bring(query, places.queries, TILE**2) @ key.transpose(3, 4)
    (logits,) = widen(logits)
    own = logits.reshape(batch, grid.heads, -1, TILE**2 * key_count(grid) ** 2)
    floor = own.index_select(3, own_places(grid, maps.device))[..., None] + _FLOOR
    logits = torch.maximum(logits + mask(grid, logits.dtype, maps.device), floor)
    attended = (logits.softmax(-1).to(value.dtype) @ value).reshape(batch, grid.heads, -1, size)
    attended = attended.index_select(2, places.outputs)
    if rate is not None:
        attended = attended * rate.to(attended.dtype)
    outputs = output_size(height, grid.stride), output_size(width, grid.stride)
    return attended.transpose(2, 3).reshape(batch, grid.heads * size, *outputs)
