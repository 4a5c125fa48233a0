"""Multiply-adds of the operator, counted here for all that count: costs of networks, FLOP formulas, bounds of kernels.

A pair is a cell of the output and a cell that its window, or its kernel, reads. C = N D channels, as in `acmix.ops`.
"""

from typing import Literal

from acmix.ops.geometry import composes_kernels, output_size

Stage = Literal["projection", "attention", "convolution"]


def pairs(height: int, width: int, window: int, stride: int) -> int:
    """Pairs of the definition, in which a reflected cell, or one beyond the map, counts like any other."""
    return window**2 * output_size(height, stride) * output_size(width, stride)


def pairs_on_map(height: int, width: int, window: int, stride: int) -> int:
    """Pairs with the cells of the map that lie in a window, each once: the ones that identity E2 leaves."""
    rows, columns = (
        sum(min(cell + window // 2, size - 1) - max(cell - window // 2, 0) + 1 for cell in range(0, size, stride))
        for size in (height, width)
    )
    return rows * columns


def projection(cells: int, inputs: int, channels: int) -> int:
    """Stage I: queries, keys and values of every cell."""
    return 3 * channels * inputs * cells


def attention_product(pairs: int, channels: int) -> int:
    """One product over all pairs: of queries with keys, or of weights with values."""
    return channels * pairs


def mixing(cells: int, channels: int, positions: int) -> int:
    """fc: from the 3 N maps of every cell and channel of a head to P."""
    return 3 * channels * positions * cells


def convolution(pairs: int, channels: int, maps: int) -> int:
    """A grouped convolution whose outputs read so many maps each: P behind fc, 3 N with a composed kernel."""
    return channels * maps * pairs


def stages(
    height: int, width: int, *, inputs: int, channels: int, heads: int, window: int, kernel: int, stride: int
) -> dict[Stage, int]:
    """Multiply-adds of every stage for one image of height x width cells.

    Positions (W_p loc, taken off every key) and the final sum count to attention, a composition of kernels to the
    convolution. An addition or multiplication by itself is a multiply-add.
    """
    cells, outputs = height * width, output_size(height, stride) * output_size(width, stride)
    seen, positions, maps = pairs(height, width, kernel, stride), kernel**2, 3 * heads
    composed = convolution(seen, channels, maps) + positions**2 * maps * channels
    in_two_steps = mixing(cells, channels, positions) + convolution(seen, channels, positions)
    placed = (2 * (channels // heads) + channels) * cells
    return {
        "projection": projection(cells, inputs, channels),
        "attention": 2 * attention_product(pairs(height, width, window, stride), channels)
        + placed
        + channels * outputs,
        "convolution": composed if composes_kernels(heads, positions, kernel) else in_two_steps,
    }
