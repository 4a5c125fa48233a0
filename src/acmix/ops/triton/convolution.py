"""The convolution path as an implicit matrix product for every channel of a head: taps and maps are its inner axis.

Sources are channels-last: channel d of map m of a cell lies at `cell * SOURCE_PIXEL + m * SOURCE_MAP + d *
SOURCE_CHANNEL`, and likewise in the output, so that one kernel serves fc, the grouped convolution and both gradients.

Tensor cores want neighbours of the inner axis in one register, where memory has neighbouring channels. So PAIRED
channels share a product: the inner axis is (term, channel of the pair), the outer (channel of the pair, map), and
weights between different channels are zero. They fill columns of the product that padding would.
"""

import triton
import triton.language as tl

from acmix.ops.triton.tiles import quotient

# Far from every map, and no sum of it overflows.
NOWHERE = tl.constexpr(-(1 << 30))


@triton.jit
def cells_of_batch(
    tile,
    rows,
    height,
    width,
    x_multiplier,
    x_shift,
    y_multiplier,
    y_shift,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Image, row and column of a tile's cells, and which there are; the `rows` of all images lie below each other."""
    tile_y = quotient(tile, x_multiplier, x_shift)
    tile_x = tile - tile_y * ((width + COLUMNS - 1) // COLUMNS)
    cell = tl.arange(0, ROWS * COLUMNS)
    row = tile_y * ROWS + cell // COLUMNS
    x = tile_x * COLUMNS + cell % COLUMNS
    image = quotient(row, y_multiplier, y_shift)
    return image.to(tl.int64), row - image * height, x, (row < rows) & (x < width)


@triton.jit
def on_map(y, x, height, width):
    """Whether there are such cells; negative numbers are large as unsigned ones, which saves a comparison each."""
    return (y.to(tl.uint32) < height.to(tl.uint32)) & (x.to(tl.uint32) < width.to(tl.uint32))


@triton.jit
def pair_channels(values, PAIRED: tl.constexpr):
    """`(cells, terms, channels)` as `(pairs, cells, terms, PAIRED)`."""
    PAIRS: tl.constexpr = values.shape[2] // PAIRED
    values = tl.reshape(values, (values.shape[0], values.shape[1], PAIRS, PAIRED))
    return tl.permute(values, (2, 0, 1, 3))


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
    x_multiplier,
    x_shift,
    y_multiplier,
    y_shift,
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
    PAIRED: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Tiles of cells of the output, `rows` of a phase; `weight` is `(D or 1 if SHARED, KERNEL, KERNEL, MAPS, OUTPUT_MAPS)`.

    TRANSPOSED: cells STRIDE apart, a phase, see the same taps, STRIDE apart, too.
    """
    STEP: tl.constexpr = STRIDE if TRANSPOSED else 1
    TAPS: tl.constexpr = (KERNEL + STEP - 1) // STEP
    TERMS: tl.constexpr = TAPS * TAPS * MAPS
    GROUPS: tl.constexpr = (SIZE + CHANNELS - 1) // CHANNELS
    CELLS: tl.constexpr = ROWS * COLUMNS
    PAIRS: tl.constexpr = CHANNELS // PAIRED
    program = tl.program_id(0)
    first_channel = (program % GROUPS) * CHANNELS
    program //= GROUPS
    phase_y = program % (STEP * STEP) // STEP
    phase_x = program % STEP
    image, y, x, owned = cells_of_batch(
        program // (STEP * STEP),
        rows,
        (output_height + STEP - 1) // STEP,
        (output_width + STEP - 1) // STEP,
        x_multiplier,
        x_shift,
        y_multiplier,
        y_shift,
        ROWS,
        COLUMNS,
    )
    first_y = y * STRIDE - KERNEL // 2
    first_x = x * STRIDE - KERNEL // 2
    if TRANSPOSED:
        first_y = y + (phase_y + KERNEL // 2) // STEP
        first_x = x + (phase_x + KERNEL // 2) // STEP
        if STEP > 1:
            y = y * STEP + phase_y
            x = x * STEP + phase_x
            owned &= (y < output_height) & (x < output_width)
    at_first = ((image * height + first_y) * width + first_x) * SOURCE_PIXEL
    first_y = tl.where(owned, first_y, NOWHERE)
    first_tap_y = (phase_y + KERNEL // 2) % STEP
    first_tap_x = (phase_x + KERNEL // 2) % STEP
    channel = first_channel + tl.arange(0, CHANNELS)
    pair = first_channel + PAIRED * tl.arange(0, PAIRS)[:, None, None]
    # What a column of the product is: a channel of the pair, a map of the output.
    to_channel = tl.arange(0, PAIRED * PADDED_MAPS) // PADDED_MAPS
    to_map = tl.arange(0, PAIRED * PADDED_MAPS) % PADDED_MAPS
    summed = tl.zeros((PAIRS, CELLS, PAIRED * PADDED_MAPS), tl.float32)
    for first in range(0, TERMS, CHUNK):
        term = first + tl.arange(0, CHUNK)
        row = term // MAPS // TAPS
        column = term // MAPS % TAPS
        used = term < TERMS
        if STEP > 1:
            used &= (first_tap_y + row * STEP < KERNEL) & (first_tap_x + column * STEP < KERNEL)
        if TRANSPOSED:
            row = -row
            column = -column
        at = at_first[:, None] + ((row * width + column) * SOURCE_PIXEL + (term % MAPS) * SOURCE_MAP)[None, :]
        found = on_map(first_y[:, None] + row[None, :], first_x[:, None] + column[None, :], height, width)
        found &= used[None, :]
        if PAIRED > 1:
            # Neighbouring threads read neighbouring channels, then maps.
            pointers = source + at[:, :, None] + channel * SOURCE_CHANNEL
            values = tl.load(pointers, mask=found[:, :, None] & (channel < SIZE), other=0.0)
            values = tl.reshape(pair_channels(values, PAIRED), (PAIRS, CELLS, CHUNK * PAIRED))
        else:
            pointers = source + at[None, :, :] + pair * SOURCE_CHANNEL
            values = tl.load(pointers, mask=found[None, :, :] & (pair < SIZE), other=0.0)

        term = first + tl.arange(0, CHUNK * PAIRED) // PAIRED
        from_channel = tl.arange(0, CHUNK * PAIRED) % PAIRED
        used = term < TERMS
        if STEP > 1:
            row = first_tap_y + term // MAPS // TAPS * STEP
            column = first_tap_x + term // MAPS % TAPS * STEP
            used &= (row < KERNEL) & (column < KERNEL)
            term = (row * KERNEL + column) * MAPS + term % MAPS
        at = (term * OUTPUT_MAPS)[:, None] + to_map[None, :]
        used = used[:, None] & (to_map < OUTPUT_MAPS)[None, :]
        of_channel = pair
        if PAIRED > 1:
            used &= from_channel[:, None] == to_channel[None, :]
            of_channel = pair + from_channel[None, :, None]
        pointers = weight + at[None, :, :]
        if not SHARED:
            pointers += of_channel * (KERNEL * KERNEL * MAPS * OUTPUT_MAPS)
        weights = tl.load(pointers, mask=used[None, :, :] & (of_channel < SIZE), other=0.0)
        summed = tl.dot(values, weights, acc=summed, input_precision=PRECISION)
    cell = (image * output_height + y) * output_width + x
    of_channel = pair
    if PAIRED > 1:
        of_channel = pair + to_channel[None, None, :]
    at = (cell * OUTPUT_PIXEL)[None, :, None] + of_channel * OUTPUT_CHANNEL + (to_map * OUTPUT_MAP)[None, None, :]
    stored = owned[None, :, None] & (of_channel < SIZE) & (to_map < OUTPUT_MAPS)[None, None, :]
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
    x_multiplier,
    x_shift,
    y_multiplier,
    y_shift,
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
    PAIRED: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Sums over every `splits`-th tile of cells, `(splits, D, k k MAPS, OUTPUT_MAPS)`, for the caller to add."""
    GROUPS: tl.constexpr = (SIZE + CHANNELS - 1) // CHANNELS
    TERMS: tl.constexpr = KERNEL * KERNEL * MAPS
    CHUNKS: tl.constexpr = (TERMS + CHUNK - 1) // CHUNK
    CELLS: tl.constexpr = ROWS * COLUMNS
    PAIRS: tl.constexpr = CHANNELS // PAIRED
    program = tl.program_id(0)
    first_term = (program % CHUNKS) * CHUNK
    program //= CHUNKS
    first_channel = (program % GROUPS) * CHANNELS
    split = program // GROUPS
    term = first_term + tl.arange(0, CHUNK)
    row = term // MAPS // KERNEL
    column = term // MAPS % KERNEL
    onward = (row * width + column) * SOURCE_PIXEL + (term % MAPS) * SOURCE_MAP
    channel = first_channel + tl.arange(0, CHANNELS)
    pair = first_channel + PAIRED * tl.arange(0, PAIRS)[:, None, None]
    to_channel = tl.arange(0, PAIRED * PADDED_MAPS) // PADDED_MAPS
    to_map = tl.arange(0, PAIRED * PADDED_MAPS) % PADDED_MAPS
    summed = tl.zeros((PAIRS, CHUNK * PAIRED, PAIRED * PADDED_MAPS), tl.float32)
    for tile in range(split, tiles, splits):
        image, y, x, owned = cells_of_batch(
            tile, rows, output_height, output_width, x_multiplier, x_shift, y_multiplier, y_shift, ROWS, COLUMNS
        )
        first_y = y * STRIDE - KERNEL // 2
        first_x = x * STRIDE - KERNEL // 2
        at = (((image * height + first_y) * width + first_x) * SOURCE_PIXEL)[:, None] + onward[None, :]
        first_y = tl.where(owned, first_y, NOWHERE)
        found = on_map(first_y[:, None] + row[None, :], first_x[:, None] + column[None, :], height, width)
        found &= (term < TERMS)[None, :]
        pointers = source + at[:, :, None] + channel * SOURCE_CHANNEL
        values = tl.load(pointers, mask=found[:, :, None] & (channel < SIZE), other=0.0)
        values = tl.permute(pair_channels(values, PAIRED), (0, 2, 3, 1))
        values = tl.reshape(values, (PAIRS, CHUNK * PAIRED, CELLS))
        cell = (image * output_height + y) * output_width + x
        of_channel = pair + to_channel[None, None, :]
        at = (cell * OUTPUT_PIXEL)[None, :, None] + of_channel * OUTPUT_CHANNEL + (to_map * OUTPUT_MAP)[None, None, :]
        found = owned[None, :, None] & (of_channel < SIZE) & (to_map < OUTPUT_MAPS)[None, None, :]
        gradients = tl.load(output_gradient + at, mask=found, other=0.0)
        summed = tl.dot(values, gradients, acc=summed, input_precision=PRECISION)
    term = first_term + tl.arange(0, CHUNK * PAIRED) // PAIRED
    from_channel = tl.arange(0, CHUNK * PAIRED) % PAIRED
    of_channel = pair + from_channel[None, :, None]
    at = ((split * SIZE + of_channel) * TERMS + term[None, :, None]) * OUTPUT_MAPS + to_map[None, None, :]
    stored = (of_channel < SIZE) & (term < TERMS)[None, :, None] & (to_map < OUTPUT_MAPS)[None, None, :]
    stored &= from_channel[None, :, None] == to_channel[None, None, :]
    tl.store(partial + at, summed, mask=stored)
