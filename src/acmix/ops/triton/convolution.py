"""The convolution path as an implicit matrix product for every channel of a head: taps and maps are its inner axis.

Sources are channels-last: channel d of map m of a cell lies at `cell * SOURCE_PIXEL + m * SOURCE_MAP + d *
SOURCE_CHANNEL`, and likewise in the output, so that one kernel serves fc, the grouped convolution and both gradients.

Tensor cores want neighbours of the inner axis in one register, where memory has neighbouring channels. So PAIRED
channels share a product: the inner axis is (term, channel of the pair), the outer (channel of the pair, map), and
weights between different channels are zero. They fill columns of the product that padding would.
"""

import triton
import triton.language as tl

from acmix.ops.triton.tiles import NUMBERS, quotient

# Far from every map, and no sum of it overflows.
NOWHERE = tl.constexpr(-(1 << 30))


@triton.jit
def cells_of_batch(cell, tile, rows, sizes, reciprocals, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Image, row and column of cells of a tile, and which there are; the `rows` of all images lie below each other.

    `sizes` are height and width; `reciprocals` multiplier and shift for tiles along x, then for rows of an image.
    """
    height, width = sizes
    tile_y = quotient(tile, reciprocals[0], reciprocals[1])
    tile_x = tile - tile_y * ((width + COLUMNS - 1) // COLUMNS)
    row = tile_y * ROWS + cell // COLUMNS
    x = tile_x * COLUMNS + cell % COLUMNS
    image = quotient(row, reciprocals[2], reciprocals[3])
    return image.to(tl.int64), row - image * height, x, (row < rows) & (x < width)


@triton.jit
def on_map(y, x, height, width):
    """Whether there are such cells; negative numbers are large as unsigned ones, which saves a comparison each."""
    return (y.to(tl.uint32) < height.to(tl.uint32)) & (x.to(tl.uint32) < width.to(tl.uint32))


@triton.jit
def pair_channels(values, CELLS: tl.constexpr, PAIRED: tl.constexpr):
    """`(terms * cells, channels)` as `(pairs, cells, terms, PAIRED)`."""
    TERMS: tl.constexpr = values.shape[0] // CELLS
    values = tl.reshape(values, (TERMS, CELLS, values.shape[1] // PAIRED, PAIRED))
    return tl.permute(values, (2, 1, 0, 3))


@triton.jit
def load_weights(
    weight,
    term,
    used,
    pair,
    SIZE: tl.constexpr,
    TERMS: tl.constexpr,
    OUTPUT_MAPS: tl.constexpr,
    PADDED_MAPS: tl.constexpr,
    PAIRED: tl.constexpr,
    SHARED: tl.constexpr,
):
    """Of `used` terms, a row a channel of the pair: `(pairs, rows, PAIRED * PADDED_MAPS)`, zeros between channels."""
    to_map = tl.arange(0, PAIRED * PADDED_MAPS) % PADDED_MAPS
    used = used[:, None] & (to_map < OUTPUT_MAPS)[None, :]
    channel = pair
    if PAIRED > 1:
        of_pair = tl.arange(0, term.shape[0]) % PAIRED
        used &= of_pair[:, None] == (tl.arange(0, PAIRED * PADDED_MAPS) // PADDED_MAPS)[None, :]
        channel = pair + of_pair[None, :, None]
    pointers = weight + ((term * OUTPUT_MAPS)[:, None] + to_map[None, :])[None, :, :]
    if not SHARED:
        pointers += channel * (TERMS * OUTPUT_MAPS)
    return tl.load(pointers, mask=used[None, :, :] & (channel < SIZE), other=0.0)


@triton.jit(do_not_specialize=NUMBERS)
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
    CHUNK_MAPS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Convolve with `weight`, `(D or 1 if SHARED, KERNEL, KERNEL, MAPS, OUTPUT_MAPS)`.

    TRANSPOSED: `rows` of a phase, cells STRIDE apart, which see the same taps, STRIDE apart, too.
    """
    STEP: tl.constexpr = STRIDE if TRANSPOSED else 1
    TAPS: tl.constexpr = (KERNEL + STEP - 1) // STEP
    # A product sums over some taps of all maps, or over one tap of some.
    TAPS_AT_ONCE: tl.constexpr = CHUNK // CHUNK_MAPS
    PARTS: tl.constexpr = (MAPS + CHUNK_MAPS - 1) // CHUNK_MAPS
    GROUPS: tl.constexpr = (SIZE + CHANNELS - 1) // CHANNELS
    CELLS: tl.constexpr = ROWS * COLUMNS
    PAIRS: tl.constexpr = CHANNELS // PAIRED
    program = tl.program_id(0)
    first_channel = (program % GROUPS) * CHANNELS
    program //= GROUPS
    phase_y, phase_x = program % (STEP * STEP) // STEP, program % STEP
    tile = program // (STEP * STEP)
    sizes = (output_height + STEP - 1) // STEP, (output_width + STEP - 1) // STEP
    reciprocals = x_multiplier, x_shift, y_multiplier, y_shift
    first_tap_y = (phase_y + KERNEL // 2) % STEP
    first_tap_x = (phase_x + KERNEL // 2) % STEP
    # One axis for cells and terms, or channels, says which threads read what: versions of Triton order two differently.
    if SOURCE_CHANNEL == 1:
        entry = tl.arange(0, CHUNK * CELLS)
        from_term = (entry // CELLS)[:, None]
        from_channel = first_channel + tl.arange(0, CHANNELS)[None, :]
    else:
        entry = tl.arange(0, CHANNELS * CELLS)
        from_term = tl.arange(0, CHUNK)[None, :]
        from_channel = first_channel + (entry // CELLS)[:, None]
    image, y, x, owned = cells_of_batch(entry % CELLS, tile, rows, sizes, reciprocals, ROWS, COLUMNS)
    if TRANSPOSED:
        y += (phase_y + KERNEL // 2) // STEP
        x += (phase_x + KERNEL // 2) // STEP
    else:
        y = y * STRIDE - KERNEL // 2
        x = x * STRIDE - KERNEL // 2
    at_first = (((image * height + y) * width + x) * SOURCE_PIXEL)[:, None] + from_channel * SOURCE_CHANNEL
    y = tl.where(owned, y, NOWHERE)[:, None]
    x = x[:, None]
    pair = first_channel + PAIRED * tl.arange(0, PAIRS)[:, None, None]
    # What a column of the product is: a channel of the pair, a map of the output.
    to_channel = tl.arange(0, PAIRED * PADDED_MAPS) // PADDED_MAPS
    to_map = tl.arange(0, PAIRED * PADDED_MAPS) % PADDED_MAPS
    summed = tl.zeros((PAIRS, CELLS, PAIRED * PADDED_MAPS), tl.float32)
    for step in range(PARTS * ((TAPS * TAPS + TAPS_AT_ONCE - 1) // TAPS_AT_ONCE)):
        tap = step // PARTS * TAPS_AT_ONCE + from_term // CHUNK_MAPS
        from_map = step % PARTS * CHUNK_MAPS + from_term % CHUNK_MAPS
        row = tap // TAPS
        column = tap % TAPS
        used = (row < TAPS) & (from_map < MAPS) & (from_channel < SIZE)
        if STEP > 1:
            used &= (first_tap_y + row * STEP < KERNEL) & (first_tap_x + column * STEP < KERNEL)
        if TRANSPOSED:
            row, column = -row, -column
        at = at_first + ((row * width + column) * SOURCE_PIXEL + from_map * SOURCE_MAP)
        found = on_map(y + row, x + column, height, width) & used
        values = tl.load(source + at, mask=found, other=0.0)
        if SOURCE_CHANNEL == 1:
            values = pair_channels(values, CELLS, PAIRED)
        values = tl.reshape(values, (PAIRS, CELLS, CHUNK * PAIRED))

        term = tl.arange(0, CHUNK * PAIRED) // PAIRED
        tap = step // PARTS * TAPS_AT_ONCE + term // CHUNK_MAPS
        from_map = step % PARTS * CHUNK_MAPS + term % CHUNK_MAPS
        row = first_tap_y + tap // TAPS * STEP
        column = first_tap_x + tap % TAPS * STEP
        used = (row < KERNEL) & (column < KERNEL) & (from_map < MAPS)
        term = (row * KERNEL + column) * MAPS + from_map
        weights = load_weights(
            weight, term, used, pair, SIZE, KERNEL * KERNEL * MAPS, OUTPUT_MAPS, PADDED_MAPS, PAIRED, SHARED
        )
        summed = tl.dot(values, weights, acc=summed, input_precision=PRECISION)
    image, y, x, owned = cells_of_batch(tl.arange(0, CELLS), tile, rows, sizes, reciprocals, ROWS, COLUMNS)
    y = y * STEP + phase_y
    x = x * STEP + phase_x
    owned &= (y < output_height) & (x < output_width)
    cell = (image * output_height + y) * output_width + x
    of_channel = pair
    if PAIRED > 1:
        of_channel = pair + to_channel[None, None, :]
    at = (cell * OUTPUT_PIXEL)[None, :, None] + of_channel * OUTPUT_CHANNEL + (to_map * OUTPUT_MAP)[None, None, :]
    stored = owned[None, :, None] & (of_channel < SIZE) & (to_map < OUTPUT_MAPS)[None, None, :]
    tl.store(output + at, summed.to(output.dtype.element_ty), mask=stored)


@triton.jit(do_not_specialize=NUMBERS)
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
    # As in `convolve`.
    entry = tl.arange(0, CHUNK * CELLS)
    term = (first_term + entry // CELLS)[:, None]
    row = term // MAPS // KERNEL
    column = term // MAPS % KERNEL
    channel = first_channel + tl.arange(0, CHANNELS)[None, :]
    onward = (row * width + column) * SOURCE_PIXEL + (term % MAPS) * SOURCE_MAP + channel * SOURCE_CHANNEL
    used = (term < TERMS) & (channel < SIZE)
    pair = first_channel + PAIRED * tl.arange(0, PAIRS)[:, None, None]
    to_channel = tl.arange(0, PAIRED * PADDED_MAPS) // PADDED_MAPS
    to_map = tl.arange(0, PAIRED * PADDED_MAPS) % PADDED_MAPS
    summed = tl.zeros((PAIRS, CHUNK * PAIRED, PAIRED * PADDED_MAPS), tl.float32)
    sizes = output_height, output_width
    reciprocals = x_multiplier, x_shift, y_multiplier, y_shift
    for tile in range(split, tiles, splits):
        image, y, x, owned = cells_of_batch(entry % CELLS, tile, rows, sizes, reciprocals, ROWS, COLUMNS)
        y = y * STRIDE - KERNEL // 2
        x = x * STRIDE - KERNEL // 2
        at = (((image * height + y) * width + x) * SOURCE_PIXEL)[:, None] + onward
        y = tl.where(owned, y, NOWHERE)
        found = on_map(y[:, None] + row, x[:, None] + column, height, width) & used
        values = pair_channels(tl.load(source + at, mask=found, other=0.0), CELLS, PAIRED)
        values = tl.reshape(tl.permute(values, (0, 2, 3, 1)), (PAIRS, CHUNK * PAIRED, CELLS))
        image, y, x, owned = cells_of_batch(tl.arange(0, CELLS), tile, rows, sizes, reciprocals, ROWS, COLUMNS)
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
