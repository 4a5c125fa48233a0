"""Stage II in plain PyTorch, fast on every device: halo tiles through `scaled_dot_product_attention`.

Along each axis a map is cut into tiles of queries with the keys their windows can reach. Reflection costs no copies:
a reflected window is the in-bounds window with integer weights m (how many offsets land on a cell), so that softmax
weights become m exp(logit), an additive mask log m (DESIGN.md, identity E2). A small map is one tile with every cell
as key.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from acmix.ops.geometry import composes_kernels, output_size, position_map, reflect, window_offsets

# Queries a tile and axis: the fastest of 5..16 on the CPU for maps of 28 to 112 cells; larger tiles copy fewer keys
# but multiply more of them by zero.
TILE = 7


def why_not(query: Tensor | None, window: int, stride: int, dilation: int) -> str | None:  # noqa: ARG001
    """Plain PyTorch takes everything."""
    return None


class _Axis(NamedTuple):
    """How one axis is cut: `tiles` of `queries` outputs each, seeing `keys` cells from `start` on."""

    size: int
    stride: int
    tiles: int
    queries: int
    keys: int
    start: int

    @property
    def step(self) -> int:
        """Cells from one tile to the next."""
        return self.queries * self.stride


def _cut(size: int, window: int, stride: int, dilation: int) -> _Axis:
    reach = dilation * (window // 2)
    keys = stride * (TILE - 1) + 1 + 2 * reach
    outputs = output_size(size, stride)
    # An exported graph serves every size, so it must not branch on one.
    if not torch.compiler.is_exporting() and size <= keys + 1:
        return _Axis(size, stride, 1, outputs, size, 0)
    return _Axis(size, stride, output_size(outputs, TILE), TILE, keys, -reach)


def _tile_queries(query: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """`(B, N, D, H, W)` to `(ty * tx, B * N, queries, D)`."""
    query = query[..., :: rows.stride, :: columns.stride]
    batch, heads, head_size, height, width = query.shape
    query = query.permute(0, 3, 4, 1, 2)
    query = F.pad(
        query, (0, 0, 0, 0, 0, columns.tiles * columns.queries - width, 0, rows.tiles * rows.queries - height)
    )
    query = query.reshape(batch, rows.tiles, rows.queries, columns.tiles, columns.queries, heads, head_size)
    query = query.permute(1, 3, 0, 5, 2, 4, 6)
    return query.reshape(rows.tiles * columns.tiles, batch * heads, rows.queries * columns.queries, head_size)


def _tile_keys(key: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """`(B, N, D, H, W)` to `(ty * tx, B * N, keys, D)`; neighbouring tiles share the cells between them."""
    batch, heads, head_size = key.shape[:3]

    def margins(axis: _Axis) -> tuple[int, int]:
        covered = axis.step * (axis.tiles - 1) + axis.keys
        return -axis.start, covered + axis.start - axis.size

    key = key.permute(0, 3, 4, 1, 2)
    key = F.pad(key, (0, 0, 0, 0, *margins(columns), *margins(rows)))
    key = key.unfold(1, rows.keys, rows.step).unfold(2, columns.keys, columns.step)
    key = key.permute(1, 2, 0, 3, 5, 6, 4)
    return key.reshape(rows.tiles * columns.tiles, batch * heads, rows.keys * columns.keys, head_size)


def _untile(tiles: Tensor, query: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """`(ty * tx, B * N, queries, D)` to `(B, N, D, H', W')`, in the memory order of `query`."""
    batch, heads, head_size, height, width = query.shape
    tiles = tiles.reshape(rows.tiles, columns.tiles, batch, heads, rows.queries, columns.queries, head_size)
    height, width = output_size(height, rows.stride), output_size(width, columns.stride)
    if query.stride(2) == 1 and head_size > 1:
        output = tiles.permute(2, 0, 4, 1, 5, 3, 6)
        output = output.reshape(batch, rows.tiles * rows.queries, columns.tiles * columns.queries, heads, head_size)
        return output[:, :height, :width].permute(0, 3, 4, 1, 2)
    output = tiles.permute(2, 3, 6, 0, 4, 1, 5)
    output = output.reshape(batch, heads, head_size, rows.tiles * rows.queries, columns.tiles * columns.queries)
    return output[..., :height, :width]


def _log_multiplicity(axis: _Axis, window: int, dilation: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """log m(i, j) of every query i and key j of every tile, `(tiles, queries, keys)`; -inf outside the window."""
    tile = torch.arange(axis.tiles, device=device)[:, None] * axis.step
    queries = tile + torch.arange(axis.queries, device=device) * axis.stride
    # Queries past the end are dropped later; they repeat the last one so that none has an empty window (NaN).
    queries = queries.clamp(max=(output_size(axis.size, axis.stride) - 1) * axis.stride)
    keys = tile + axis.start + torch.arange(axis.keys, device=device)
    cells = reflect(queries[..., None] + window_offsets(window, dilation, device), axis.size)
    return (cells[:, :, None, :] == keys[:, None, :, None]).sum(-1).to(dtype).log()


def local_attention(query: Tensor, key: Tensor, value: Tensor, window: int, stride: int, dilation: int) -> Tensor:
    """Attention of every query over its reflected window; see `acmix.ops.local_attention`."""
    rows = _cut(query.shape[-2], window, stride, dilation)
    columns = _cut(query.shape[-1], window, stride, dilation)
    # The CPU kernel of half precision takes a float32 mask, which keeps log 2 exact; other devices want one dtype.
    half_on_cpu = query.device.type == "cpu" and query.dtype in (torch.float16, torch.bfloat16)
    mask_dtype = torch.float32 if half_on_cpu else query.dtype
    mask_y = _log_multiplicity(rows, window, dilation, mask_dtype, query.device)
    mask_x = _log_multiplicity(columns, window, dilation, mask_dtype, query.device)
    mask = mask_y[:, None, :, None, :, None] + mask_x[None, :, None, :, None, :]
    mask = mask.reshape(rows.tiles * columns.tiles, 1, rows.queries * columns.queries, rows.keys * columns.keys)
    attended = F.scaled_dot_product_attention(
        _tile_queries(query, rows, columns),
        _tile_keys(key, rows, columns),
        _tile_keys(value, rows, columns),
        attn_mask=mask,
        scale=query.shape[2] ** -0.5,
    )
    return _untile(attended, query, rows, columns)


def _compose(fc_weight: Tensor, dep_weight: Tensor, head_size: int) -> Tensor:
    """One grouped kernel out of fc and dep_conv, `(D * N, 3 N, k, k)` (DESIGN.md, identity E3)."""
    dep = dep_weight.unflatten(0, (head_size, -1))
    return torch.einsum("dmpuv,pc->dmcuv", dep, fc_weight).flatten(0, 1)


def _convolve(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    fc_weight: Tensor,
    dep_weight: Tensor,
    rate: Tensor | None,
    stride: int,
    dilation: int,
) -> Tensor:
    """The convolution path times its rate, which costs nothing on the weights."""
    heads, head_size = query.shape[1:3]
    positions, size = dep_weight.shape[1], dep_weight.shape[-1]
    with torch.autocast(query.device.type, enabled=False):
        dtype = torch.promote_types(dep_weight.dtype, torch.float32)
        fc, dep = fc_weight.to(dtype), dep_weight.to(dtype)
        if rate is not None:
            dep = rate.to(dtype) * dep
        compose = composes_kernels(heads, positions, size)
        weight = (_compose(fc, dep, head_size) if compose else dep).to(query.dtype)
        fc = fc.to(query.dtype)
    z = torch.cat((query, key, value), 1)
    if not compose:
        z = torch.einsum("pc,bcdyx->bpdyx", fc, z)
    z = z.transpose(1, 2).flatten(1, 2)
    padding = dilation * (size // 2)
    return F.conv2d(z, weight, stride=stride, padding=padding, dilation=dilation, groups=head_size)


def shift_conv(
    query: Tensor, key: Tensor, value: Tensor, fc_weight: Tensor, dep_weight: Tensor, stride: int, dilation: int
) -> Tensor:
    """The convolution path; see `acmix.ops.shift_conv`."""
    return _convolve(query, key, value, fc_weight, dep_weight, None, stride, dilation)


def mix(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    position_weight: Tensor,
    fc_weight: Tensor,
    dep_weight: Tensor,
    rate_attention: Tensor,
    rate_convolution: Tensor,
    window: int,
    stride: int,
    dilation: int,
) -> Tensor:
    """Both paths and their sum; see `acmix.ops.mix`."""
    position = position_map(position_weight, *key.shape[-2:]).to(key.dtype)
    attention = local_attention(query, key - position, value, window, stride, dilation).flatten(1, 2)
    convolution = _convolve(query, key, value, fc_weight, dep_weight, rate_convolution, stride, dilation)
    return torch.addcmul(convolution, attention, rate_attention.to(attention.dtype))
