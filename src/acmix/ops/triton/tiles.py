"""What the attention kernels share: the queries or keys of a program, their windows, their channel vectors."""

import triton
import triton.language as tl

# Logit of a key outside the window: finite, so that a chunk without any key in the window makes no NaN.
NEGATIVE = tl.constexpr(-1e30)


@triton.jit
def tile_indices(tile, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Image, first row and first column of a tile, counted through all maps of the batch."""
    tiles_y = (height + ROWS - 1) // ROWS
    tiles_x = (width + COLUMNS - 1) // COLUMNS
    rest = tile // tiles_x
    return (rest // tiles_y).to(tl.int64), (rest % tiles_y) * ROWS, (tile % tiles_x) * COLUMNS


@triton.jit
def tile_of_program(
    height, width, GROUPS: tl.constexpr, HEADS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Image, first row and column of this program's tile of a map, its heads; programs of one tile are neighbours."""
    program = tl.program_id(0)
    heads = (program % GROUPS) * HEADS + tl.arange(0, HEADS)
    image, first_y, first_x = tile_indices(program // GROUPS, height, width, ROWS, COLUMNS)
    return image, first_y, first_x, heads


@triton.jit
def cells_of_tile(first_y, first_x, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Row and column of the cells of a tile, clamped to the map, and which lie on it; all `(cells,)`."""
    cell = tl.arange(0, ROWS * COLUMNS)
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
def reflected_count(query, key, size, RADIUS: tl.constexpr, REPEATED: tl.constexpr):
    """How many cells of the reflected window of `query` lie on `key` along an axis of `size` cells (identity E2)."""
    difference = key - query
    total = key + query
    if REPEATED:
        # Offsets o in [-r, r] with query + o = key or = -key modulo the period of the reflection.
        period = tl.maximum(2 * (size - 1), 1)
        count = (RADIUS - difference + 2 * period) // period + (RADIUS + difference + 2 * period) // period - 3
        mirrored = (RADIUS - total + 2 * period) // period + (RADIUS + total + 2 * period) // period - 3
        count += tl.where((key > 0) & (key < size - 1), mirrored, 0)
    else:
        # Two comparisons: ptxas of CUDA 13 miscompiles |a - b| <= r.
        count = ((difference >= -RADIUS) & (difference <= RADIUS)).to(tl.int32)
        count += ((key > 0) & (total <= RADIUS)).to(tl.int32)
        count += ((key < size - 1) & (2 * (size - 1) - total <= RADIUS)).to(tl.int32)
    return tl.where((key >= 0) & (key < size) & (query < size), count, 0)


@triton.jit
def log_count(query, key, size, border, RADIUS: tl.constexpr, REPEATED: tl.constexpr):
    """Natural logarithm of `reflected_count`, NEGATIVE for zero; cheap where no window of the tile is reflected."""
    difference = key - query
    result = tl.where((difference >= -RADIUS) & (difference <= RADIUS), 0.0, NEGATIVE)
    if border:
        count = reflected_count(query, key, size, RADIUS, REPEATED)
        result = tl.where(count > 0, tl.log(tl.maximum(count, 1).to(tl.float32)), NEGATIVE)
    return result


@triton.jit
def load_vectors(pointers, SIZE: tl.constexpr, PADDED: tl.constexpr):
    """Channel vectors `(heads, cells, PADDED)` of what `pointers`, `(heads, cells)`, point to; zeros beyond SIZE."""
    channel = tl.arange(0, PADDED)
    if PADDED == SIZE:
        return tl.load(pointers[:, :, None] + channel)
    return tl.load(pointers[:, :, None] + channel, mask=channel < SIZE, other=0.0)


@triton.jit
def chunk_offsets(first, length, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LENGTH: tl.constexpr):
    """Cells of a map of `length` columns that chunk cells lie on, counted from the first; padding repeats the last."""
    cell = tl.arange(0, LENGTH)
    row = tl.minimum(first + cell // WIDTH, ROWS - 1)
    return row * length + tl.minimum(cell % WIDTH, COLUMNS - 1)


@triton.jit
def join_axes(rows, columns):
    """Sum of terms `(heads, cells, R)` of rows and `(heads, cells, C)` of columns, `(heads, cells, R C)`."""
    both = rows[:, :, :, None] + columns[:, :, None, :]
    return tl.reshape(both, (both.shape[0], both.shape[1], both.shape[2] * both.shape[3]))
