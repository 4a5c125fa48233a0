"""The convolution path as an implicit matrix product for every channel of a head: taps and maps are its inner axis.

Sources are channels-last: channel d of map m of a cell lies at `pixel * SOURCE_PIXEL + m * SOURCE_MAP + d *
SOURCE_CHANNEL`, and likewise in the output, so that one kernel serves fc, the grouped convolution and both gradients.
"""

import triton
import triton.language as tl


@triton.jit
def cells_of_batch(tile, rows, height, width, multiplier, shift, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Image, row and column of a tile's cells, and which there are; the `rows` of all images lie below each other.

    An image is found by a product, see `launch.reciprocal`: a quotient for every cell costs more than its sums.
    """
    tiles_x = (width + COLUMNS - 1) // COLUMNS
    cell = tl.arange(0, ROWS * COLUMNS)
    row = (tile // tiles_x) * ROWS + cell // COLUMNS
    x = (tile % tiles_x) * COLUMNS + cell % COLUMNS
    image = (tl.umulhi(2 * row.to(tl.uint32), multiplier.to(tl.uint32)) >> shift).to(tl.int32)
    return image.to(tl.int64), row - image * height, x, (row < rows) & (x < width)


@triton.jit
def first_tapped(cell, KERNEL: tl.constexpr, STRIDE: tl.constexpr, TRANSPOSED: tl.constexpr):
    """Cell of the source that the first tap reads for the output's `cell` along an axis."""
    if TRANSPOSED:
        return (cell + KERNEL // 2) // STRIDE
    return cell * STRIDE - KERNEL // 2


@triton.jit
def cells_onward(tap, STRIDE: tl.constexpr, TRANSPOSED: tl.constexpr):
    """How many cells after the first tap's a tap reads."""
    if TRANSPOSED:
        return -(tap // STRIDE)
    return tap


@triton.jit
def is_tapped(cell, tap, size, KERNEL: tl.constexpr, STRIDE: tl.constexpr, TRANSPOSED: tl.constexpr):
    """Whether `tap` reads a cell of the source for the output's `cell` along an axis."""
    source = first_tapped(cell, KERNEL, STRIDE, TRANSPOSED) + cells_onward(tap, STRIDE, TRANSPOSED)
    found = (source >= 0) & (source < size)
    if TRANSPOSED and STRIDE > 1:
        found &= (cell + KERNEL // 2) % STRIDE == tap % STRIDE
    return found


@triton.jit
def convolve(
    source,
    weight,
    output,
    rows,
    height,
    width,
    output_height,
    output_width,
    multiplier,
    shift,
    SOURCE_PIXEL: tl.constexpr,
    SOURCE_MAP: tl.constexpr,
    SOURCE_CHANNEL: tl.constexpr,
    MAPS: tl.constexpr,
    OUTPUT_PIXEL: tl.constexpr,
    OUTPUT_MAP: tl.constexpr,
    OUTPUT_CHANNEL: tl.constexpr,
    OUTPUT_MAPS: tl.constexpr,
    PADDED_MAPS: tl.constexpr,
    SIZE: tl.constexpr,
    SHARED: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Zero-padded convolution with `weight`, `(D, k k MAPS, OUTPUT_MAPS)`, SHARED by all channels if D is 1."""
    GROUPS: tl.constexpr = (SIZE + CHANNELS - 1) // CHANNELS
    TERMS: tl.constexpr = KERNEL * KERNEL * MAPS
    program = tl.program_id(0)
    channel = (program % GROUPS) * CHANNELS + tl.arange(0, CHANNELS)
    image, y, x, owned = cells_of_batch(
        program // GROUPS, rows, output_height, output_width, multiplier, shift, ROWS, COLUMNS
    )
    first_y = first_tapped(y, KERNEL, STRIDE, TRANSPOSED)
    first_x = first_tapped(x, KERNEL, STRIDE, TRANSPOSED)
    at_first = ((image * height + first_y) * width + first_x) * SOURCE_PIXEL
    map_index = tl.arange(0, PADDED_MAPS)
    summed = tl.zeros((CHANNELS, ROWS * COLUMNS, PADDED_MAPS), tl.float32)
    for first in range(0, TERMS, CHUNK):
        term = first + tl.arange(0, CHUNK)
        row = term // MAPS // KERNEL
        column = term // MAPS % KERNEL
        found = is_tapped(y[:, None], row[None, :], height, KERNEL, STRIDE, TRANSPOSED)
        found &= is_tapped(x[:, None], column[None, :], width, KERNEL, STRIDE, TRANSPOSED)
        found &= (term < TERMS)[None, :] & owned[:, None]
        onward = cells_onward(row, STRIDE, TRANSPOSED) * width + cells_onward(column, STRIDE, TRANSPOSED)
        at = at_first[:, None] + (onward * SOURCE_PIXEL + (term % MAPS) * SOURCE_MAP)[None, :]
        found = found[None, :, :] & (channel < SIZE)[:, None, None]
        values = tl.load(source + at[None, :, :] + (channel * SOURCE_CHANNEL)[:, None, None], mask=found, other=0.0)
        at = (term * OUTPUT_MAPS)[None, :, None] + map_index[None, None, :]
        used = (term < TERMS)[None, :, None] & (map_index < OUTPUT_MAPS)[None, None, :]
        if not SHARED:
            at = at + (channel * (TERMS * OUTPUT_MAPS))[:, None, None]
            used = used & (channel < SIZE)[:, None, None]
        weights = tl.load(weight + at, mask=used, other=0.0)
        if SHARED:
            weights = tl.broadcast_to(weights, (CHANNELS, CHUNK, PADDED_MAPS))
        summed = tl.dot(values, weights, acc=summed, input_precision=PRECISION)
    cell = (image * output_height + y) * output_width + x
    at = (cell * OUTPUT_PIXEL)[None, :, None] + (channel * OUTPUT_CHANNEL)[:, None, None]
    at += (map_index * OUTPUT_MAP)[None, None, :]
    stored = owned[None, :, None] & (channel < SIZE)[:, None, None]
    stored = stored & (map_index < OUTPUT_MAPS)[None, None, :]
    tl.store(output + at, summed.to(output.dtype.element_ty), mask=stored)


@triton.jit
def convolve_weight_gradient(
    source,
    output_gradient,
    partial,
    rows,
    tiles,
    height,
    width,
    output_height,
    output_width,
    multiplier,
    shift,
    splits,
    SOURCE_PIXEL: tl.constexpr,
    SOURCE_MAP: tl.constexpr,
    SOURCE_CHANNEL: tl.constexpr,
    MAPS: tl.constexpr,
    OUTPUT_PIXEL: tl.constexpr,
    OUTPUT_MAP: tl.constexpr,
    OUTPUT_CHANNEL: tl.constexpr,
    OUTPUT_MAPS: tl.constexpr,
    PADDED_MAPS: tl.constexpr,
    SIZE: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Sums over every `splits`-th tile of cells, `(splits, D, k k MAPS, OUTPUT_MAPS)`, for the caller to add."""
    GROUPS: tl.constexpr = (SIZE + CHANNELS - 1) // CHANNELS
    TERMS: tl.constexpr = KERNEL * KERNEL * MAPS
    CHUNKS: tl.constexpr = (TERMS + CHUNK - 1) // CHUNK
    program = tl.program_id(0)
    term = (program % CHUNKS) * CHUNK + tl.arange(0, CHUNK)
    program //= CHUNKS
    channel = (program % GROUPS) * CHANNELS + tl.arange(0, CHANNELS)
    split = program // GROUPS
    row = term // MAPS // KERNEL
    column = term // MAPS % KERNEL
    onward = (row * width + column) * SOURCE_PIXEL + (term % MAPS) * SOURCE_MAP
    map_index = tl.arange(0, PADDED_MAPS)
    summed = tl.zeros((CHANNELS, CHUNK, PADDED_MAPS), tl.float32)
    for tile in range(split, tiles, splits):
        image, y, x, owned = cells_of_batch(tile, rows, output_height, output_width, multiplier, shift, ROWS, COLUMNS)
        found = is_tapped(y[None, :], row[:, None], height, KERNEL, STRIDE, False)
        found &= is_tapped(x[None, :], column[:, None], width, KERNEL, STRIDE, False)
        found &= (term < TERMS)[:, None] & owned[None, :]
        first_y = first_tapped(y, KERNEL, STRIDE, False)
        first_x = first_tapped(x, KERNEL, STRIDE, False)
        at = (((image * height + first_y) * width + first_x) * SOURCE_PIXEL)[None, :] + onward[:, None]
        found = found[None, :, :] & (channel < SIZE)[:, None, None]
        values = tl.load(source + at[None, :, :] + (channel * SOURCE_CHANNEL)[:, None, None], mask=found, other=0.0)
        cell = (image * output_height + y) * output_width + x
        at = (cell * OUTPUT_PIXEL)[None, :, None] + (channel * OUTPUT_CHANNEL)[:, None, None]
        at += (map_index * OUTPUT_MAP)[None, None, :]
        found = owned[None, :, None] & (channel < SIZE)[:, None, None]
        found = found & (map_index < OUTPUT_MAPS)[None, None, :]
        gradients = tl.load(output_gradient + at, mask=found, other=0.0)
        summed = tl.dot(values, gradients, acc=summed, input_precision=PRECISION)
    at = ((split * SIZE + channel[:, None, None]) * TERMS + term[None, :, None]) * OUTPUT_MAPS + map_index[
        None, None, :
    ]
    stored = (channel < SIZE)[:, None, None] & (term < TERMS)[None, :, None] & (map_index < OUTPUT_MAPS)[None, None, :]
    tl.store(partial + at, summed, mask=stored)
