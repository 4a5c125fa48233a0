"""The convolution path as an implicit matrix product for every channel of a head: taps and maps are its inner axis.

PLAN is the kernel's `plans.ConvolutionPlan`. Sources are channels-last and lie as its `source` says, and likewise the
output, so that one kernel serves fc, the grouped convolution and both gradients.

Tensor cores want neighbours of the inner axis in one register, where memory has neighbouring channels. So `paired`
channels share a product: the inner axis is (term, channel of the pair), the outer (channel of the pair, map), and
weights between different channels are zero. They fill columns of the product that padding would.
"""

import triton
import triton.language as tl

from acmix.ops.triton.tiles import NUMBERS, quotient

# Far from every map, and no sum of it overflows.
NOWHERE = tl.constexpr(-(1 << 30))


@triton.jit
def cells_of_batch(cell, tile, rows, sizes, reciprocals, PLAN: tl.constexpr):
    """Image, row and column of cells of a tile, and which there are; the `rows` of all images lie below each other.

    `sizes` are height and width; `reciprocals` multiplier and shift for tiles along x, then for rows of an image.
    """
    height, width = sizes
    tile_y = quotient(tile, reciprocals[0], reciprocals[1])
    tile_x = tile - tile_y * ((width + PLAN.columns - 1) // PLAN.columns)
    row = tile_y * PLAN.rows + cell // PLAN.columns
    x = tile_x * PLAN.columns + cell % PLAN.columns
    image = quotient(row, reciprocals[2], reciprocals[3])
    return image.to(tl.int64), row - image * height, x, (row < rows) & (x < width)


@triton.jit
def on_map(y, x, height, width):
    """Whether there are such cells; negative numbers are large as unsigned ones, which saves a comparison each."""
    return (y.to(tl.uint32) < height.to(tl.uint32)) & (x.to(tl.uint32) < width.to(tl.uint32))


@triton.jit
def pair_channels(values, PLAN: tl.constexpr):
    """`(terms * cells, channels)` as `(pairs, cells, terms, PLAN.paired)`."""
    terms: tl.constexpr = values.shape[0] // PLAN.cells
    values = tl.reshape(values, (terms, PLAN.cells, PLAN.pairs, PLAN.paired))
    return tl.permute(values, (2, 1, 0, 3))


@triton.jit
def columns_of_product(PLAN: tl.constexpr):
    """What a column of a product is: a channel of the pair, and a map of the output."""
    column = tl.arange(0, PLAN.paired * PLAN.padded_maps)
    return column // PLAN.padded_maps, column % PLAN.padded_maps


@triton.jit
def output_of_product(cells, pair, sizes, PLAN: tl.constexpr):
    """Where products `(pairs, cells, paired * padded_maps)` lie in the output, and which belong there."""
    image, y, x, owned = cells
    output_height, output_width = sizes
    to_channel, to_map = columns_of_product(PLAN)
    cell = (image * output_height + y) * output_width + x
    channel = pair
    if PLAN.paired > 1:
        channel = pair + to_channel[None, None, :]
    at = (cell * PLAN.output.pixel)[None, :, None] + channel * PLAN.output.channel
    at += (to_map * PLAN.output.map)[None, None, :]
    return at, owned[None, :, None] & (channel < PLAN.size) & (to_map < PLAN.output.number)[None, None, :]


@triton.jit
def load_weights(weight, term, used, pair, PLAN: tl.constexpr, SHARED: tl.constexpr):
    """Of `used` terms, a row a channel of the pair: `(pairs, rows, paired * padded_maps)`, zeros between channels."""
    to_channel, to_map = columns_of_product(PLAN)
    used = used[:, None] & (to_map < PLAN.output.number)[None, :]
    channel = pair
    if PLAN.paired > 1:
        of_pair = tl.arange(0, PLAN.chunk * PLAN.paired) % PLAN.paired
        used &= of_pair[:, None] == to_channel[None, :]
        channel = pair + of_pair[None, :, None]
    pointers = weight + ((term * PLAN.output.number)[:, None] + to_map[None, :])[None, :, :]
    if not SHARED:
        pointers += channel * (PLAN.kernel * PLAN.kernel * PLAN.source.number * PLAN.output.number)
    return tl.load(pointers, mask=used[None, :, :] & (channel < PLAN.size), other=0.0)


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
    PLAN: tl.constexpr,
    SHARED: tl.constexpr,
    TRANSPOSED: tl.constexpr,
):
    """Convolve with `weight`, `(D or 1 if SHARED, kernel, kernel, maps, maps of the output)`.

    TRANSPOSED: `rows` of a phase, cells a stride apart, which see the same taps, a stride apart, too.
    """
    STEP: tl.constexpr = PLAN.stride if TRANSPOSED else 1
    TAPS: tl.constexpr = (PLAN.kernel + STEP - 1) // STEP
    # A product sums over some taps of all maps, or over one tap of some.
    TAPS_AT_ONCE: tl.constexpr = PLAN.chunk // PLAN.chunk_maps
    PARTS: tl.constexpr = (PLAN.source.number + PLAN.chunk_maps - 1) // PLAN.chunk_maps
    program = tl.program_id(0)
    first_channel = (program % PLAN.groups) * PLAN.channels
    program //= PLAN.groups
    phase_y, phase_x = program % (STEP * STEP) // STEP, program % STEP
    tile = program // (STEP * STEP)
    sizes = (output_height + STEP - 1) // STEP, (output_width + STEP - 1) // STEP
    reciprocals = x_multiplier, x_shift, y_multiplier, y_shift
    first_tap_y = (phase_y + PLAN.kernel // 2) % STEP
    first_tap_x = (phase_x + PLAN.kernel // 2) % STEP
    # One axis for cells and terms, or channels, says which threads read what: versions of Triton order two differently.
    if PLAN.source.channel == 1:
        entry = tl.arange(0, PLAN.chunk * PLAN.cells)
        from_term = (entry // PLAN.cells)[:, None]
        from_channel = first_channel + tl.arange(0, PLAN.channels)[None, :]
    else:
        entry = tl.arange(0, PLAN.channels * PLAN.cells)
        from_term = tl.arange(0, PLAN.chunk)[None, :]
        from_channel = first_channel + (entry // PLAN.cells)[:, None]
    image, y, x, owned = cells_of_batch(entry % PLAN.cells, tile, rows, sizes, reciprocals, PLAN)
    if TRANSPOSED:
        y += (phase_y + PLAN.kernel // 2) // STEP
        x += (phase_x + PLAN.kernel // 2) // STEP
    else:
        y = y * PLAN.stride - PLAN.kernel // 2
        x = x * PLAN.stride - PLAN.kernel // 2
    at_first = (((image * height + y) * width + x) * PLAN.source.pixel)[:, None] + from_channel * PLAN.source.channel
    y = tl.where(owned, y, NOWHERE)[:, None]
    x = x[:, None]
    pair = first_channel + PLAN.paired * tl.arange(0, PLAN.pairs)[:, None, None]
    summed = tl.full((PLAN.pairs, PLAN.cells, PLAN.paired * PLAN.padded_maps), 0.0, tl.float32)
    for step in range(PARTS * ((TAPS * TAPS + TAPS_AT_ONCE - 1) // TAPS_AT_ONCE)):
        first_tap, first_map = step // PARTS * TAPS_AT_ONCE, step % PARTS * PLAN.chunk_maps
        tap = first_tap + from_term // PLAN.chunk_maps
        from_map = first_map + from_term % PLAN.chunk_maps
        row = tap // TAPS
        column = tap % TAPS
        used = (row < TAPS) & (from_map < PLAN.source.number) & (from_channel < PLAN.size)
        if STEP > 1:
            used &= (first_tap_y + row * STEP < PLAN.kernel) & (first_tap_x + column * STEP < PLAN.kernel)
        if TRANSPOSED:
            row, column = -row, -column
        at = at_first + ((row * width + column) * PLAN.source.pixel + from_map * PLAN.source.map)
        found = on_map(y + row, x + column, height, width) & used
        values = tl.load(source + at, mask=found, other=0.0)
        if PLAN.source.channel == 1:
            values = pair_channels(values, PLAN)
        values = tl.reshape(values, (PLAN.pairs, PLAN.cells, PLAN.chunk * PLAN.paired))

        term = tl.arange(0, PLAN.chunk * PLAN.paired) // PLAN.paired
        tap = first_tap + term // PLAN.chunk_maps
        from_map = first_map + term % PLAN.chunk_maps
        row = first_tap_y + tap // TAPS * STEP
        column = first_tap_x + tap % TAPS * STEP
        used = (row < PLAN.kernel) & (column < PLAN.kernel) & (from_map < PLAN.source.number)
        term = (row * PLAN.kernel + column) * PLAN.source.number + from_map
        weights = load_weights(weight, term, used, pair, PLAN, SHARED)
        summed = tl.dot(values, weights, acc=summed, input_precision=PLAN.precision)
    image, y, x, owned = cells_of_batch(tl.arange(0, PLAN.cells), tile, rows, sizes, reciprocals, PLAN)
    y = y * STEP + phase_y
    x = x * STEP + phase_x
    owned &= (y < output_height) & (x < output_width)
    at, stored = output_of_product((image, y, x, owned), pair, (output_height, output_width), PLAN)
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
    PLAN: tl.constexpr,
):
    """Sums over every `splits`-th tile of cells, `(splits, D, k k maps, maps of the output)`, for the caller to add."""
    TERMS: tl.constexpr = PLAN.kernel * PLAN.kernel * PLAN.source.number
    CHUNKS: tl.constexpr = (TERMS + PLAN.chunk - 1) // PLAN.chunk
    program = tl.program_id(0)
    first_term = (program % CHUNKS) * PLAN.chunk
    program //= CHUNKS
    first_channel = (program % PLAN.groups) * PLAN.channels
    split = program // PLAN.groups
    # As in `convolve`.
    entry = tl.arange(0, PLAN.chunk * PLAN.cells)
    term = (first_term + entry // PLAN.cells)[:, None]
    row = term // PLAN.source.number // PLAN.kernel
    column = term // PLAN.source.number % PLAN.kernel
    channel = first_channel + tl.arange(0, PLAN.channels)[None, :]
    onward = (row * width + column) * PLAN.source.pixel + (term % PLAN.source.number) * PLAN.source.map
    onward += channel * PLAN.source.channel
    used = (term < TERMS) & (channel < PLAN.size)
    pair = first_channel + PLAN.paired * tl.arange(0, PLAN.pairs)[:, None, None]
    summed = tl.full((PLAN.pairs, PLAN.chunk * PLAN.paired, PLAN.paired * PLAN.padded_maps), 0.0, tl.float32)
    sizes = output_height, output_width
    reciprocals = x_multiplier, x_shift, y_multiplier, y_shift
    for tile in range(split, tiles, splits):
        image, y, x, owned = cells_of_batch(entry % PLAN.cells, tile, rows, sizes, reciprocals, PLAN)
        y = y * PLAN.stride - PLAN.kernel // 2
        x = x * PLAN.stride - PLAN.kernel // 2
        at = (((image * height + y) * width + x) * PLAN.source.pixel)[:, None] + onward
        y = tl.where(owned, y, NOWHERE)
        found = on_map(y[:, None] + row, x[:, None] + column, height, width) & used
        values = pair_channels(tl.load(source + at, mask=found, other=0.0), PLAN)
        values = tl.reshape(tl.permute(values, (0, 2, 3, 1)), (PLAN.pairs, PLAN.chunk * PLAN.paired, PLAN.cells))
        cells = cells_of_batch(tl.arange(0, PLAN.cells), tile, rows, sizes, reciprocals, PLAN)
        at, found = output_of_product(cells, pair, sizes, PLAN)
        gradients = tl.load(output_gradient + at, mask=found, other=0.0)
        summed = tl.dot(values, gradients, acc=summed, input_precision=PLAN.precision)
    term = first_term + tl.arange(0, PLAN.chunk * PLAN.paired) // PLAN.paired
    from_channel = tl.arange(0, PLAN.chunk * PLAN.paired) % PLAN.paired
    of_channel = pair + from_channel[None, :, None]
    to_channel, to_map = columns_of_product(PLAN)
    partial += split.to(tl.int64) * (PLAN.size * TERMS * PLAN.output.number)
    at = of_channel * TERMS + term[None, :, None]
    at = at * PLAN.output.number + to_map[None, None, :]
    stored = (of_channel < PLAN.size) & (term < TERMS)[None, :, None] & (to_map < PLAN.output.number)[None, None, :]
    stored &= from_channel[None, :, None] == to_channel[None, None, :]
    tl.store(partial + at, summed, mask=stored)
