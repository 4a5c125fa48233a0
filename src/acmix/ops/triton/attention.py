"""The attention path forward: a program computes a tile of queries of some heads, a warp each."""

import triton
import triton.language as tl

from acmix.ops.triton.queries import halo_of_queries, keys_of_chunk, logits_of_keys, queries_of_program
from acmix.ops.triton.tiles import HUGE, LN_2, NEGATIVE, NUMBERS, Sizes, load_vectors, log2_of_sum


@triton.jit
def exponent_factor(largest, SIZE: tl.constexpr):
    """What logits are multiplied by for a power of 2, by the largest of a query.

    Logits are kept in units of q . k: D^-1/2 log2 e then costs nothing in the exponential. The largest times it is
    rounded, which all weights of a query share, so that their sum makes up for it. Of huge logits it would be too much:
    neighbouring numbers are so far apart there that a power of 2, which rounds nothing, serves as well.
    """
    scale: tl.constexpr = SIZE**-0.5 / LN_2
    power: tl.constexpr = 1.0 if SIZE <= 2 else 0.5 if SIZE <= 8 else 0.25 if SIZE <= 33 else 0.125
    return tl.where(tl.abs(largest) < HUGE / scale, scale, power)


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
    PLAN: tl.constexpr,
    POSITIONED: tl.constexpr,
    RATED: tl.constexpr,
    ADDED: tl.constexpr,
    OFFSET: tl.constexpr,
):
    """Softmax over the window, times the rate, plus what is to be added.

    Saves the log-sum-exp in two parts, `(B, 2, N, H', W')`: the largest logit, and the logarithm of the sum in base 2.
    """
    sizes = Sizes(height, width, output_height, output_width, step_y, step_x)
    queries = queries_of_program(sizes, (x_multiplier, x_shift, y_multiplier, y_shift), PLAN)
    image, head = queries.tile.image, queries.head
    y, x, owned = queries.entries
    q = load_vectors(projections + queries.at * (3 * PLAN.channels) + head * PLAN.size, PLAN)
    halo = halo_of_queries(q, queries, projections, position, sizes, PLAN, POSITIONED)
    maximum = tl.full((PLAN.heads, PLAN.cells), NEGATIVE, tl.float32)
    total = tl.full((PLAN.heads, PLAN.cells), 0.0, tl.float32)
    attended = tl.full((PLAN.heads, PLAN.cells, PLAN.padded), 0.0, tl.float32)
    for first in range(0, PLAN.halo_rows, PLAN.chunk_rows):
        keys, row_bias = keys_of_chunk(first, halo, queries, sizes, PLAN)
        k = load_vectors(keys, PLAN)
        logits = logits_of_keys(q, k, row_bias, halo, PLAN)
        larger = tl.maximum(maximum, tl.max(logits, 2))
        factor = exponent_factor(larger, PLAN.size)
        weights = tl.exp2(tl.fma(logits, factor[:, :, None], -(larger * factor)[:, :, None]))
        v = load_vectors(keys + PLAN.channels, PLAN)
        if PLAN.halo_rows > PLAN.chunk_rows:
            shrink = tl.exp2((maximum - larger) * factor)
            total *= shrink
            attended *= shrink[:, :, None]
        total += tl.sum(weights, 2)
        attended = tl.dot(weights.to(v.dtype), v, acc=attended, input_precision=PLAN.precision)
        maximum = larger

    attended *= (1.0 / total)[:, :, None]
    attended = tl.reshape(attended, (PLAN.heads * PLAN.cells, PLAN.padded))
    at_head = ((image * output_height + y) * output_width + x) * PLAN.channels + head * PLAN.size
    channel = tl.arange(0, PLAN.padded)
    pointers = output + at_head[:, None] + channel
    stored = owned[:, None] & (channel < PLAN.size)
    if RATED:
        attended *= tl.load(rate).to(tl.float32)
    if ADDED:
        added = addend + at_head[:, None] + channel
        attended += tl.load(added, mask=stored, other=0.0).to(tl.float32)
    if OFFSET:
        # Numbers of one image may be more than 31 bits count.
        shared = offset - image * output_height * output_width * PLAN.channels + at_head[:, None] + channel
        attended += tl.load(shared, mask=stored, other=0.0).to(tl.float32)
    tl.store(pointers, attended.to(output.dtype.element_ty), mask=stored)
    heads: tl.constexpr = PLAN.groups * PLAN.heads
    largest = log_sum_exp + ((image * (2 * heads) + head) * output_height + y) * output_width + x
    tl.store(largest, tl.reshape(maximum, (PLAN.heads * PLAN.cells,)), mask=owned)
    # What rounding the largest made of the sum is no part of it.
    factor = exponent_factor(maximum, PLAN.size)
    rest = log2_of_sum(total) - tl.fma(maximum, factor, -(maximum * factor))
    plane = heads * tl.cast(output_height, tl.int64) * output_width
    tl.store(largest + plane, tl.reshape(rest, (PLAN.heads * PLAN.cells,)), mask=owned)
