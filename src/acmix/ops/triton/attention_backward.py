"""The attention path backward: gradients of queries, then of keys and values, each gathered by its own program.

Weights are made again from the projections and the two parts of the saved log-sum-exp. With w the weights, g the
output's gradient and t_ij = g_i . v_j: delta_i = sum_j w_ij t_ij, slope_ij = w_ij (t_ij - delta_i) (DESIGN.md,
identity E5).
"""

import triton
import triton.language as tl

from acmix.ops.triton.queries import (
    halo_of_queries,
    keys_of_chunk,
    logits_of_keys,
    position_columns,
    queries_of_program,
)
from acmix.ops.triton.tiles import (
    LN_2,
    NUMBERS,
    Sizes,
    cells_of_chunk,
    cells_of_tile,
    entries_of_tile,
    heads_of_chunk,
    join_axes,
    load_numbers,
    load_vectors,
    log_count,
    tile_of_program,
)


@triton.jit
def store_vectors(pointers, vectors, owned, PLAN: tl.constexpr):
    """Store vectors `(heads, cells, padded)` of `owned` cells."""
    vectors = tl.reshape(vectors, (PLAN.heads * PLAN.cells, PLAN.padded))
    channel = tl.arange(0, PLAN.padded)
    pointers = pointers[:, None] + channel
    tl.store(pointers, vectors.to(pointers.dtype.element_ty), mask=owned[:, None] & (channel < PLAN.size))


@triton.jit
def softmax_weights(logits, saved, KEYS: tl.constexpr, PLAN: tl.constexpr):
    """Weights by logits and the two parts of the log-sum-exp of their queries, which lack the axis KEYS."""
    largest, rest = saved
    above = (logits - tl.expand_dims(largest, KEYS)) * (PLAN.size**-0.5 / LN_2)
    return tl.exp2(above - tl.expand_dims(rest, KEYS))


@triton.jit
def weigh_chunk(first, q, g, saved, halo, queries, sizes, PLAN: tl.constexpr):
    """Keys of a chunk, their weights w and products g . v, each `(heads, queries, keys)`."""
    keys, row_bias = keys_of_chunk(first, halo, queries, sizes, PLAN)
    k = load_vectors(keys, PLAN)
    v = load_vectors(keys + PLAN.channels, PLAN)
    weights = softmax_weights(logits_of_keys(q, k, row_bias, halo, PLAN), saved, 2, PLAN)
    return k, weights, tl.dot(g, tl.permute(v, (0, 2, 1)), input_precision=PLAN.precision)


@triton.jit
def store_position_gradient(partial, query, moment, PLAN: tl.constexpr):
    """What a program's queries give to a column of W_p."""
    channel = tl.arange(0, PLAN.padded)
    pointers = partial + channel
    summed = tl.sum(tl.sum(query.to(tl.float32) * moment[:, :, None], 1), 0)
    tl.store(pointers, -summed, mask=channel < PLAN.size)


@triton.jit
def first_query(first, size, QUERIES: tl.constexpr, PLAN: tl.constexpr):
    """First query along an axis whose window reaches the tile from cell `first` on; all QUERIES lie on the map."""
    return tl.minimum((tl.maximum(first - PLAN.radius, 0) + PLAN.stride - 1) // PLAN.stride, size - QUERIES)


@triton.jit
def chunk_positions(first, PLAN: tl.constexpr):
    """Column and row of the keys of a chunk, counted from the middle, two of the columns of `(heads, keys, 8)`."""
    cell = tl.arange(0, PLAN.chunk_cells)
    column = cell % PLAN.halo_width - PLAN.halo_width // 2
    row = first + cell // PLAN.halo_width - PLAN.halo_rows // 2
    axis = tl.arange(0, 8)
    positions = tl.where(axis == 0, column[:, None], tl.where(axis == 1, row[:, None], 0))
    return tl.broadcast_to(positions[None, :, :], (PLAN.heads, PLAN.chunk_cells, 8))


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
    PLAN: tl.constexpr,
    POSITIONED: tl.constexpr,
    RATED: tl.constexpr,
):
    """Writes delta, the gradient of the queries, and partial sums of those of W_p, `(., 2, D)`, and of the rate."""
    sizes = Sizes(height, width, output_height, output_width, step_y, step_x)
    queries = queries_of_program(sizes, (x_multiplier, x_shift, y_multiplier, y_shift), PLAN)
    image, head, on_map = queries.tile.image, queries.head, queries.cells.on_map
    y, x, owned = queries.entries
    heads: tl.constexpr = PLAN.groups * PLAN.heads
    at_output = (image * output_height + y) * output_width + x
    at_head = ((image * heads + head) * output_height + y) * output_width + x
    q = load_vectors(projections + queries.at * (3 * PLAN.channels) + head * PLAN.size, PLAN)
    g = load_vectors(output_gradient + at_output * PLAN.channels + head * PLAN.size, PLAN)
    plane = heads * tl.cast(output_height, tl.int64) * output_width
    at_saved = log_sum_exp + at_head + image * plane
    saved = load_numbers(at_saved, PLAN), load_numbers(at_saved + plane, PLAN)
    halo = halo_of_queries(q, queries, projections, position, sizes, PLAN, POSITIONED)

    deltas = tl.full((PLAN.heads, PLAN.cells), 0.0, tl.float32)
    summed = tl.full((PLAN.heads, PLAN.cells, PLAN.padded), 0.0, tl.float32)
    # Sums over keys of slope times position: two columns of a product, the narrowest that there is.
    axis = tl.arange(0, 8)
    moments = tl.full((PLAN.heads, PLAN.cells, 8), 0.0, tl.float32)
    SINGLE: tl.constexpr = PLAN.halo_rows <= PLAN.chunk_rows
    if not SINGLE:
        # With several chunks delta needs a pass of its own: as a difference of two sums the gradient would cancel.
        for first in range(0, PLAN.halo_rows, PLAN.chunk_rows):
            k, weights, products = weigh_chunk(first, q, g, saved, halo, queries, sizes, PLAN)
            deltas += tl.sum(weights * products, 2)
    for first in range(0, PLAN.halo_rows, PLAN.chunk_rows):
        k, weights, products = weigh_chunk(first, q, g, saved, halo, queries, sizes, PLAN)
        if SINGLE:
            deltas = tl.sum(weights * products, 2)
        slopes = (weights * products - weights * deltas[:, :, None]).to(k.dtype)
        summed = tl.dot(slopes, k, acc=summed, input_precision=PLAN.precision)
        if POSITIONED:
            # Slopes sum to zero, so that positions may count from any cell.
            positions = chunk_positions(first, PLAN).to(k.dtype)
            moments = tl.dot(slopes, positions, acc=moments, input_precision=PLAN.precision)

    tl.store(delta + at_head, tl.reshape(deltas, (PLAN.heads * PLAN.cells,)), mask=owned)
    factor = PLAN.size**-0.5
    if RATED:
        factor *= tl.load(rate).to(tl.float32)
        tl.store(rate_partial + tl.program_id(0), tl.sum(tl.sum(tl.where(on_map[None, :], deltas, 0.0), 1), 0))
    if POSITIONED:
        moments *= tl.where(axis == 0, factor * step_x, factor * step_y)
        moments = tl.where(on_map[None, :, None], moments, 0.0)
        moment_x = tl.sum(tl.where(axis == 0, moments, 0.0), 2)
        moment_y = tl.sum(tl.where(axis == 1, moments, 0.0), 2)
        weight_x, weight_y = position_columns(position, PLAN)
        summed = summed * factor - moment_x[:, :, None] * weight_x - moment_y[:, :, None] * weight_y
        partial = position_partial + tl.program_id(0).to(tl.int64) * (2 * PLAN.size)
        store_position_gradient(partial, q, moment_x, PLAN)
        store_position_gradient(partial + PLAN.size, q, moment_y, PLAN)
    else:
        summed *= factor
    store_vectors(gradient + queries.at * (3 * PLAN.channels) + head * PLAN.size, summed, owned, PLAN)


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
    PLAN: tl.constexpr,
    POSITIONED: tl.constexpr,
    RATED: tl.constexpr,
):
    """Writes the gradients of a tile of keys and values, gathered from the queries that see them; no atomics."""
    tile = tile_of_program(height, width, (x_multiplier, x_shift, y_multiplier, y_shift), PLAN)
    cells = cells_of_tile(tile, height, width, PLAN)
    # Reflected windows see the first and last cells alone.
    reflected_y = (tile.y <= PLAN.radius) | (tile.y + PLAN.rows >= height - PLAN.radius)
    reflected_x = (tile.x <= PLAN.radius) | (tile.x + PLAN.columns >= width - PLAN.radius)
    query_y = first_query(tile.y, output_height, PLAN.halo_rows, PLAN)
    query_x = first_query(tile.x, output_width, PLAN.halo_columns, PLAN)

    key_head, entries = entries_of_tile(tile, height, width, PLAN)
    at_key = ((tile.image * height + entries.y) * width + entries.x) * (3 * PLAN.channels) + key_head * PLAN.size
    keys = projections + PLAN.channels + at_key
    k = load_vectors(keys, PLAN)
    v = load_vectors(keys + PLAN.channels, PLAN)
    if POSITIONED:
        # k - W_p loc.
        weight_x, weight_y = position_columns(position, PLAN)
        at_x = (cells.x.to(tl.float32) * step_x - 1.0)[:, None] * weight_x[None, :]
        at_y = (cells.y.to(tl.float32) * step_y - 1.0)[:, None] * weight_y[None, :]
        k = (k.to(tl.float32) - (at_x + at_y)[None, :, :]).to(k.dtype)
    queries_x = (query_x + tl.arange(0, PLAN.halo_width)) * PLAN.stride
    column_bias = log_count(queries_x[None, :], cells.x[:, None], width, reflected_x, PLAN)

    heads: tl.constexpr = PLAN.groups * PLAN.heads
    query_head = heads_of_chunk(PLAN)
    head = tile.head + query_head
    at_query = (tile.image * height + query_y * PLAN.stride) * width + query_x * PLAN.stride
    first_queries = projections + at_query * (3 * PLAN.channels)
    first_output = (tile.image * output_height + query_y) * output_width + query_x
    plane = heads * tl.cast(output_height, tl.int64) * output_width
    first_saved = ((tile.image * heads + tile.head) * output_height + query_y) * output_width + query_x
    key_gradient = tl.full((PLAN.heads, PLAN.cells, PLAN.padded), 0.0, tl.float32)
    value_gradient = tl.full((PLAN.heads, PLAN.cells, PLAN.padded), 0.0, tl.float32)
    for first in range(0, PLAN.halo_rows, PLAN.chunk_rows):
        queries_y = (query_y + first + tl.arange(0, PLAN.chunk_rows)) * PLAN.stride
        row_bias = log_count(queries_y[None, :], cells.y[:, None], height, reflected_y, PLAN)
        cell = cells_of_chunk(first, width, PLAN) * PLAN.stride
        q = load_vectors(first_queries + cell * (3 * PLAN.channels) + head * PLAN.size, PLAN)
        bias = join_axes(row_bias[None, :, :], column_bias[None, :, :])
        logits = tl.broadcast_to(bias, (PLAN.heads, PLAN.cells, PLAN.chunk_cells))
        logits = tl.dot(k, tl.permute(q, (0, 2, 1)), acc=logits, input_precision=PLAN.precision)
        cell = cells_of_chunk(first, output_width, PLAN)
        at_delta = first_saved + query_head.to(tl.int64) * output_height * output_width + cell
        at_saved = log_sum_exp + at_delta + tile.image * plane
        saved = load_numbers(at_saved, PLAN), load_numbers(at_saved + plane, PLAN)
        weights = softmax_weights(logits, saved, 1, PLAN)
        at_output = first_output * PLAN.channels + cell * PLAN.channels + head * PLAN.size
        g = load_vectors(output_gradient + at_output, PLAN)
        value_gradient = tl.dot(weights.to(g.dtype), g, acc=value_gradient, input_precision=PLAN.precision)
        deltas = load_numbers(delta + at_delta, PLAN)
        below = tl.broadcast_to(-deltas[:, None, :], (PLAN.heads, PLAN.cells, PLAN.chunk_cells))
        slopes = weights * tl.dot(v, tl.permute(g, (0, 2, 1)), acc=below, input_precision=PLAN.precision)
        key_gradient = tl.dot(slopes.to(q.dtype), q, acc=key_gradient, input_precision=PLAN.precision)

    key_gradient *= PLAN.size**-0.5
    if RATED:
        alpha = tl.load(rate).to(tl.float32)
        key_gradient *= alpha
        value_gradient *= alpha
    pointers = gradient + PLAN.channels + at_key
    store_vectors(pointers, key_gradient, entries.on_map, PLAN)
    store_vectors(pointers + PLAN.channels, value_gradient, entries.on_map, PLAN)
