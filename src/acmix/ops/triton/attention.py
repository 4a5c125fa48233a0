"""The attention path forward: a program computes a tile of queries of HEADS heads, a warp each."""

import triton
import triton.language as tl

from acmix.ops.triton.tiles import (
    HUGE,
    LN_2,
    NEGATIVE,
    NUMBERS,
    cells_of_tile,
    chunk_offsets,
    first_key,
    join_axes,
    load_vectors,
    log2_of_sum,
    log_count,
    tile_of_program,
)


@triton.jit
def position_columns(position, SIZE: tl.constexpr, PADDED: tl.constexpr):
    """W_p's column of x and that of y, each `(PADDED,)`, zeros beyond SIZE."""
    channel = tl.arange(0, PADDED)[:, None]
    pairs = tl.load(position + 2 * channel + tl.arange(0, 2)[None, :], mask=channel < SIZE, other=0.0)
    return tl.split(pairs)


@triton.jit
def position_products(query, position, SIZE: tl.constexpr, PADDED: tl.constexpr):
    """q . W_p, the column of x and that of y, each `(heads, queries)`."""
    x, y = position_columns(position, SIZE, PADDED)
    wide = query.to(tl.float32)
    return tl.sum(wide * x, 2), tl.sum(wide * y, 2)


@triton.jit
def axis_bias(
    query, key, product, size, step, border, SIZE: tl.constexpr, RADIUS: tl.constexpr, REPEATED: tl.constexpr
):
    """What window and position add to a logit along one axis, `(heads, queries, keys)`, in units of q . k."""
    bias = log_count(query[:, None], key[None, :], size, border, SIZE, RADIUS, REPEATED)
    return bias[None, :, :] - product[:, :, None] * (key.to(tl.float32) * step - 1.0)[None, None, :]


@triton.jit(do_not_specialize=NUMBERS)
def attention_forward(
    projections,
    position,
    rate,
    addend,
    offset,
    output,
    log_sum_exp,
    height,
    width,
    output_height,
    output_width,
    step_y,
    step_x,
    x_multiplier,
    x_shift,
    y_multiplier,
    y_shift,
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    STRIDE: tl.constexpr,
    RADIUS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    KEY_ROWS: tl.constexpr,
    KEY_COLUMNS: tl.constexpr,
    KEY_WIDTH: tl.constexpr,
    CHUNK_ROWS: tl.constexpr,
    REPEATED: tl.constexpr,
    POSITIONED: tl.constexpr,
    RATED: tl.constexpr,
    ADDED: tl.constexpr,
    OFFSET: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Softmax over the window, times the rate, plus what is to be added.

    Logits are kept in units of q . k: D^-1/2 log2 e then costs nothing in the exponential. The largest times it is
    rounded, which all weights of a query share, so that their sum makes up for it. Of huge logits it would be too much:
    neighbouring numbers are so far apart there that a power of 2, which rounds nothing, serves as well. Saves the
    log-sum-exp in two parts, `(B, 2, N, H', W')`: the largest logit, and the logarithm of the sum in base 2.
    """
    scale: tl.constexpr = SIZE**-0.5 / LN_2
    power: tl.constexpr = 1.0 if SIZE <= 2 else 0.5 if SIZE <= 8 else 0.25 if SIZE <= 33 else 0.125
    batch, tile_y, tile_x, first_head = tile_of_program(
        output_height, output_width, x_multiplier, x_shift, y_multiplier, y_shift, GROUPS, HEADS, ROWS, COLUMNS
    )
    QUERIES: tl.constexpr = ROWS * COLUMNS
    y, x, _ = cells_of_tile(tl.arange(0, QUERIES), tile_y, tile_x, output_height, output_width, COLUMNS)
    SPAN_Y: tl.constexpr = (ROWS - 1) * STRIDE + 2 * RADIUS + 1
    SPAN_X: tl.constexpr = (COLUMNS - 1) * STRIDE + 2 * RADIUS + 1
    key_y, border_y = first_key(tile_y * STRIDE, height, SPAN_Y, KEY_ROWS, RADIUS)
    key_x, border_x = first_key(tile_x * STRIDE, width, SPAN_X, KEY_COLUMNS, RADIUS)

    channels: tl.constexpr = GROUPS * HEADS * SIZE
    entry = tl.arange(0, HEADS * QUERIES)
    head = first_head + entry // QUERIES
    entry_y, entry_x, owned = cells_of_tile(entry % QUERIES, tile_y, tile_x, output_height, output_width, COLUMNS)
    at_query = (batch * height + entry_y * STRIDE) * width + entry_x * STRIDE
    q = load_vectors(projections + at_query * (3 * channels) + head * SIZE, HEADS, SIZE, PADDED)
    if POSITIONED:
        product_x, product_y = position_products(q, position, SIZE, PADDED)
    else:
        product_x = tl.zeros((HEADS, QUERIES), tl.float32)
        product_y = product_x
    columns = key_x + tl.arange(0, KEY_WIDTH)
    column_bias = axis_bias(x * STRIDE, columns, product_x, width, step_x, border_x, SIZE, RADIUS, REPEATED)

    LENGTH: tl.constexpr = CHUNK_ROWS * KEY_WIDTH
    key = tl.arange(0, HEADS * LENGTH)
    first_keys = projections + channels + ((batch * height + key_y) * width + key_x) * (3 * channels)
    maximum = tl.full((HEADS, QUERIES), NEGATIVE, tl.float32)
    total = tl.zeros((HEADS, QUERIES), tl.float32)
    attended = tl.zeros((HEADS, QUERIES, PADDED), tl.float32)
    for first in range(0, KEY_ROWS, CHUNK_ROWS):
        rows = key_y + first + tl.arange(0, CHUNK_ROWS)
        row_bias = axis_bias(y * STRIDE, rows, product_y, height, step_y, border_y, SIZE, RADIUS, REPEATED)
        at_chunk = chunk_offsets(key % LENGTH, first, width, KEY_WIDTH, KEY_ROWS, KEY_COLUMNS) * (3 * channels)
        keys = first_keys + at_chunk + (first_head + key // LENGTH) * SIZE
        k = load_vectors(keys, HEADS, SIZE, PADDED)
        bias = join_axes(row_bias, column_bias)
        logits = tl.dot(q, tl.permute(k, (0, 2, 1)), acc=bias, input_precision=PRECISION)
        larger = tl.maximum(maximum, tl.max(logits, 2))
        factor = tl.where(tl.abs(larger) < HUGE / scale, scale, power)
        weights = tl.exp2(tl.fma(logits, factor[:, :, None], -(larger * factor)[:, :, None]))
        v = load_vectors(keys + channels, HEADS, SIZE, PADDED)
        if KEY_ROWS > CHUNK_ROWS:
            shrink = tl.exp2((maximum - larger) * factor)
            total *= shrink
            attended *= shrink[:, :, None]
        total += tl.sum(weights, 2)
        attended = tl.dot(weights.to(v.dtype), v, acc=attended, input_precision=PRECISION)
        maximum = larger

    attended *= (1.0 / total)[:, :, None]
    attended = tl.reshape(attended, (HEADS * QUERIES, PADDED))
    at_head = ((batch * output_height + entry_y) * output_width + entry_x) * channels + head * SIZE
    channel = tl.arange(0, PADDED)
    pointers = output + at_head[:, None] + channel
    stored = owned[:, None] & (channel < SIZE)
    if RATED:
        attended *= tl.load(rate).to(tl.float32)
    if ADDED:
        added = addend + at_head[:, None] + channel
        attended += tl.load(added, mask=stored, other=0.0).to(tl.float32)
    if OFFSET:
        shared = offset + ((entry_y * output_width + entry_x) * channels + head * SIZE)[:, None] + channel
        attended += tl.load(shared, mask=stored, other=0.0).to(tl.float32)
    tl.store(pointers, attended.to(output.dtype.element_ty), mask=stored)
    heads: tl.constexpr = GROUPS * HEADS
    largest = log_sum_exp + ((batch * (2 * heads) + head) * output_height + entry_y) * output_width + entry_x
    tl.store(largest, tl.reshape(maximum, (HEADS * QUERIES,)), mask=owned)
    # What rounding the largest made of the sum is no part of it.
    factor = tl.where(tl.abs(maximum) < HUGE / scale, scale, power)
    rest = log2_of_sum(total) - tl.fma(maximum, factor, -(maximum * factor))
    tl.store(
        largest + heads * tl.cast(output_height, tl.int64) * output_width,
        tl.reshape(rest, (HEADS * QUERIES,)),
        mask=owned,
    )
