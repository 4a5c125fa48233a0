"""What kernels are compiled for, besides dtypes: sizes of a call, cut into programs as a tile of the table says.

A kernel gets its plan whole, as a constant, and reads fields alone: triton tells plans apart by those, so that what
follows from others is a field, too. Plans are named tuples, which triton can write as JSON for who watches it compile.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton

from acmix.ops.geometry import output_size
from acmix.ops.triton import table


@dataclass(frozen=True)
class Shape:
    """Sizes of a call: N heads of D channels (`size`) on maps of height x width cells."""

    batch: int
    heads: int
    size: int
    height: int
    width: int
    window: int
    stride: int

    @property
    def output_height(self) -> int:
        """H', rows of the output."""
        return output_size(self.height, self.stride)

    @property
    def output_width(self) -> int:
        """W', columns of the output."""
        return output_size(self.width, self.stride)

    def scalars(self) -> dict[str, int | float]:
        """Arguments of every attention kernel that are neither tensors nor constants."""
        return {
            "height": self.height,
            "width": self.width,
            "output_height": self.output_height,
            "output_width": self.output_width,
            "step_y": 2 / max(self.height - 1, 1),
            "step_x": 2 / max(self.width - 1, 1),
        }


class Maps(NamedTuple):
    """Where channel d of map m of a cell lies: `cell * pixel + m * map + d * channel`; `number` maps."""

    number: int
    pixel: int
    map: int
    channel: int

    @classmethod
    def by_map(cls, number: int, size: int) -> "Maps":
        """Channel m * D + d, as in projections."""
        return cls(number, number * size, size, 1)

    @classmethod
    def by_channel(cls, number: int, size: int) -> "Maps":
        """Channel d * M + m, as in the output of the convolution path."""
        return cls(number, number * size, 1, number)


class AttentionPlan(NamedTuple):
    """Of an attention kernel, whose programs own a tile of queries, or keys, and walk over its halo of the others.

    Attributes:
        heads: Heads of a program.
        groups: Programs that share a tile's heads.
        size: D, channels of a head.
        padded: Channels of a head that are computed with.
        channels: C, channels of a cell.
        stride: Of the queries.
        radius: Cells of the window on either side of its middle.
        rows: Rows of the tile.
        columns: Columns of the tile.
        cells: Cells of the tile.
        halo_rows: Rows of the halo, no more than the map has.
        halo_columns: Columns of the halo, likewise.
        halo_width: Columns of the halo, padded to a power of two.
        chunk_rows: Rows of the halo that are multiplied at once.
        chunk_cells: Cells of such a chunk.
        repeated: Whether a window sees a cell by more than one reflection.
        precision: How products of float32 are made.
    """

    heads: int
    groups: int
    size: int
    padded: int
    channels: int
    stride: int
    radius: int
    rows: int
    columns: int
    cells: int
    halo_rows: int
    halo_columns: int
    halo_width: int
    chunk_rows: int
    chunk_cells: int
    repeated: bool
    precision: str


class ConvolutionPlan(NamedTuple):
    """Of a convolution kernel, whose programs own a tile of cells of the output and some channels of a head.

    Attributes:
        source: Maps of the source.
        output: Maps of the output.
        padded_maps: Maps of the output that are computed with.
        size: D, channels of a head.
        kernel: Taps along an axis.
        stride: Of the output's cells on the source.
        rows: Rows of the tile.
        columns: Columns of the tile.
        cells: Cells of the tile.
        channels: Channels of a program.
        groups: Programs that share a tile's channels.
        paired: Channels that share a product.
        pairs: Products of a program.
        chunk: Terms of the sum, taps and maps, that are multiplied at once.
        chunk_maps: Maps among them, of one tap.
        precision: How products of float32 are made.
    """

    source: Maps
    output: Maps
    padded_maps: int
    size: int
    kernel: int
    stride: int
    rows: int
    columns: int
    cells: int
    channels: int
    groups: int
    paired: int
    pairs: int
    chunk: int
    chunk_maps: int
    precision: str


def precision(dtype: torch.dtype) -> str:
    """How products of float32 are made: as PyTorch is set to make those of convolutions, or as good as exact."""
    # Triton refuses what a maker's GPUs do not have, whatever the dtype.
    if torch.version.hip is not None:
        return "ieee"
    if dtype != torch.float32:
        return "tf32"
    # pyrefly: ignore[missing-attribute]
    return "tf32" if torch.backends.cudnn.conv.fp32_precision == "tf32" else "tf32x3"


def plan_attention(
    shape: Shape, tile: table.AttentionTile, products: str, *, gathers_queries: bool = False
) -> AttentionPlan:
    """Plan of an attention kernel; `gathers_queries` for the one whose programs own keys, `products` a `precision`."""
    heads = math.gcd(shape.heads, tile.heads)
    if gathers_queries:
        sizes = (shape.output_height, shape.output_width)
        spans = [(length + shape.window - 2) // shape.stride + 1 for length in (tile.rows, tile.columns)]
    else:
        sizes = (shape.height, shape.width)
        spans = [(length - 1) * shape.stride + shape.window for length in (tile.rows, tile.columns)]
    rows, columns = (min(span, size) for span, size in zip(spans, sizes, strict=True))
    width = triton.next_power_of_2(columns)
    # A product sums over at least 16 cells; rows beyond the last are computed and dropped.
    chunk_rows = max(min(tile.cells // width, triton.next_power_of_2(rows)), 16 // width, 1)
    return AttentionPlan(
        heads=heads,
        groups=shape.heads // heads,
        size=shape.size,
        padded=table.padded(shape.size),
        channels=shape.heads * shape.size,
        stride=shape.stride,
        radius=shape.window // 2,
        rows=tile.rows,
        columns=tile.columns,
        cells=tile.rows * tile.columns,
        halo_rows=rows,
        halo_columns=columns,
        halo_width=width,
        chunk_rows=chunk_rows,
        chunk_cells=chunk_rows * width,
        repeated=min(shape.height, shape.width) <= shape.window // 2,
        precision=products,
    )


def attention_warps(plan: AttentionPlan, tile: table.AttentionTile) -> int:
    """Of a program with the plan's heads, which may be fewer than the tile's."""
    return max(1, tile.warps * plan.heads // tile.heads)


def tile_sides(cells: int, rows: int, width: int) -> tuple[int, int]:
    """Sides, powers of two, of tiles of so many cells: the fewest tiles that cover a map, of those the widest."""
    sides = [(cells >> shift, 1 << shift) for shift in reversed(range(cells.bit_length()))]
    return min(sides, key=lambda side: triton.cdiv(rows, side[0]) * triton.cdiv(width, side[1]))


def plan_convolution(
    layouts: tuple[Maps, Maps],
    size: int,
    kernel: int,
    stride: int,
    tile: table.ConvolutionTile,
    extent: tuple[int, int],
    products: str,
) -> ConvolutionPlan:
    """Plan of a convolution kernel from maps to maps, for rows of all images of the output together, and columns."""
    source, output = layouts
    rows, columns = tile_sides(tile.pixels, *extent)
    maps = triton.next_power_of_2(output.number)
    channels = min(max(1, tile.channels * tile.maps // max(maps, tile.maps)), triton.next_power_of_2(size))
    paired = min(tile.paired, channels)
    return ConvolutionPlan(
        source=source,
        output=output,
        # A product has at least 8 columns.
        padded_maps=max(8 // paired, maps),
        size=size,
        kernel=kernel,
        stride=stride,
        rows=rows,
        columns=columns,
        cells=rows * columns,
        channels=channels,
        groups=triton.cdiv(size, channels),
        paired=paired,
        pairs=channels // paired,
        chunk=tile.terms,
        chunk_maps=min(tile.terms, triton.next_power_of_2(source.number)),
        precision=products,
    )


def tile_counts(plan: AttentionPlan | ConvolutionPlan, height: int, width: int) -> tuple[int, int]:
    """Tiles that cover a map, along its height and its width."""
    return triton.cdiv(height, plan.rows), triton.cdiv(width, plan.columns)
