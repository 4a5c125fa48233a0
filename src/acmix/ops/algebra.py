"""Stage II in plain PyTorch operations, each of which has derivatives of every order, forward and reverse, and batches.

What kernels cannot differentiate is differentiated here (`derivatives`), and the portable backend is made of it.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from acmix.ops.composition import compose
from acmix.ops.contract import Convolution, Grid, Weights
from acmix.ops.geometry import position_map
from acmix.ops.precision import without_autocast
from acmix.ops.tiling import cut, is_channels_last, log_multiplicity, tile_keys, tile_queries, untile

# Of queries (T, B, n, D), keys and values (T, B, m, D) and what is added to the logits (T, 1, n, m): (T, B, n, D).
Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """softmax(D^-1/2 q k^T + mask) v, all logits in memory."""
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1) + mask
    return logits.softmax(-1) @ value


def attention_of_pairs(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The same, and what is not finite meets only what it is seen by: every product of a query and a key by itself."""
    seen = mask > -torch.inf

    def paired(maps: Tensor, axis: int) -> Tensor:
        return torch.where(seen[..., None], maps.unsqueeze(axis), 0)

    logits = (paired(query * query.shape[-1] ** -0.5, -2) * paired(key, -3)).sum(-1) + mask
    weights = torch.where(seen, logits.softmax(-1), 0)
    return (weights[..., None] * paired(value, -3)).sum(-2)


def attend(
    query: Tensor, key: Tensor, value: Tensor, position: Tensor | None, grid: Grid, attention: Attention = attention
) -> Tensor:
    """The attention path, `(B, N * D, H', W')`; position is W_p or None, `attention` computes that of every tile."""
    if position is not None:
        key = less_positions(key, position)
    rows = cut(query.shape[-2], grid)
    columns = cut(query.shape[-1], grid)
    # The CPU kernel of half precision takes a float32 mask, which keeps log 2 exact; other devices want one dtype.
    half_on_cpu = query.device.type == "cpu" and query.dtype in (torch.float16, torch.bfloat16)
    mask_dtype = torch.float32 if half_on_cpu else query.dtype
    mask_y = log_multiplicity(rows, grid, mask_dtype, query.device)
    mask_x = log_multiplicity(columns, grid, mask_dtype, query.device)
    mask = mask_y[:, None, :, None, :, None] + mask_x[None, :, None, :, None, :]
    mask = mask.reshape(rows.tiles * columns.tiles, 1, rows.queries * columns.queries, rows.keys * columns.keys)
    attended = attention(
        tile_queries(query, rows, columns), tile_keys(key, rows, columns), tile_keys(value, rows, columns), mask
    )
    return untile(attended, query, rows, columns)


def less_positions(key: Tensor, position: Tensor) -> Tensor:
    """Keys `(B, N, D, H, W)` less their positions W_p loc: what a logit has of pe_i no weight has (identity E1)."""
    return key - position_map(position, *key.shape[-2:]).to(key.dtype)


def convolve(projections: Tensor, convolution: Convolution, grid: Grid) -> Tensor:
    """The convolution path times its rate, which costs nothing on the weights."""
    with without_autocast(projections.device):
        kernel, mixing = compose(projections, grid.heads, convolution)
    weight = kernel.flatten(0, 1).to(projections.dtype)
    maps = projections
    if mixing is not None:
        maps = torch.einsum("pc,bcdyx->bpdyx", mixing.to(projections.dtype), projections)
    # To groups of one channel of every map; the memory order stays.
    if is_channels_last(projections):
        maps = maps.permute(0, 3, 4, 2, 1).flatten(3).permute(0, 3, 1, 2)
    else:
        maps = maps.transpose(1, 2).flatten(1, 2)
    stride, dilation = grid.stride, grid.dilation
    padding = dilation * (kernel.shape[-1] // 2)
    return F.conv2d(maps, weight, stride=stride, padding=padding, dilation=dilation, groups=projections.shape[2])


def add_paths(projections: Tensor, weights: Weights, grid: Grid, attention: Attention = attention) -> Tensor:
    """Both paths and their sum, `(B, N * D, H', W')`; see `acmix.ops.mix`."""
    query, key, value = projections.chunk(3, 1)
    attended = attend(query, key, value, weights.position, grid, attention)
    convolved = convolve(projections, weights.convolution, grid)
    return torch.addcmul(convolved, attended, weights.rate.to(attended.dtype))
