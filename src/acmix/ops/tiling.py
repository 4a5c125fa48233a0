"""Maps cut into tiles of queries with the keys that their windows reach, and put together again.

Reflection costs no copies: a reflected window is the in-bounds window with integer weights m (how many offsets land on
a cell), so that softmax weights become m exp(logit), an additive mask log m (DESIGN.md, identity E2). A small map is
one tile with every cell as key.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from acmix.ops.contract import Grid
from acmix.ops.geometry import output_size, reflect, window_offsets

# Queries a tile and axis: the fastest of 5..16 on the CPU for maps of 28 to 112 cells; larger tiles copy fewer keys
# but multiply more of them by zero.
TILE = 7


class Axis(NamedTuple):
    """How one axis is cut: `tiles` of `queries` outputs each, one every `step` cells, seeing `keys` cells.

    Tile t sees the cells from t * step - reach on; a dense axis is one tile that sees every cell, and no other.
    """

    size: int
    stride: int
    tiles: int
    queries: int
    step: int
    keys: int
    reach: int
    dense: bool

    @property
    def blocks(self) -> int:
        """Steps that the keys of one tile touch."""
        return -(-self.keys // self.step)


def cut(size: int, grid: Grid) -> Axis:
    """How an axis of `size` cells is cut."""
    stride, reach = grid.stride, grid.dilation * (grid.window // 2)
    keys = stride * (TILE - 1) + 1 + 2 * reach
    outputs = output_size(size, stride)
    tiles = output_size(outputs, TILE)
    if outputs * size <= tiles * TILE * keys:
        # Tiles would multiply no less than every query with every key.
        return Axis(size, stride, 1, outputs, size, size, 0, dense=True)
    return Axis(size, stride, tiles, TILE, TILE * stride, keys, reach, dense=False)


def _pad(feature: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Zeros around the cells of a `(B, H, W, N, D)` map, or fewer cells where negative."""
    return F.pad(feature, (0, 0, 0, 0, *columns, *rows))


def tile_queries(query: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """`(B, N, D, H, W)` to `(ty * tx, B * N, queries, D)`."""
    batch, heads, head_size = query.shape[:3]
    query = query[..., :: rows.stride, :: columns.stride].permute(0, 3, 4, 1, 2)

    def margins(axis: Axis) -> tuple[int, int]:
        return 0, axis.tiles * axis.queries - output_size(axis.size, axis.stride)

    if not (rows.dense and columns.dense):
        query = _pad(query, margins(rows), margins(columns))
    query = query.unflatten(2, (columns.tiles, columns.queries)).unflatten(1, (rows.tiles, rows.queries))
    query = query.permute(1, 3, 0, 5, 2, 4, 6)
    query = query.reshape(rows.tiles * columns.tiles, batch * heads, rows.queries * columns.queries, head_size)
    # The fused kernels want D innermost; without, all logits are made in memory.
    return query.contiguous()


def _overlap(blocks: Tensor, dim: int, cells_dim: int, axis: Axis) -> Tensor:
    """Keys of every tile out of blocks of `step` cells: `blocks` of `dim` become `tiles`, `step` becomes `keys`."""
    pieces = []
    for first in range(axis.blocks):
        cells = min(axis.step, axis.keys - first * axis.step)
        pieces.append(blocks.narrow(dim, first, axis.tiles).narrow(cells_dim, 0, cells))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, cells_dim)


def tile_keys(key: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """`(B, N, D, H, W)` to `(ty * tx, B * N, keys, D)`; neighbouring tiles share the cells between them.

    Slices and concatenations, not `Tensor.unfold`: they export, vmap, and have a deterministic backward everywhere.
    """
    batch, heads, head_size = key.shape[:3]

    def margins(axis: Axis) -> tuple[int, int]:
        return axis.reach, axis.step * (axis.tiles + axis.blocks - 1) - axis.reach - axis.size

    key = key.permute(0, 3, 4, 1, 2)
    if not (rows.dense and columns.dense):
        key = _pad(key, margins(rows), margins(columns))
    key = key.unflatten(2, (columns.tiles + columns.blocks - 1, columns.step))
    key = key.unflatten(1, (rows.tiles + rows.blocks - 1, rows.step))
    key = _overlap(key, 1, 2, rows).permute(1, 3, 0, 5, 2, 4, 6)
    key = _overlap(key, 1, 5, columns)
    key = key.reshape(rows.tiles * columns.tiles, batch * heads, rows.keys * columns.keys, head_size)
    return key.contiguous()


def is_channels_last(feature: Tensor) -> bool:
    """Whether neighbours in memory of a `(B, N, D, H, W)` map are neighbours in D."""
    return feature.stride(2) == 1 != feature.stride(4)


def untile(tiles: Tensor, query: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """`(ty * tx, B * N, queries, D)` to `(B, N * D, H', W')`, in the memory order of `query`."""
    batch, heads, head_size, height, width = query.shape
    # The CPU's fused kernel writes, and wants its gradient, with the heads inside the queries; else it copies.
    tiles = tiles.transpose(1, 2)
    tiles = tiles.reshape(rows.tiles, columns.tiles, rows.queries, columns.queries, batch, heads, head_size)
    height, width = output_size(height, rows.stride), output_size(width, columns.stride)
    covered = rows.tiles * rows.queries, columns.tiles * columns.queries
    if is_channels_last(query):
        output = tiles.permute(4, 0, 2, 1, 3, 5, 6).reshape(batch, *covered, heads * head_size)
        return output[:, :height, :width].permute(0, 3, 1, 2)
    output = tiles.permute(4, 5, 6, 0, 2, 1, 3).reshape(batch, heads * head_size, *covered)
    return output[..., :height, :width]


def log_multiplicity(axis: Axis, grid: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    """log m(i, j) of every query i and key j of every tile, `(tiles, queries, keys)`; -inf outside the window."""
    tile = torch.arange(axis.tiles, device=device)[:, None] * axis.step
    queries = tile + torch.arange(axis.queries, device=device) * axis.stride
    # Queries past the end are dropped later; they repeat the last one so that none has an empty window (NaN).
    queries = queries.clamp(max=(output_size(axis.size, axis.stride) - 1) * axis.stride)
    keys = tile - axis.reach + torch.arange(axis.keys, device=device)
    cells = reflect(queries[..., None] + window_offsets(grid.window, grid.dilation, device), axis.size)
    return (cells[:, :, None, :] == keys[:, None, :, None]).sum(-1).to(dtype).log()
