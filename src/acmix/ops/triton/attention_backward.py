"""The attention path backward: gradients of queries, then of keys and values, each gathered by its own program.

Weights are made again from the projections and the two parts of the saved log-sum-exp. With w the weights, g the
output's gradient and t_ij = g_i . v_j: delta_i = sum_j w_ij t_ij, slope_ij = w_ij (t_ij - delta_i) (DESIGN.md,
identity E5).
"""

import triton
import triton.language as tl

from acmix.ops.triton.attention import axis_bias, position_columns, position_products
from acmix.ops.triton.tiles import (
    LN_2,
    NUMBERS,
    cells_of_tile,
    chunk_offsets,
    first_key,
    join_axes,
    load_vectors,
    log_count,
    tile_of_program,
)


@triton.jit
def store_vectors(pointers, vectors, owned, SIZE: tl.constexpr):
    """Store vectors `(heads, cells, PADDED)` of `owned` cells."""
    PADDED: tl.constexpr = vectors.shape[2]
    vectors = tl.reshape(vectors, (vectors.shape[0] * vectors.shape[1], PADDED))
    channel = tl.arange(0, PADDED)
    pointers = pointers[:, None] + channel
    tl.store(pointers, vectors.to(pointers.dtype.element_ty), mask=owned[:, None] & (channel < SIZE))


@triton.jit
def recompute(q, k, v, g, row_bias, column_bias, largest, rest, SIZE: tl.constexpr, PRECISION: tl.constexpr):
    """Weights w of a chunk of keys and products g . v, each `(heads, queries, keys)`."""
    bias = join_axes(row_bias, column_bias)
    logits = tl.dot(q, tl.permute(k, (0, 2, 1)), acc=bias, input_precision=PRECISION)
    weights = tl.exp2((logits - largest[:, :, None]) * (SIZE**-0.5 / LN_2) - rest[:, :, None])
    return weights, tl.dot(g, tl.permute(v, (0, 2, 1)), input_precision=PRECISION)


@triton.jit
def store_position_gradient(partial, query, moment, SIZE: tl.constexpr):
    """What a program's queries give to a column of W_p."""
    channel = tl.arange(0, query.shape[2])
    tl.store(partial + channel, -tl.sum(tl.sum(query.to(tl.float32) * moment[:, :, None], 1), 0), mask=channel < SIZE)


@triton.jit
def chunk_positions(first, HEADS: tl.constexpr, LENGTH: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    """Column and row of the keys of a chunk, counted from the middle, in two of the columns of `(HEADS, LENGTH, 8)`."""
    cell = tl.arange(0, LENGTH)
    column = cell % WIDTH - WIDTH // 2
    row = first + cell // WIDTH - ROWS // 2
    axis = tl.arange(0, 8)
    positions = tl.where(axis == 0, column[:, None], tl.where(axis == 1, row[:, None], 0))
    return tl.broadcast_to(positions[None, :, :], (HEADS, LENGTH, 8))


@triton.jit(do_not_specialize=NUMBERS)
def attention_query_gradient(
    projections,
    position,
    rate,
    output_gradient,
    log_sum_exp,
    delta,
    gradient,
    position_partial,
    rate_partial,
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
    PRECISION: tl.constexpr,
):
    """Writes delta, the gradient of the queries, and partial sums of those of W_p, `(., 2, D)`, and of the rate."""
    batch, tile_y, tile_x, first_head = tile_of_program(
        output_height, output_width, x_multiplier, x_shift, y_multiplier, y_shift, GROUPS, HEADS, ROWS, COLUMNS
    )
    QUERIES: tl.constexpr = ROWS * COLUMNS
    y, x, on_map = cells_of_tile(tl.arange(0, QUERIES), tile_y, tile_x, output_height, output_width, COLUMNS)
    SPAN_Y: tl.constexpr = (ROWS - 1) * STRIDE + 2 * RADIUS + 1
    SPAN_X: tl.constexpr = (COLUMNS - 1) * STRIDE + 2 * RADIUS + 1
    key_y, border_y = first_key(tile_y * STRIDE, height, SPAN_Y, KEY_ROWS, RADIUS)
    key_x, border_x = first_key(tile_x * STRIDE, width, SPAN_X, KEY_COLUMNS, RADIUS)

    channels: tl.constexpr = GROUPS * HEADS * SIZE
    entry = tl.arange(0, HEADS * QUERIES)
    head = first_head + entry // QUERIES
    entry_y, entry_x, owned = cells_of_tile(entry % QUERIES, tile_y, tile_x, output_height, output_width, COLUMNS)
    at_query = (batch * height + entry_y * STRIDE) * width + entry_x * STRIDE
    at_output = (batch * output_height + entry_y) * output_width + entry_x
    at_head = ((batch * (GROUPS * HEADS) + head) * output_height + entry_y) * output_width + entry_x
    q = load_vectors(projections + at_query * (3 * channels) + head * SIZE, HEADS, SIZE, PADDED)
    g = load_vectors(output_gradient + at_output * channels + head * SIZE, HEADS, SIZE, PADDED)
    plane = GROUPS * HEADS * tl.cast(output_height, tl.int64) * output_width
    saved = log_sum_exp + at_head + batch * plane
    largest = tl.reshape(tl.load(saved), (HEADS, QUERIES))
    rest = tl.reshape(tl.load(saved + plane), (HEADS, QUERIES))
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

    deltas = tl.zeros((HEADS, QUERIES), tl.float32)
    summed = tl.zeros((HEADS, QUERIES, PADDED), tl.float32)
    # Sums over keys of slope times position: two columns of a product, the narrowest that there is.
    axis = tl.arange(0, 8)
    moments = tl.zeros((HEADS, QUERIES, 8), tl.float32)
    SINGLE: tl.constexpr = KEY_ROWS <= CHUNK_ROWS
    if not SINGLE:
        # With several chunks delta needs a pass of its own: as a difference of two sums the gradient would cancel.
        for first in range(0, KEY_ROWS, CHUNK_ROWS):
            rows = key_y + first + tl.arange(0, CHUNK_ROWS)
            row_bias = axis_bias(y * STRIDE, rows, product_y, height, step_y, border_y, SIZE, RADIUS, REPEATED)
            offset = chunk_offsets(key % LENGTH, first, width, KEY_WIDTH, KEY_ROWS, KEY_COLUMNS) * (3 * channels)
            keys = first_keys + offset + (first_head + key // LENGTH) * SIZE
            k = load_vectors(keys, HEADS, SIZE, PADDED)
            v = load_vectors(keys + channels, HEADS, SIZE, PADDED)
            weights, products = recompute(q, k, v, g, row_bias, column_bias, largest, rest, SIZE, PRECISION)
            deltas += tl.sum(weights * products, 2)
    for first in range(0, KEY_ROWS, CHUNK_ROWS):
        rows = key_y + first + tl.arange(0, CHUNK_ROWS)
        row_bias = axis_bias(y * STRIDE, rows, product_y, height, step_y, border_y, SIZE, RADIUS, REPEATED)
        offset = chunk_offsets(key % LENGTH, first, width, KEY_WIDTH, KEY_ROWS, KEY_COLUMNS) * (3 * channels)
        keys = first_keys + offset + (first_head + key // LENGTH) * SIZE
        k = load_vectors(keys, HEADS, SIZE, PADDED)
        v = load_vectors(keys + channels, HEADS, SIZE, PADDED)
        weights, products = recompute(q, k, v, g, row_bias, column_bias, largest, rest, SIZE, PRECISION)
        if SINGLE:
            deltas = tl.sum(weights * products, 2)
        slopes = (weights * products - weights * deltas[:, :, None]).to(k.dtype)
        summed = tl.dot(slopes, k, acc=summed, input_precision=PRECISION)
        if POSITIONED:
            # Slopes sum to zero, so that positions may count from any cell.
            positions = chunk_positions(first, HEADS, LENGTH, KEY_WIDTH, KEY_ROWS).to(k.dtype)
            moments = tl.dot(slopes, positions, acc=moments, input_precision=PRECISION)

    tl.store(delta + at_head, tl.reshape(deltas, (HEADS * QUERIES,)), mask=owned)
    factor = SIZE**-0.5
    if RATED:
        factor *= tl.load(rate).to(tl.float32)
        tl.store(rate_partial + tl.program_id(0), tl.sum(tl.sum(tl.where(on_map[None, :], deltas, 0.0), 1), 0))
    if POSITIONED:
        moments *= tl.where(axis == 0, factor * step_x, factor * step_y)
        moments = tl.where(on_map[None, :, None], moments, 0.0)
        moment_x = tl.sum(tl.where(axis == 0, moments, 0.0), 2)
        moment_y = tl.sum(tl.where(axis == 1, moments, 0.0), 2)
        weight_x, weight_y = position_columns(position, SIZE, PADDED)
        summed = summed * factor - moment_x[:, :, None] * weight_x - moment_y[:, :, None] * weight_y
        partial = position_partial + tl.program_id(0).to(tl.int64) * (2 * SIZE)
        store_position_gradient(partial, q, moment_x, SIZE)
        store_position_gradient(partial + SIZE, q, moment_y, SIZE)
    else:
        summed *= factor
    store_vectors(gradient + at_query * (3 * channels) + head * SIZE, summed, owned, SIZE)


@triton.jit(do_not_specialize=NUMBERS)
def attention_key_gradient(
    projections,
    position,
    rate,
    output_gradient,
    log_sum_exp,
    delta,
    gradient,
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
    QUERY_ROWS: tl.constexpr,
    QUERY_COLUMNS: tl.constexpr,
    QUERY_WIDTH: tl.constexpr,
    CHUNK_ROWS: tl.constexpr,
    REPEATED: tl.constexpr,
    POSITIONED: tl.constexpr,
    RATED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Writes the gradients of a tile of keys and values, gathered from the queries that see them; no atomics."""
    batch, tile_y, tile_x, first_head = tile_of_program(
        height, width, x_multiplier, x_shift, y_multiplier, y_shift, GROUPS, HEADS, ROWS, COLUMNS
    )
    KEYS: tl.constexpr = ROWS * COLUMNS
    y, x, _ = cells_of_tile(tl.arange(0, KEYS), tile_y, tile_x, height, width, COLUMNS)
    # Reflected windows see the first and last RADIUS cells alone.
    border_y = (tile_y <= RADIUS) | (tile_y + ROWS >= height - RADIUS)
    border_x = (tile_x <= RADIUS) | (tile_x + COLUMNS >= width - RADIUS)
    # The first query whose window reaches the tile; all queries of the chunks lie on the map.
    query_y = tl.minimum((tl.maximum(tile_y - RADIUS, 0) + STRIDE - 1) // STRIDE, output_height - QUERY_ROWS)
    query_x = tl.minimum((tl.maximum(tile_x - RADIUS, 0) + STRIDE - 1) // STRIDE, output_width - QUERY_COLUMNS)

    channels: tl.constexpr = GROUPS * HEADS * SIZE
    entry = tl.arange(0, HEADS * KEYS)
    entry_y, entry_x, owned = cells_of_tile(entry % KEYS, tile_y, tile_x, height, width, COLUMNS)
    at_key = ((batch * height + entry_y) * width + entry_x) * (3 * channels) + (first_head + entry // KEYS) * SIZE
    keys = projections + channels + at_key
    k = load_vectors(keys, HEADS, SIZE, PADDED)
    v = load_vectors(keys + channels, HEADS, SIZE, PADDED)
    if POSITIONED:
        # k - W_p loc.
        weight_x, weight_y = position_columns(position, SIZE, PADDED)
        at_x = (x.to(tl.float32) * step_x - 1.0)[:, None] * weight_x[None, :]
        at_y = (y.to(tl.float32) * step_y - 1.0)[:, None] * weight_y[None, :]
        k = (k.to(tl.float32) - (at_x + at_y)[None, :, :]).to(k.dtype)
    queries_x = (query_x + tl.arange(0, QUERY_WIDTH)) * STRIDE
    column_bias = log_count(queries_x[None, :], x[:, None], width, border_x, SIZE, RADIUS, REPEATED)

    LENGTH: tl.constexpr = CHUNK_ROWS * QUERY_WIDTH
    query = tl.arange(0, HEADS * LENGTH)
    head = first_head + query // LENGTH
    first_queries = projections + ((batch * height + query_y * STRIDE) * width + query_x * STRIDE) * (3 * channels)
    first_output = (batch * output_height + query_y) * output_width + query_x
    plane = GROUPS * HEADS * tl.cast(output_height, tl.int64) * output_width
    first_saved = ((batch * (GROUPS * HEADS) + first_head) * output_height + query_y) * output_width + query_x
    key_gradient = tl.zeros((HEADS, KEYS, PADDED), tl.float32)
    value_gradient = tl.zeros((HEADS, KEYS, PADDED), tl.float32)
    for first in range(0, QUERY_ROWS, CHUNK_ROWS):
        queries_y = (query_y + first + tl.arange(0, CHUNK_ROWS)) * STRIDE
        row_bias = log_count(queries_y[None, :], y[:, None], height, border_y, SIZE, RADIUS, REPEATED)
        cell = query % LENGTH
        offset = chunk_offsets(cell, first, width, QUERY_WIDTH, QUERY_ROWS, QUERY_COLUMNS) * STRIDE * (3 * channels)
        q = load_vectors(first_queries + offset + head * SIZE, HEADS, SIZE, PADDED)
        bias = join_axes(row_bias[None, :, :], column_bias[None, :, :])
        logits = tl.broadcast_to(bias, (HEADS, KEYS, LENGTH))
        logits = tl.dot(k, tl.permute(q, (0, 2, 1)), acc=logits, input_precision=PRECISION)
        offset = chunk_offsets(cell, first, output_width, QUERY_WIDTH, QUERY_ROWS, QUERY_COLUMNS)
        at_head = first_saved + (query // LENGTH).to(tl.int64) * output_height * output_width + offset
        saved = log_sum_exp + at_head + batch * plane
        largest = tl.reshape(tl.load(saved), (HEADS, LENGTH))
        rest = tl.reshape(tl.load(saved + plane), (HEADS, LENGTH))
        weights = tl.exp2((logits - largest[:, None, :]) * (SIZE**-0.5 / LN_2) - rest[:, None, :])
        at_output = first_output * channels + offset * channels + head * SIZE
        g = load_vectors(output_gradient + at_output, HEADS, SIZE, PADDED)
        value_gradient = tl.dot(weights.to(g.dtype), g, acc=value_gradient, input_precision=PRECISION)
        deltas = tl.reshape(tl.load(delta + at_head), (HEADS, LENGTH))
        below = tl.broadcast_to(-deltas[:, None, :], (HEADS, KEYS, LENGTH))
        slopes = weights * tl.dot(v, tl.permute(g, (0, 2, 1)), acc=below, input_precision=PRECISION)
        key_gradient = tl.dot(slopes.to(q.dtype), q, acc=key_gradient, input_precision=PRECISION)

    key_gradient *= SIZE**-0.5
    if RATED:
        alpha = tl.load(rate).to(tl.float32)
        key_gradient *= alpha
        value_gradient *= alpha
    pointers = gradient + channels + at_key
    store_vectors(pointers, key_gradient, owned, SIZE)
    store_vectors(pointers + channels, value_gradient, owned, SIZE)
