"""What the attention kernels share: the queries or keys of a program, their windows, their channel vectors.

What lies in memory is `(heads * cells,)`, entry head * cells + cell. PLAN is the kernel's `plans.AttentionPlan`.
Its fields are plain numbers to Triton 3.6, of which `tl.zeros` takes no shapes, but `tl.full` does.
"""

from typing import NamedTuple

import triton
import triton.language as tl

# Numbers that kernels are not compiled anew for, as Triton would do for 1 and multiples of 16: it gains nothing here.
NUMBERS = (
    *("height", "width", "output_height", "output_width", "rows", "tiles", "splits"),
    *("x_multiplier", "x_shift", "y_multiplier", "y_shift"),
)
# Logit of a key outside the window along an axis: below all others up to 5e37, but finite, also twice and in base 2, so
# that a chunk without any key in the window makes no NaN.
NEGATIVE = tl.constexpr(-1.0e38)
# Base-2 logits from which on different numbers differ by 16 at least.
HUGE = tl.constexpr(2.0**28)
LN_2 = tl.constexpr(0.6931471805599453)
LN_3 = tl.constexpr(1.0986122886681098)


class Sizes(NamedTuple):
    """Of a map and of the output, and from row to row and column to column of the map in units of positions."""

    height: tl.tensor
    width: tl.tensor
    output_height: tl.tensor
    output_width: tl.tensor
    step_y: tl.tensor
    step_x: tl.tensor


class Tile(NamedTuple):
    """Of a program: its image, first row and column on the map, and first head."""

    image: tl.tensor
    y: tl.tensor
    x: tl.tensor
    head: tl.tensor


class Cells(NamedTuple):
    """Rows and columns, clamped to the map, and which lie on it."""

    y: tl.tensor
    x: tl.tensor
    on_map: tl.tensor


class Keys(NamedTuple):
    """Of an axis: the first that is needed, and whether any is reflected."""

    first: tl.tensor
    reflected: tl.tensor


@triton.jit
def quotient(number, multiplier, shift):
    """A number of 0 to 2^31 - 1 divided by what `launch.reciprocal` was given, rounded down; divisions take longer."""
    return (tl.umulhi(2 * tl.cast(number, tl.uint32), tl.cast(multiplier, tl.uint32)) >> shift).to(tl.int32)


@triton.jit
def tile_of_program(height, width, reciprocals, PLAN: tl.constexpr):
    """This program's tile of a map; programs of one tile are neighbours.

    `reciprocals` are multiplier and shift for tiles along x, then along y.
    """
    program = tl.program_id(0)
    tile = program // PLAN.groups
    row = quotient(tile, reciprocals[0], reciprocals[1])
    image = quotient(row, reciprocals[2], reciprocals[3])
    first_x = (tile - row * ((width + PLAN.columns - 1) // PLAN.columns)) * PLAN.columns
    first_y = (row - image * ((height + PLAN.rows - 1) // PLAN.rows)) * PLAN.rows
    return Tile(image.to(tl.int64), first_y, first_x, (program % PLAN.groups) * PLAN.heads)


@triton.jit
def clamped_cells(tile, cell, height, width, PLAN: tl.constexpr):
    """The `Cells` of a tile that are numbered `cell`."""
    y = tile.y + cell // PLAN.columns
    x = tile.x + cell % PLAN.columns
    return Cells(tl.minimum(y, height - 1), tl.minimum(x, width - 1), (y < height) & (x < width))


@triton.jit
def cells_of_tile(tile, height, width, PLAN: tl.constexpr):
    """The `Cells` of a tile, `(cells,)`."""
    return clamped_cells(tile, tl.arange(0, PLAN.cells), height, width, PLAN)


@triton.jit
def entries_of_tile(tile, height, width, PLAN: tl.constexpr):
    """Heads and `Cells` of a tile's entries, `(heads * cells,)`."""
    entry = tl.arange(0, PLAN.heads * PLAN.cells)
    head = tile.head + entry // PLAN.cells
    return head, clamped_cells(tile, entry % PLAN.cells, height, width, PLAN)


@triton.jit
def keys_of_axis(first, size, QUERIES: tl.constexpr, KEYS: tl.constexpr, PLAN: tl.constexpr):
    """The KEYS that windows of QUERIES from cell `first` on need, along an axis of the map.

    They lie within the map, so that none needs a mask.
    """
    SPAN: tl.constexpr = (QUERIES - 1) * PLAN.stride + 2 * PLAN.radius + 1
    key = tl.maximum(tl.minimum(first - PLAN.radius, size - KEYS), 0)
    return Keys(key, (key != first - PLAN.radius) | (KEYS < SPAN))


@triton.jit
def log_count(query, key, size, reflected, PLAN: tl.constexpr):
    """What a logit has for m cells of the reflected window of `query` on `key` along an axis (identity E2).

    The natural logarithm of m times D^1/2, as logits are in units of q . k; NEGATIVE where m is 0.
    """
    scale: tl.constexpr = PLAN.size**0.5
    RADIUS: tl.constexpr = PLAN.radius
    difference = key - query
    # Two comparisons: ptxas of CUDA 13 miscompiles |a - b| <= r.
    result = tl.where((difference >= -RADIUS) & (difference <= RADIUS), 0.0, NEGATIVE)
    if reflected:
        total = key + query
        if PLAN.repeated:
            # Offsets o in [-r, r] with query + o = key or = -key modulo the period of the reflection.
            period = tl.maximum(2 * (size - 1), 1)
            count = (RADIUS - difference + 2 * period) // period + (RADIUS + difference + 2 * period) // period - 3
            mirrored = (RADIUS - total + 2 * period) // period + (RADIUS + total + 2 * period) // period - 3
            count += tl.where((key > 0) & (key < size - 1), mirrored, 0)
            result = tl.where(count > 0, tl.log(tl.maximum(count, 1).to(tl.float32)) * scale, NEGATIVE)
        else:
            # What a window sees by reflection it sees directly, too.
            near = (key > 0) & (total <= RADIUS)
            far = (key < size - 1) & (2 * (size - 1) - total <= RADIUS)
            result = tl.where(near | far, LN_2 * scale, result)
            result = tl.where(near & far, LN_3 * scale, result)
        result = tl.where((key < size) & (query < size), result, NEGATIVE)
    return result


@triton.jit
def log2_of_sum(x):
    """log2 of normal numbers, to 1e-7; Triton's own looks for denormal and infinite ones, which takes twice as long.

    x = 2^e (1 + f), (1 + f)^2 in [1/2, 2]; log2(1 + f) / f is a polynomial, fitted for the smallest absolute error.
    """
    bits = x.to(tl.int32, bitcast=True)
    # Of 1 / sqrt(2).
    exponent = (bits - 0x3F3504F3) >> 23
    f = x * ((127 - exponent) << 23).to(tl.float32, bitcast=True) - 1.0
    ratio = 0.12541209 * f - 0.21030344
    ratio = ratio * f + 0.21737954
    ratio = ratio * f - 0.23851942
    ratio = ratio * f + 0.28765666
    ratio = ratio * f - 0.3607212
    ratio = ratio * f + 0.48092252
    ratio = ratio * f - 0.72134715
    ratio = ratio * f + 1.4426949
    return ratio * f + exponent.to(tl.float32)


@triton.jit
def load_vectors(pointers, PLAN: tl.constexpr):
    """Channel vectors `(heads, cells, padded)` of what `pointers`, `(heads * cells,)`, point to; zeros beyond D.

    One axis for heads and cells says which threads read what; of two, versions of Triton choose differently.
    """
    channel = tl.arange(0, PLAN.padded)
    if PLAN.padded == PLAN.size:
        vectors = tl.load(pointers[:, None] + channel)
    else:
        vectors = tl.load(pointers[:, None] + channel, mask=channel < PLAN.size, other=0.0)
    return tl.reshape(vectors, (PLAN.heads, pointers.shape[0] // PLAN.heads, PLAN.padded))


@triton.jit
def load_numbers(pointers, PLAN: tl.constexpr):
    """Numbers `(heads, cells)` of what `pointers`, `(heads * cells,)`, point to."""
    return tl.reshape(tl.load(pointers), (PLAN.heads, pointers.shape[0] // PLAN.heads))


@triton.jit
def heads_of_chunk(PLAN: tl.constexpr):
    """Head of each of a chunk's `(heads * cells,)`, counted from the program's first."""
    return tl.arange(0, PLAN.heads * PLAN.chunk_cells) // PLAN.chunk_cells


@triton.jit
def cells_of_chunk(first, length, PLAN: tl.constexpr):
    """Cells of a map of `length` columns that a chunk's `(heads * cells,)` lie on, counted from the first of the halo.

    `first` is the chunk's first row; padding repeats the last row and column.
    """
    cell = tl.arange(0, PLAN.heads * PLAN.chunk_cells) % PLAN.chunk_cells
    row = tl.minimum(first + cell // PLAN.halo_width, PLAN.halo_rows - 1)
    return row * length + tl.minimum(cell % PLAN.halo_width, PLAN.halo_columns - 1)


@triton.jit
def join_axes(rows, columns):
    """Sum of terms `(heads, cells, R)` of rows and `(heads, cells, C)` of columns, `(heads, cells, R C)`."""
    both = rows[:, :, :, None] + columns[:, :, None, :]
    return tl.reshape(both, (both.shape[0], both.shape[1], both.shape[2] * both.shape[3]))
