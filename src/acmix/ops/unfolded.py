"""The attention path of one size of map without a gather, which ncnn does not have: tiles are unfolded.

Reflection is padding, so that keys of a tile are a patch of the padded map; tensors have at most four axes beside the
batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from acmix.ops.contract import Grid
from acmix.ops.geometry import output_size
from acmix.ops.places import TILE, key_count, mask, places_of_map
from acmix.ops.precision import widen
from acmix.ops.tracing import plain_shape


def attend(maps: Tensor, position: Tensor | None, rate: Tensor | None, grid: Grid, size: int) -> Tensor:
    """alpha times attention, `(B, N * D, H', W')`, of `(B, D * 3 N, H, W)` with queries times D^-1/2."""
    batch, _, height, width = plain_shape(maps)
    grouped = maps.reshape(batch, size, 3 * grid.heads, height * width)
    query, key, value = grouped.split(grid.heads, 2)
    if position is not None:
        wide = torch.promote_types(maps.dtype, torch.float32)
        locations = places_of_map(height, width, grid, wide, maps.device).locations
        key = key - (position.to(wide) @ locations.t()).to(key.dtype).reshape(1, size, 1, height * width)
    outputs = output_size(height, grid.stride), output_size(width, grid.stride)
    tiles = output_size(outputs[0], TILE), output_size(outputs[1], TILE)

    # (B, D, N, cells of a tile, tiles)
    def cut(maps: Tensor, cells: int, dilation: int, reach: int) -> Tensor:
        maps = maps.reshape(batch, size * grid.heads, height, width)
        for axis, count in enumerate(tiles, 2):
            last = (count - 1) * TILE * grid.stride + dilation * (cells - 1)
            maps = _reflect(maps, axis, reach, last - reach)
        patches = F.unfold(maps, cells, stride=TILE * grid.stride, dilation=dilation)
        return patches.reshape(batch, size, grid.heads, cells**2, tiles[0] * tiles[1])

    reach = grid.dilation * (grid.window // 2)
    query = cut(query, TILE, grid.stride, 0).permute(0, 2, 4, 3, 1)
    key = cut(key, key_count(grid), 1, reach).permute(0, 2, 4, 1, 3)
    value = cut(value, key_count(grid), 1, reach).permute(0, 2, 4, 3, 1)
    (logits,) = widen(query @ key)
    attended = (logits + mask(grid, logits.dtype, maps.device)).softmax(-1).to(value.dtype) @ value
    if rate is not None:
        attended = attended * rate.to(attended.dtype)
    attended = attended.permute(0, 1, 4, 3, 2).reshape(batch, grid.heads * size * TILE**2, *tiles)
    return F.pixel_shuffle(attended, TILE)[..., : outputs[0], : outputs[1]]


def _reflect(maps: Tensor, axis: int, before: int, last: int) -> Tensor:
    """The cells -before to last at least of an axis of `(B, C, H, W)`, reflected as often as needed."""
    size = plain_shape(maps)[axis]
    after = max(last + 1 - size, 0)
    while before > 0 or after > 0:
        # One reflection gives all cells but the edge, of one cell copies.
        most = size - 1 if size > 1 else before + after
        margins = min(before, most), min(after, most)
        padding = (*margins, 0, 0) if axis == 3 else (0, 0, *margins)
        maps = F.pad(maps, padding, mode="reflect" if size > 1 else "replicate")
        size, before, after = size + sum(margins), before - margins[0], after - margins[1]
    return maps
