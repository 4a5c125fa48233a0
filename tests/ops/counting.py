"""Multiply-adds of the operator counted one by one, as its equations in DESIGN.md call for them."""

from collections import Counter
from itertools import product


def enumerate_multiply_adds(height, width, *, inputs, channels, heads, window, kernel, stride, composed):
    """What one image costs, by kind; the convolution path with one composed kernel or in two steps."""
    counts = Counter()
    size, positions, maps = channels // heads, kernel * kernel, 3 * heads
    cells = list(product(range(height), range(width)))
    outputs = [(y, x) for y, x in cells if y % stride == 0 and x % stride == 0]

    def count(kind, *axes):
        counts[kind] += sum(1 for _ in product(*(axis if isinstance(axis, list) else range(axis) for axis in axes)))

    count("projection", cells, 3, heads, size, inputs)
    count("queries and keys", outputs, heads, window, window, size)
    count("weights and values", outputs, heads, window, window, size)
    # W_p loc of every cell, then off the keys of every head.
    count("positions", cells, size, 2)
    count("positions", cells, heads, size)
    count("sum", outputs, channels)
    if composed:
        count("composition", size, heads, kernel, kernel, maps, positions)
        count("convolution", outputs, size, heads, kernel, kernel, maps)
    else:
        count("mixing", cells, size, positions, maps)
        count("convolution", outputs, size, heads, kernel, kernel, positions)
    return counts


def enumerate_flops(height, width, *, batch, window=7, kernel=3, stride=1, **sizes):
    """FLOPs of the matrix products of a call with a composed kernel: projection, attention, convolution."""
    sizes |= {"window": window, "kernel": kernel, "stride": stride}
    counts = enumerate_multiply_adds(height, width, composed=True, **sizes)
    attention = counts["queries and keys"] + counts["weights and values"]
    return tuple(2 * batch * count for count in (counts["projection"], attention, counts["convolution"]))
