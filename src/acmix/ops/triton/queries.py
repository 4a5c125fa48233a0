"""Queries of a program, which walk over their halo of keys: what forward and the gradient of the queries share."""

from typing import NamedTuple

import triton
import triton.language as tl

from acmix.ops.triton.tiles import (
    Cells,
    Keys,
    Tile,
    cells_of_chunk,
    cells_of_tile,
    entries_of_tile,
    heads_of_chunk,
    join_axes,
    keys_of_axis,
    log_count,
    tile_of_program,
)


@triton.jit
def position_columns(position, PLAN: tl.constexpr):
    """W_p's column of x and that of y, each `(padded,)`, zeros beyond D."""
    channel = tl.arange(0, PLAN.padded)[:, None]
    pairs = tl.load(position + 2 * channel + tl.arange(0, 2)[None, :], mask=channel < PLAN.size, other=0.0)
    return tl.split(pairs)


@triton.jit
def position_products(query, position, PLAN: tl.constexpr, POSITIONED: tl.constexpr):
    """q . W_p, the column of x and that of y, each `(heads, queries)`; zeros without W_p."""
    if POSITIONED:
        x, y = position_columns(position, PLAN)
        wide = query.to(tl.float32)
        product_x, product_y = tl.sum(wide * x, 2), tl.sum(wide * y, 2)
    else:
        product_x = tl.full((PLAN.heads, PLAN.cells), 0.0, tl.float32)
        product_y = product_x
    return product_x, product_y


@triton.jit
def axis_bias(query, key, product, size, step, reflected, PLAN: tl.constexpr):
    """What window and position add to a logit along one axis, `(heads, queries, keys)`, in units of q . k."""
    bias = log_count(query[:, None], key[None, :], size, reflected, PLAN)
    return bias[None, :, :] - product[:, :, None] * (key.to(tl.float32) * step - 1.0)[None, None, :]


class Queries(NamedTuple):
    """A program's: its tile, heads and cells of its entries and where they lie, cells of the tile, keys along axes."""

    tile: Tile
    head: tl.tensor
    entries: Cells
    at: tl.tensor
    cells: Cells
    keys_y: Keys
    keys_x: Keys


class Halo(NamedTuple):
    """Of keys: a pointer to the first, products of the queries with W_p for y, what columns add to logits."""

    first: tl.tensor
    product_y: tl.tensor
    column_bias: tl.tensor


@triton.jit
def queries_of_program(sizes, reciprocals, PLAN: tl.constexpr):
    """The `Queries` that a program owns; `reciprocals` as `tile_of_program` takes them."""
    tile = tile_of_program(sizes.output_height, sizes.output_width, reciprocals, PLAN)
    cells = cells_of_tile(tile, sizes.output_height, sizes.output_width, PLAN)
    keys_y = keys_of_axis(tile.y * PLAN.stride, sizes.height, PLAN.rows, PLAN.halo_rows, PLAN)
    keys_x = keys_of_axis(tile.x * PLAN.stride, sizes.width, PLAN.columns, PLAN.halo_columns, PLAN)
    head, entries = entries_of_tile(tile, sizes.output_height, sizes.output_width, PLAN)
    at = (tile.image * sizes.height + entries.y * PLAN.stride) * sizes.width + entries.x * PLAN.stride
    return Queries(tile, head, entries, at, cells, keys_y, keys_x)


@triton.jit
def halo_of_queries(q, queries, projections, position, sizes, PLAN: tl.constexpr, POSITIONED: tl.constexpr):
    """The `Halo` of a program's queries, whose vectors are `q`; W_p, `position`, is read if POSITIONED."""
    key_y, key_x = queries.keys_y.first, queries.keys_x.first
    product_x, product_y = position_products(q, position, PLAN, POSITIONED)
    columns = key_x + tl.arange(0, PLAN.halo_width)
    x, reflected = queries.cells.x * PLAN.stride, queries.keys_x.reflected
    column_bias = axis_bias(x, columns, product_x, sizes.width, sizes.step_x, reflected, PLAN)
    keys = projections + PLAN.channels
    keys += ((queries.tile.image * sizes.height + key_y) * sizes.width + key_x) * (3 * PLAN.channels)
    return Halo(keys, product_y, column_bias)


@triton.jit
def keys_of_chunk(first, halo, queries, sizes, PLAN: tl.constexpr):
    """Pointers to the keys of a chunk, and what its rows add to logits, `(heads, queries, chunk_rows)`."""
    rows = queries.keys_y.first + first + tl.arange(0, PLAN.chunk_rows)
    y, reflected = queries.cells.y * PLAN.stride, queries.keys_y.reflected
    row_bias = axis_bias(y, rows, halo.product_y, sizes.height, sizes.step_y, reflected, PLAN)
    at_chunk = cells_of_chunk(first, sizes.width, PLAN) * (3 * PLAN.channels)
    return halo.first + at_chunk + (queries.tile.head + heads_of_chunk(PLAN)) * PLAN.size, row_bias


@triton.jit
def logits_of_keys(q, k, row_bias, halo, PLAN: tl.constexpr):
    """Logits of vectors of queries and a chunk of keys, `(heads, queries, keys)`, in units of q . k."""
    bias = join_axes(row_bias, halo.column_bias)
    return tl.dot(q, tl.permute(k, (0, 2, 1)), acc=bias, input_precision=PLAN.precision)
