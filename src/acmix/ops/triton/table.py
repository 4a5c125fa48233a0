"""Sizes that the kernels are compiled for: a static table, because tuning at run time changes bits and breaks graphs.

`benchmarks/triton_table.py --tiles` finds those that issue the fewest instructions and spill hardly any registers.
Entries may be replaced before the first call, to try others on a device.
"""

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class AttentionTile:
    """How a program of an attention kernel cuts its work.

    Attributes:
        cells: Cells of the halo, keys or queries, that are multiplied at once: a power of two, at least 16.
        rows: Rows of the tile that a program owns: queries, or keys in the gradient of the keys.
        columns: Columns of that tile; rows * columns is at least 16, what tensor cores take.
        heads: Heads a program, at most.
        warps: Warps a program of so many heads, no more than it owns times 16 cells: more share what each must then
            compute again, and Triton 3.6 computed wrong gradients with them on an H200.
    """

    cells: int
    rows: int = 2
    columns: int = 8
    heads: int = 1
    warps: int = 1


@dataclass(frozen=True)
class ConvolutionTile:
    """How a program of a convolution kernel cuts its work.

    Attributes:
        pixels: Cells of the output.
        channels: Channels of a head, next to each other in memory: 32 bytes, what a GPU reads at least, where they fit.
        maps: Maps of the output up to which so many channels fit; twice as many maps take half the channels.
        terms: Terms of the sum, taps and maps, that are multiplied at once.
        paired: Channels that share a product.
        warps: Warps that share the program.
    """

    pixels: int
    channels: int
    maps: int
    terms: int
    paired: int = 1
    warps: int = 4


_Tiles = dict[tuple[str, int, int, int], AttentionTile]


def _tiles(kernel: str, width: int, *by_size: tuple[AttentionTile, AttentionTile]) -> _Tiles:
    """Entries of a kernel for heads of up to 16, 32, 64 and 128 channels, each for strides 1 and 2."""
    return {
        (kernel, 16 << index, stride, width): tile
        for index, tiles in enumerate(by_size)
        for stride, tile in zip((1, 2), tiles, strict=True)
    }


def _same(*tiles: AttentionTile) -> tuple[tuple[AttentionTile, AttentionTile], ...]:
    return tuple((tile, tile) for tile in tiles)


_SQUARE = AttentionTile(32, 4, 4, heads=2)
_WIDE = AttentionTile(32, heads=4, warps=4)
# (kernel, channels of a head up to, stride, bytes of an element). Of two bytes the fastest on an H200, spilling or not:
# bfloat16, 128 images (benchmarks/results/tiles-h200.json). Heads of 16 and 128 channels were not timed at stride 2.
ATTENTION: _Tiles = {
    **_tiles(
        *("forward", 2),
        (AttentionTile(32, 4, 8), AttentionTile(32, 4, 4)),
        (AttentionTile(32, 4, 8, heads=2, warps=2), AttentionTile(32, 4, 4)),
        (AttentionTile(32), _SQUARE),
        (AttentionTile(16, 4, 8), AttentionTile(16)),
    ),
    **_tiles(
        *("query", 2),
        (AttentionTile(128, heads=2), _SQUARE),
        (AttentionTile(128), _SQUARE),
        (AttentionTile(32, 4, 8, heads=4, warps=4), AttentionTile(16)),
        (AttentionTile(16, 4, 8, heads=4, warps=4), AttentionTile(16)),
    ),
    **_tiles(
        *("key", 2),
        (AttentionTile(32, 4, 8, heads=2), AttentionTile(32, heads=4, warps=4)),
        (AttentionTile(32), AttentionTile(32, heads=4, warps=4)),
        *_same(AttentionTile(16), AttentionTile(16)),
    ),
    # More warps than tiles of 16 cells, which keeps 128 numbers of four bytes in registers.
    **_tiles("forward", 4, *_same(_WIDE, _WIDE, _WIDE, AttentionTile(16, heads=2, warps=4))),
    **_tiles(
        *("query", 4),
        *_same(_WIDE, _WIDE, AttentionTile(32, heads=2, warps=4), AttentionTile(16, heads=1, warps=4)),
    ),
    **_tiles(
        *("key", 4),
        *_same(_WIDE, _WIDE, AttentionTile(16, heads=2, warps=2), AttentionTile(16, heads=2, warps=4)),
    ),
}
_DATA = ConvolutionTile(pixels=64, channels=8, maps=16, terms=16)
# (kernel, stride, bytes of an element)
CONVOLUTION: dict[tuple[str, int, int], ConvolutionTile] = {
    ("data", 1, 2): replace(_DATA, pixels=32),
    ("data", 2, 2): _DATA,
    **{("data", stride, 4): replace(_DATA, channels=4) for stride in (1, 2)},
    **{
        (kernel, stride, width): tile
        for stride in (1, 2)
        for kernel, width, tile in (
            ("convolve", 2, ConvolutionTile(pixels=64, channels=16, maps=8, terms=16, paired=2)),
            ("convolve", 4, ConvolutionTile(pixels=64, channels=8, maps=8, terms=16)),
            ("weight", 2, ConvolutionTile(pixels=16, channels=8, maps=4, terms=128, paired=2)),
            ("weight", 4, ConvolutionTile(pixels=16, channels=4, maps=8, terms=128)),
        )
    },
}


def padded(size: int) -> int:
    """Channels of a head that the attention kernels compute with: a power of two, at least 16."""
    return max(16, 1 << (size - 1).bit_length())


def attention(kernel: str, size: int, stride: int, dtype: torch.dtype) -> AttentionTile:
    """Tile of "forward", "query" or "key" (gradients) for heads of `size` channels."""
    return ATTENTION[kernel, padded(size), stride, dtype.itemsize]


def convolution(kernel: str, stride: int, dtype: torch.dtype) -> ConvolutionTile:
    """Tile of "convolve", "data" (the same, transposed) or "weight" (gradients)."""
    return CONVOLUTION[kernel, stride, dtype.itemsize]
