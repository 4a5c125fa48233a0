"""What the attention kernels share: the queries or keys of a program, their windows, their channel vectors.

What lies in memory is `(HEADS * cells,)`, entry head * cells + cell.
"""

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


@triton.jit
def quotient(number, multiplier, shift):
    """A number of 0 to 2^31 - 1 divided by what `launch.reciprocal` was given, rounded down; divisions take longer."""
    return (tl.umulhi(2 * tl.cast(number, tl.uint32), tl.cast(multiplier, tl.uint32)) >> shift).to(tl.int32)


@triton.jit
def tile_of_program(
    height,
    width,
    x_multiplier,
    x_shift,
    y_multiplier,
    y_shift,
    GROUPS: tl.constexpr,
    HEADS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Image, first row and column of this program's tile of a map, first head; programs of one tile are neighbours."""
    program = tl.program_id(0)
    tile = program // GROUPS
    row = quotient(tile, x_multiplier, x_shift)
    image = quotient(row, y_multiplier, y_shift)
    first_x = (tile - row * ((width + COLUMNS - 1) // COLUMNS)) * COLUMNS
    first_y = (row - image * ((height + ROWS - 1) // ROWS)) * ROWS
    return image.to(tl.int64), first_y, first_x, (program % GROUPS) * HEADS


@triton.jit
def cells_of_tile(cell, first_y, first_x, height, width, COLUMNS: tl.constexpr):
    """Row and column of cells of a tile, clamped to the map, and which lie on it."""
    y = first_y + cell // COLUMNS
    x = first_x + cell % COLUMNS
    return tl.minimum(y, height - 1), tl.minimum(x, width - 1), (y < height) & (x < width)


@triton.jit
def first_key(first, size, SPAN: tl.constexpr, KEYS: tl.constexpr, RADIUS: tl.constexpr):
    """First key of the KEYS that windows over SPAN cells from `first - RADIUS` on need, and whether any is reflected.

    The keys lie within the map, so that none needs a mask.
    """
    key = tl.maximum(tl.minimum(first - RADIUS, size - KEYS), 0)
    return key, (key != first - RADIUS) | (KEYS < SPAN)


@triton.jit
def log_count(query, key, size, border, SIZE: tl.constexpr, RADIUS: tl.constexpr, REPEATED: tl.constexpr):
    """What a logit has for m cells of the reflected window of `query` on `key` along an axis (identity E2).

    The natural logarithm of m times D^1/2, as logits are in units of q . k; NEGATIVE where m is 0.
    """
    scale: tl.constexpr = SIZE**0.5
    difference = key - query
    # Two comparisons: ptxas of CUDA 13 miscompiles |a - b| <= r.
    result = tl.where((difference >= -RADIUS) & (difference <= RADIUS), 0.0, NEGATIVE)
    if border:
        total = key + query
        if REPEATED:
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
def load_vectors(pointers, HEADS: tl.constexpr, SIZE: tl.constexpr, PADDED: tl.constexpr):
    """Channel vectors `(HEADS, cells, PADDED)` of what `pointers`, `(HEADS * cells,)`, point to; zeros beyond SIZE.

    One axis for heads and cells says which threads read what; of two, versions of Triton choose differently.
    """
    channel = tl.arange(0, PADDED)
    if PADDED == SIZE:
        vectors = tl.load(pointers[:, None] + channel)
    else:
        vectors = tl.load(pointers[:, None] + channel, mask=channel < SIZE, other=0.0)
    return tl.reshape(vectors, (HEADS, pointers.shape[0] // HEADS, PADDED))


@triton.jit
def chunk_offsets(cell, first, length, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Cells of a map of `length` columns that chunk cells lie on, counted from the first; padding repeats the last."""
    row = tl.minimum(first + cell // WIDTH, ROWS - 1)
    return row * length + tl.minimum(cell % WIDTH, COLUMNS - 1)


@triton.jit
def join_axes(rows, columns):
    """Sum of terms `(heads, cells, R)` of rows and `(heads, cells, C)` of columns, `(heads, cells, R C)`."""
    both = rows[:, :, :, None] + columns[:, :, None, :]
    return tl.reshape(both, (both.shape[0], both.shape[1], both.shape[2] * both.shape[3]))
