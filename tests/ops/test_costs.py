"""Multiply-adds against a count one by one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from acmix.ops import costs
from tests.ops.counting import enumerate_multiply_adds

sides, odd = st.integers(1, 6), st.sampled_from([1, 3, 5])


@settings(max_examples=40, deadline=None)
@given(sides, sides, st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), odd, odd, st.integers(1, 3))
def test_stages_are_what_a_count_gives(height, width, inputs, size, heads, window, kernel, stride):
    sizes = {"inputs": inputs, "channels": size * heads, "heads": heads}
    sizes |= {"window": window, "kernel": kernel, "stride": stride}
    ways = [enumerate_multiply_adds(height, width, composed=composed, **sizes) for composed in (True, False)]
    # Cheaper for a cell of a large map: without the composition, which is done once.
    one, two = (enumerate_multiply_adds(1, 1, composed=composed, **sizes) for composed in (True, False))
    count = ways[0 if one["convolution"] <= two["mixing"] + two["convolution"] else 1]
    assert costs.stages(height, width, **sizes) == {
        "projection": count["projection"],
        "attention": count["queries and keys"] + count["weights and values"] + count["positions"] + count["sum"],
        "convolution": count["composition"] + count["mixing"] + count["convolution"],
    }


@given(sides, sides, odd, st.integers(1, 3))
def test_pairs_on_the_map_are_what_a_count_gives(height, width, window, stride):
    cells = [(y, x) for y in range(height) for x in range(width)]
    near = [
        abs(query[0] - key[0]) <= window // 2 and abs(query[1] - key[1]) <= window // 2
        for query in cells
        for key in cells
        if query[0] % stride == query[1] % stride == 0
    ]
    assert costs.pairs_on_map(height, width, window, stride) == sum(near)
