"""Stage II in plain PyTorch, fast on every device: halo tiles through `scaled_dot_product_attention`.

Along each axis a map is cut into tiles of queries with the keys their windows can reach. Reflection costs no copies:
a reflected window is the in-bounds window with integer weights m (how many offsets land on a cell), so that softmax
weights become m exp(logit), an additive mask log m (DESIGN.md, identity E2). A small map is one tile with every cell
as key.
"""

from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from acmix.ops.composition import compose
from acmix.ops.geometry import output_size, position_map, reflect, window_offsets
from acmix.ops.precision import without_autocast
from acmix.ops.tracing import is_exporting

# Queries a tile and axis: the fastest of 5..16 on the CPU for maps of 28 to 112 cells; larger tiles copy fewer keys
# but multiply more of them by zero.
TILE = 7


def why_not(features: Tensor | None, window: int, stride: int, dilation: int) -> str | None:  # noqa: ARG001
    """Plain PyTorch takes everything."""
    return None


class _Axis(NamedTuple):
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


def _is_symbolic(size: int) -> bool:
    """Whether one exported graph must serve every value of `size`, so that nothing may branch on it."""
    # Strict export traces sizes as plain integers.
    return is_exporting() and (torch.compiler.is_dynamo_compiling() or isinstance(size, torch.SymInt))


def _cut(size: int, window: int, stride: int, dilation: int) -> _Axis:
    reach = dilation * (window // 2)
    keys = stride * (TILE - 1) + 1 + 2 * reach
    outputs = output_size(size, stride)
    tiles = output_size(outputs, TILE)
    if _is_symbolic(size):
        # An exported axis of length 1 would stay 1: one tile more keeps their number above it for every size.
        tiles += 1
    elif outputs * size <= tiles * TILE * keys:
        # Tiles would multiply no less than every query with every key.
        return _Axis(size, stride, 1, outputs, size, size, 0, dense=True)
    return _Axis(size, stride, tiles, TILE, TILE * stride, keys, reach, dense=False)


def _pad(feature: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Zeros around the cells of a `(B, H, W, N, D)` map, or fewer cells where negative."""
    return F.pad(feature, (0, 0, 0, 0, *columns, *rows))


def _tile_queries(query: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """`(B, N, D, H, W)` to `(ty * tx, B * N, queries, D)`."""
    batch, heads, head_size = query.shape[:3]
    query = query[..., :: rows.stride, :: columns.stride].permute(0, 3, 4, 1, 2)

    def margins(axis: _Axis) -> tuple[int, int]:
        return 0, axis.tiles * axis.queries - output_size(axis.size, axis.stride)

    if not (rows.dense and columns.dense):
        query = _pad(query, margins(rows), margins(columns))
    query = query.unflatten(2, (columns.tiles, columns.queries)).unflatten(1, (rows.tiles, rows.queries))
    query = query.permute(1, 3, 0, 5, 2, 4, 6)
    query = query.reshape(rows.tiles * columns.tiles, batch * heads, rows.queries * columns.queries, head_size)
    # The fused kernels want D innermost; without, all logits are made in memory.
    return query.contiguous()


def _overlap(blocks: Tensor, dim: int, cells_dim: int, axis: _Axis) -> Tensor:
    """Keys of every tile out of blocks of `step` cells: `blocks` of `dim` become `tiles`, `step` becomes `keys`."""
    pieces = []
    for first in range(axis.blocks):
        cells = min(axis.step, axis.keys - first * axis.step)
        pieces.append(blocks.narrow(dim, first, axis.tiles).narrow(cells_dim, 0, cells))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, cells_dim)


def _tile_keys(key: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """`(B, N, D, H, W)` to `(ty * tx, B * N, keys, D)`; neighbouring tiles share the cells between them.

    Slices and concatenations, not `Tensor.unfold`: they export, vmap, and have a deterministic backward everywhere.
    """
    batch, heads, head_size = key.shape[:3]

    def margins(axis: _Axis) -> tuple[int, int]:
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


def _is_channels_last(feature: Tensor) -> bool:
    """Whether neighbours in memory of a `(B, N, D, H, W)` map are neighbours in D."""
    return feature.stride(2) == 1 != feature.stride(4)


def _untile(tiles: Tensor, query: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """`(ty * tx, B * N, queries, D)` to `(B, N * D, H', W')`, in the memory order of `query`."""
    batch, heads, head_size, height, width = query.shape
    # The CPU's fused kernel writes, and wants its gradient, with the heads inside the queries; else it copies.
    tiles = tiles.transpose(1, 2)
    tiles = tiles.reshape(rows.tiles, columns.tiles, rows.queries, columns.queries, batch, heads, head_size)
    height, width = output_size(height, rows.stride), output_size(width, columns.stride)
    covered = rows.tiles * rows.queries, columns.tiles * columns.queries
    if _is_channels_last(query):
        output = tiles.permute(4, 0, 2, 1, 3, 5, 6).reshape(batch, *covered, heads * head_size)
        return output[:, :height, :width].permute(0, 3, 1, 2)
    output = tiles.permute(4, 5, 6, 0, 2, 1, 3).reshape(batch, heads * head_size, *covered)
    return output[..., :height, :width]


def _log_multiplicity(axis: _Axis, window: int, dilation: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """log m(i, j) of every query i and key j of every tile, `(tiles, queries, keys)`; -inf outside the window."""
    tile = torch.arange(axis.tiles, device=device)[:, None] * axis.step
    queries = tile + torch.arange(axis.queries, device=device) * axis.stride
    # Queries past the end are dropped later; they repeat the last one so that none has an empty window (NaN).
    queries = queries.clamp(max=(output_size(axis.size, axis.stride) - 1) * axis.stride)
    keys = tile - axis.reach + torch.arange(axis.keys, device=device)
    cells = reflect(queries[..., None] + window_offsets(window, dilation, device), axis.size)
    return (cells[:, :, None, :] == keys[:, None, :, None]).sum(-1).to(dtype).log()


def _attend(query: Tensor, key: Tensor, value: Tensor, window: int, stride: int, dilation: int) -> Tensor:
    """The attention path, `(B, N * D, H', W')`."""
    rows = _cut(query.shape[-2], window, stride, dilation)
    columns = _cut(query.shape[-1], window, stride, dilation)
    # The CPU kernel of half precision takes a float32 mask, which keeps log 2 exact; other devices want one dtype.
    half_on_cpu = query.device.type == "cpu" and query.dtype in (torch.float16, torch.bfloat16)
    mask_dtype = torch.float32 if half_on_cpu else query.dtype
    mask_y = _log_multiplicity(rows, window, dilation, mask_dtype, query.device)
    mask_x = _log_multiplicity(columns, window, dilation, mask_dtype, query.device)
    mask = mask_y[:, None, :, None, :, None] + mask_x[None, :, None, :, None, :]
    mask = mask.reshape(rows.tiles * columns.tiles, 1, rows.queries * columns.queries, rows.keys * columns.keys)
    # PyTorch 2.11's fused kernel divides by the number of heads: of an empty batch, none here.
    empty = not _is_symbolic(query.shape[0]) and query.shape[0] == 0
    with sdpa_kernel(SDPBackend.MATH) if empty else nullcontext():
        attended = F.scaled_dot_product_attention(
            _tile_queries(query, rows, columns),
            _tile_keys(key, rows, columns),
            _tile_keys(value, rows, columns),
            attn_mask=mask,
            scale=query.shape[2] ** -0.5,
        )
    return _untile(attended, query, rows, columns)


def local_attention(query: Tensor, key: Tensor, value: Tensor, window: int, stride: int, dilation: int) -> Tensor:
    """Attention of every query over its reflected window; see `acmix.ops.local_attention`."""
    return _attend(query, key, value, window, stride, dilation).unflatten(1, query.shape[1:3])


def _convolve(
    projections: Tensor, fc_weight: Tensor | None, dep_weight: Tensor, rate: Tensor | None, stride: int, dilation: int
) -> Tensor:
    """The convolution path times its rate, which costs nothing on the weights."""
    with without_autocast(projections.device):
        kernel, mixing = compose(projections, fc_weight, dep_weight, rate)
    weight = kernel.flatten(0, 1).to(projections.dtype)
    maps = projections
    if mixing is not None:
        maps = torch.einsum("pc,bcdyx->bpdyx", mixing.to(projections.dtype), projections)
    # To groups of one channel of every map; the memory order stays.
    if _is_channels_last(projections):
        maps = maps.permute(0, 3, 4, 2, 1).flatten(3).permute(0, 3, 1, 2)
    else:
        maps = maps.transpose(1, 2).flatten(1, 2)
    padding = dilation * (kernel.shape[-1] // 2)
    return F.conv2d(maps, weight, stride=stride, padding=padding, dilation=dilation, groups=projections.shape[2])


def shift_conv(projections: Tensor, fc_weight: Tensor | None, dep_weight: Tensor, stride: int, dilation: int) -> Tensor:
    """The convolution path; see `acmix.ops.shift_conv`."""
    return _convolve(projections, fc_weight, dep_weight, None, stride, dilation)


def mix(
    projections: Tensor,
    position_weight: Tensor,
    fc_weight: Tensor | None,
    dep_weight: Tensor,
    rate_attention: Tensor,
    rate_convolution: Tensor | None,
    window: int,
    stride: int,
    dilation: int,
) -> Tensor:
    """Both paths and their sum; see `acmix.ops.mix`."""
    query, key, value = projections.chunk(3, 1)
    position = position_map(position_weight, *key.shape[-2:]).to(key.dtype)
    attention = _attend(query, key - position, value, window, stride, dilation)
    convolution = _convolve(projections, fc_weight, dep_weight, rate_convolution, stride, dilation)
    return torch.addcmul(convolution, attention, rate_attention.to(attention.dtype))
