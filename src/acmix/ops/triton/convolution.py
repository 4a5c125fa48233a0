"""The convolution path as an implicit matrix product for every channel of a head: taps and maps are its inner axis.

Sources are channels-last: channel d of map m of a cell lies at `pixel * SOURCE_PIXEL + m * SOURCE_MAP + d *
SOURCE_CHANNEL`, and likewise in the output, so that one kernel serves fc, the grouped convolution and both gradients.
"""

import triton
import triton.language as tl


@triton.jit
def pixel_indices(pixel, height, width):
    """Image, row and column of cells counted through the batch."""
    x = pixel % width
    rest = pixel // width
    return rest // height, rest % height, x


@triton.jit
def tapped_axis(cell, tap, size, KERNEL: tl.constexpr, STRIDE: tl.constexpr, TRANSPOSED: tl.constexpr):
    """Cell of the source that `tap` reads for the output's `cell` along an axis, and whether there is one."""
    if TRANSPOSED:
        scaled = cell + KERNEL // 2 - tap
        source = scaled // STRIDE
        found = (scaled >= 0) & (source < size)
        if STRIDE > 1:
            found &= scaled % STRIDE == 0
        return source, found
    source = cell * STRIDE + tap - KERNEL // 2
    return source, (source >= 0) & (source < size)


@triton.jit
def convolve(
    source,
    weight,
    output,
    pixels,
    height,
    width,
    output_height,
    output_width,
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
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Zero-padded convolution with `weight`, `(D, k k MAPS, OUTPUT_MAPS)`, SHARED by all channels if D is 1."""
    GROUPS: tl.constexpr = (SIZE + CHANNELS - 1) // CHANNELS
    TERMS: tl.constexpr = KERNEL * KERNEL * MAPS
    program = tl.program_id(0)
    channel = (program % GROUPS) * CHANNELS + tl.arange(0, CHANNELS)
    pixel = (program // GROUPS) * PIXELS + tl.arange(0, PIXELS)
    image, y, x = pixel_indices(pixel, output_height, output_width)
    map_index = tl.arange(0, PADDED_MAPS)
    summed = tl.zeros((CHANNELS, PIXELS, PADDED_MAPS), tl.float32)
    for first in range(0, TERMS, CHUNK):
        term = first + tl.arange(0, CHUNK)
        tap = term // MAPS
        row, row_found = tapped_axis(y[:, None], (tap // KERNEL)[None, :], height, KERNEL, STRIDE, TRANSPOSED)
        column, column_found = tapped_axis(x[:, None], (tap % KERNEL)[None, :], width, KERNEL, STRIDE, TRANSPOSED)
        found = row_found & column_found & (term < TERMS)[None, :] & (pixel < pixels)[:, None]
        at = ((image[:, None] * height + row) * width + column).to(tl.int64) * SOURCE_PIXEL
        at += ((term % MAPS) * SOURCE_MAP)[None, :]
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
    at = (pixel.to(tl.int64) * OUTPUT_PIXEL)[None, :, None] + (channel * OUTPUT_CHANNEL)[:, None, None]
    at += (map_index * OUTPUT_MAP)[None, None, :]
    stored = (pixel < pixels)[None, :, None] & (channel < SIZE)[:, None, None]
    stored = stored & (map_index < OUTPUT_MAPS)[None, None, :]
    tl.store(output + at, summed.to(output.dtype.element_ty), mask=stored)


@triton.jit
def convolve_weight_gradient(
    source,
    output_gradient,
    partial,
    pixels,
    height,
    width,
    output_height,
    output_width,
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
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Sums over every `splits`-th block of cells, `(splits, D, k k MAPS, OUTPUT_MAPS)`, for the caller to add."""
    GROUPS: tl.constexpr = (SIZE + CHANNELS - 1) // CHANNELS
    TERMS: tl.constexpr = KERNEL * KERNEL * MAPS
    CHUNKS: tl.constexpr = (TERMS + CHUNK - 1) // CHUNK
    program = tl.program_id(0)
    term = (program % CHUNKS) * CHUNK + tl.arange(0, CHUNK)
    program //= CHUNKS
    channel = (program % GROUPS) * CHANNELS + tl.arange(0, CHANNELS)
    split = program // GROUPS
    tap = term // MAPS
    map_index = tl.arange(0, PADDED_MAPS)
    summed = tl.zeros((CHANNELS, CHUNK, PADDED_MAPS), tl.float32)
    for first in range(split * PIXELS, pixels, splits * PIXELS):
        pixel = first + tl.arange(0, PIXELS)
        image, y, x = pixel_indices(pixel, output_height, output_width)
        row, row_found = tapped_axis(y[None, :], (tap // KERNEL)[:, None], height, KERNEL, STRIDE, False)
        column, column_found = tapped_axis(x[None, :], (tap % KERNEL)[:, None], width, KERNEL, STRIDE, False)
        found = row_found & column_found & (term < TERMS)[:, None] & (pixel < pixels)[None, :]
        at = ((image[None, :] * height + row) * width + column).to(tl.int64) * SOURCE_PIXEL
        at += ((term % MAPS) * SOURCE_MAP)[:, None]
        found = found[None, :, :] & (channel < SIZE)[:, None, None]
        values = tl.load(source + at[None, :, :] + (channel * SOURCE_CHANNEL)[:, None, None], mask=found, other=0.0)
        at = (pixel.to(tl.int64) * OUTPUT_PIXEL)[None, :, None] + (channel * OUTPUT_CHANNEL)[:, None, None]
        at += (map_index * OUTPUT_MAP)[None, None, :]
        found = (pixel < pixels)[None, :, None] & (channel < SIZE)[:, None, None]
        found = found & (map_index < OUTPUT_MAPS)[None, None, :]
        gradients = tl.load(output_gradient + at, mask=found, other=0.0)
        summed = tl.dot(values, gradients, acc=summed, input_precision=PRECISION)
    at = ((split * SIZE + channel[:, None, None]) * TERMS + term[None, :, None]) * OUTPUT_MAPS + map_index[
        None, None, :
    ]
    stored = (channel < SIZE)[:, None, None] & (term < TERMS)[None, :, None] & (map_index < OUTPUT_MAPS)[None, None, :]
    tl.store(partial + at, summed, mask=stored)
