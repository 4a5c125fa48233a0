"""Cells, tiles and windows as indices, for graphs of the operator; constants where sizes are plain numbers."""

from typing import NamedTuple

import torch
from torch import Tensor

from acmix.ops.contract import Grid
from acmix.ops.geometry import location, output_size, reflect
from acmix.ops.tracing import is_symbolic, unrecorded

# Queries a tile and axis. Larger tiles copy fewer keys but take the softmax of more cells outside of the windows.
TILE = 4


class Places(NamedTuple):
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


def places_of_map(height: int, width: int, grid: Grid, dtype: torch.dtype, device: torch.device) -> Places:
    """Constants, where sizes are plain numbers: CoreML and LiteRT lack operators that make them."""
    if type(height) is type(width) is int:
        return unrecorded(_make_places)(height, width, grid, dtype, device)
    return _make_places(height, width, grid, dtype, device)


def _make_places(height: int, width: int, grid: Grid, dtype: torch.dtype, device: torch.device) -> Places:
    rows, columns = _Axis(height, grid, device), _Axis(width, grid, device)

    def of(rows: Tensor, columns: Tensor, count: int) -> Tensor:
        return (rows.reshape(-1, 1, count, 1) * width + columns.reshape(1, -1, 1, count)).reshape(-1)

    row, column = (torch.arange(axis.outputs, device=device) for axis in (rows, columns))
    tile = (row // TILE)[:, None] * columns.tiles + column // TILE
    outputs = tile * TILE**2 + (row % TILE * TILE)[:, None] + column % TILE
    # CoreML divides integers to floating-point numbers, which then are no indices.
    return Places(
        queries=of(rows.queries, columns.queries, TILE).to(torch.int32),
        keys=of(rows.keys, columns.keys, key_count(grid)).to(torch.int32),
        outputs=outputs.reshape(-1).to(torch.int32),
        locations=_locations(height, width, dtype, device),
    )


def _locations(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    down, across = (location(size, dtype, device) for size in (height, width))
    down, across = torch.broadcast_tensors(down[:, None], across)
    return torch.stack((across.reshape(-1), down.reshape(-1)), 1)


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
        self.keys = reflect(first + (torch.arange(key_count(grid), device=device) - reach), last + 1)


def key_count(grid: Grid) -> int:
    """Cells an axis that the windows of a tile reach."""
    return grid.stride * (TILE - 1) + 1 + 2 * grid.dilation * (grid.window // 2)


@unrecorded
def mask(grid: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 for keys in a query's window, -inf for others, `(TILE^2, keys^2)`."""
    reach = grid.dilation * (grid.window // 2)
    queries = grid.stride * torch.arange(TILE) + reach
    offset = torch.arange(key_count(grid)) - queries[:, None]
    seen = (offset.abs() <= reach) & (offset % grid.dilation == 0)
    both = (seen[:, None, :, None] & seen[None, :, None, :]).reshape(TILE**2, -1)
    return torch.zeros(both.shape, dtype=dtype).masked_fill(~both, -torch.inf).to(device)


@unrecorded
def own_places(grid: Grid, device: torch.device) -> Tensor:
    """Place of every query's own cell in the logits of a tile, `(TILE^2,)`."""
    keys = key_count(grid)
    cells = grid.stride * torch.arange(TILE) + grid.dilation * (grid.window // 2)
    own = (cells[:, None] * keys + cells).reshape(-1)
    return (torch.arange(TILE**2) * keys**2 + own).to(device)
