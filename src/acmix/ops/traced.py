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

from acmix.ops.contract import Convolution, Grid, Projection, Weights
from acmix.ops.geometry import location, output_size, reflect
from acmix.ops.precision import widen
from acmix.ops.tracing import is_symbolic, plain_shape, unrecorded

# Queries a tile and axis. Larger tiles copy fewer keys but take the softmax of more cells outside of the windows.
TILE = 4
# Logits are raised to this much below the one of their query's own cell: e^-60 is nothing in float32, but not yet a
# number of the slow, denormal kind, through which ONNX Runtime's softmax makes 0 of -inf.
_FLOOR = -60.0
# Channels that runtimes on CPUs compute at once.
_BLOCK = 16


def project_and_mix(x: Tensor, projection: Projection, weights: Weights, grid: Grid) -> Tensor:
    """All three stages; see `acmix.ops.project_and_mix`."""
    weight, bias = projection
    maps, size = 3 * grid.heads, plain_shape(weights.position)[0]

    # Scaled queries, and all maps of one place in the heads together, as the groups of the convolution want them.
    def ordered(parameter: Tensor) -> Tensor:
        scaled = parameter.reshape(maps, size, -1) * _query_scale(parameter, grid.heads, size)[..., None, None]
        return scaled.transpose(0, 1)

    weight = ordered(weight).reshape(maps * size, -1, 1, 1)
    bias = None if bias is None else ordered(bias).reshape(maps * size)
    return _mix(F.conv2d(x, weight, bias), weights, grid)


def mix(projections: Tensor, weights: Weights, grid: Grid) -> Tensor:
    """Stages II and III; see `acmix.ops.mix`."""
    scale = _query_scale(projections, grid.heads, plain_shape(projections)[2])
    return _mix(_places_first(projections * scale[:, None, None, None]), weights, grid)


def local_attention(query: Tensor, key: Tensor, value: Tensor, position: Tensor | None, grid: Grid) -> Tensor:
    """The attention path, `(B, N, D, H', W')`; see `acmix.ops.local_attention`."""
    size = plain_shape(query)[2]
    maps = torch.cat((query * size**-0.5, key, value), 1)
    return _attend(_places_first(maps), position, None, grid, size).unflatten(1, (grid.heads, size))


def shift_conv(projections: Tensor, convolution: Convolution, grid: Grid) -> Tensor:
    """The convolution path, `(B, D * N, H', W')`; see `acmix.ops.shift_conv`."""
    return _convolve(_places_first(projections), _kernels(convolution, projections.dtype, None), grid)


def _places_first(projections: Tensor) -> Tensor:
    """`(B, 3 N, D, H, W)` to `(B, D * 3 N, H, W)`."""
    return projections.transpose(1, 2).flatten(1, 2)


@unrecorded
def _query_scale(like: Tensor, heads: int, size: int) -> Tensor:
    """D^-1/2 of the heads' queries and 1 of their keys and values, `(3 N,)`."""
    return torch.tensor([size**-0.5] * heads + [1.0] * 2 * heads, dtype=like.dtype, device=like.device)


def _mix(maps: Tensor, weights: Weights, grid: Grid) -> Tensor:
    """Both paths and their sum, of `(B, D * 3 N, H, W)` with queries times D^-1/2."""
    size = plain_shape(weights.position)[0]
    kernels = _kernels(weights.convolution, maps.dtype, _query_scale(maps, grid.heads, size))
    return _attend(maps, weights.position, weights.rate, grid, size) + _convolve(maps, kernels, grid)


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


def _convolve(maps: Tensor, kernels: Tensor, grid: Grid) -> Tensor:
    """The convolution path of `(B, D * 3 N, H, W)`.

    Groups are joined to larger ones that compute the same, where this fills blocks: zeros cost less than small groups.
    """
    channels, inputs, rows, _ = plain_shape(kernels)
    groups = channels // grid.heads
    joined = _BLOCK // math.gcd(_BLOCK, grid.heads)
    if groups % joined == 0:
        # A constant: LiteRT's interpreter does not know the iota that torch.eye becomes.
        own = unrecorded(torch.eye)(joined, dtype=kernels.dtype, device=kernels.device)[:, None, :, None]
        kernels = kernels.reshape(groups // joined, joined, grid.heads, 1, inputs * rows * rows) * own
        groups = groups // joined
        kernels = kernels.reshape(channels, joined * inputs, rows, rows)
    padding = grid.dilation * (rows // 2)
    return F.conv2d(maps, kernels, stride=grid.stride, padding=padding, dilation=grid.dilation, groups=groups)


def _attend(maps: Tensor, position: Tensor | None, rate: Tensor | None, grid: Grid, size: int) -> Tensor:
    """alpha times attention, `(B, N * D, H', W')`, of `(B, D * 3 N, H, W)` with queries times D^-1/2."""
    batch, _, height, width = maps.shape
    wide = torch.promote_types(maps.dtype, torch.float32)
    places = _places_of_map(height, width, grid, wide, maps.device)
    # A cell is a row: (B, 3 N, H W, D).
    cells = maps.reshape(batch, size, 3 * grid.heads, height * width).permute(0, 2, 3, 1)
    query, key, value = cells[:, : grid.heads], cells[:, grid.heads : 2 * grid.heads], cells[:, 2 * grid.heads :]
    if position is not None:
        key = key - (places.locations @ position.to(wide).t()).to(key.dtype)

    def bring(cells: Tensor, places: Tensor, count: int) -> Tensor:
        return cells.index_select(2, places).reshape(batch, grid.heads, -1, count, size)

    key, value = (bring(cells, places.keys, _key_count(grid) ** 2) for cells in (key, value))
    logits = bring(query, places.queries, TILE**2) @ key.transpose(3, 4)
    (logits,) = widen(logits)
    own = logits.reshape(batch, grid.heads, -1, TILE**2 * _key_count(grid) ** 2)
    floor = own.index_select(3, _own_places(grid, maps.device))[..., None] + _FLOOR
    logits = torch.maximum(logits + _mask(grid, logits.dtype, maps.device), floor)
    attended = (logits.softmax(-1).to(value.dtype) @ value).reshape(batch, grid.heads, -1, size)
    attended = attended.index_select(2, places.outputs)
    if rate is not None:
        attended = attended * rate.to(attended.dtype)
    outputs = output_size(height, grid.stride), output_size(width, grid.stride)
    return attended.transpose(2, 3).reshape(batch, grid.heads * size, *outputs)


class _Places(NamedTuple):
    """Places in the flattened map, tile by tile.

    Attributes:
        queries: Of every query, those beyond the map repeat its last cells, `(tiles * TILE^2,)`.
        keys: Of every key, reflected into the map, `(tiles * keys^2,)`.
        outputs: Of every output among the queries of all tiles, `(H' W',)`.
        locations: loc of every cell, `(H W, 2)`.
    """

    queries: Tensor
    keys: Tensor
    outputs: Tensor
    locations: Tensor


def _places_of_map(height: int, width: int, grid: Grid, dtype: torch.dtype, device: torch.device) -> _Places:
    """Constants, where sizes are plain numbers: CoreML and LiteRT lack operators that make them."""
    if type(height) is type(width) is int:
        return unrecorded(_make_places)(height, width, grid, dtype, device)
    return _make_places(height, width, grid, dtype, device)


def _make_places(height: int, width: int, grid: Grid, dtype: torch.dtype, device: torch.device) -> _Places:
    rows, columns = _Axis(height, grid, device), _Axis(width, grid, device)

    def of(rows: Tensor, columns: Tensor, count: int) -> Tensor:
        return (rows.reshape(-1, 1, count, 1) * width + columns.reshape(1, -1, 1, count)).reshape(-1)

    row, column = (torch.arange(axis.outputs, device=device) for axis in (rows, columns))
    tile = (row // TILE)[:, None] * columns.tiles + column // TILE
    outputs = tile * TILE**2 + (row % TILE * TILE)[:, None] + column % TILE
    down, across = (location(size, dtype, device) for size in (height, width))
    down, across = torch.broadcast_tensors(down[:, None], across)
    return _Places(
        of(rows.queries, columns.queries, TILE),
        of(rows.keys, columns.keys, _key_count(grid)),
        outputs.reshape(-1),
        torch.stack((across.reshape(-1), down.reshape(-1)), 1),
    )


class _Axis:
    """Indices of one axis of the map, which has `size` cells.

    Attributes:
        outputs: H' or W'.
        tiles: Of queries.
        queries: Cell of every query, `(tiles, TILE)`; those beyond the map repeat its last cell.
        keys: Cell of every key, reflected into the map, `(tiles, key count)`.
    """

    def __init__(self, size: int, grid: Grid, device: torch.device) -> None:
        reach = grid.dilation * (grid.window // 2)
        self.outputs = output_size(size, grid.stride)
        self.tiles = output_size(self.outputs, TILE)
        if is_symbolic(size):
            # An exported axis of length 1 would stay 1: one tile more keeps their number above it for every size.
            self.tiles += 1
        first = torch.arange(self.tiles, device=device)[:, None] * (TILE * grid.stride)
        # A tensor, since PyTorch's ONNX exporter takes no symbol for a divisor.
        last = torch.arange(size, device=device)[-1:]
        self.queries = (first + grid.stride * torch.arange(TILE, device=device)).clamp(max=last)
        self.keys = reflect(first + (torch.arange(_key_count(grid), device=device) - reach), last + 1)


def _key_count(grid: Grid) -> int:
    return grid.stride * (TILE - 1) + 1 + 2 * grid.dilation * (grid.window // 2)


@unrecorded
def _mask(grid: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 for keys in a query's window, -inf for others, `(TILE^2, keys^2)`."""
    reach = grid.dilation * (grid.window // 2)
    queries = grid.stride * torch.arange(TILE) + reach
    offset = torch.arange(_key_count(grid)) - queries[:, None]
    seen = (offset.abs() <= reach) & (offset % grid.dilation == 0)
    both = (seen[:, None, :, None] & seen[None, :, None, :]).reshape(TILE**2, -1)
    return torch.zeros(both.shape, dtype=dtype).masked_fill(~both, -torch.inf).to(device)


@unrecorded
def _own_places(grid: Grid, device: torch.device) -> Tensor:
    """Place of every query's own cell in the logits of a tile, `(TILE^2,)`."""
    keys = _key_count(grid)
    cells = grid.stride * torch.arange(TILE) + grid.dilation * (grid.window // 2)
    own = (cells[:, None] * keys + cells).reshape(-1)
    return (torch.arange(TILE**2) * keys**2 + own).to(device)
