"""Three linear stages as one dense convolution of the input (identity E4), in float64 against the definition."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from acmix import ops
from acmix.ops.composition import compose_all
from acmix.ops.contract import Convolution, Projection


@given(
    heads=st.integers(1, 6),
    head_size=st.integers(1, 5),
    inputs=st.integers(1, 7),
    kernel=st.sampled_from((1, 3, 5)),
    stride=st.integers(1, 3),
    sides=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    biased=st.booleans(),
    mixed=st.booleans(),
    rated=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_one_dense_convolution_is_the_convolution_path(
    heads, head_size, inputs, kernel, stride, sides, biased, mixed, rated, seed
):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    maps, positions = 3 * heads, kernel**2 if mixed else 3 * heads
    x = normal(2, inputs, *sides)
    projection = Projection(normal(maps * head_size, inputs, 1, 1), normal(maps * head_size) if biased else None)
    fc = normal(positions, maps) if mixed else None
    convolution = Convolution(normal(heads * head_size, positions, kernel, kernel), fc, normal(1) if rated else None)
    steps = {"stride": stride, "padding": kernel // 2}
    dense, of_ones = compose_all(projection, heads, convolution)
    assert dense.shape == (heads * head_size, inputs, kernel, kernel)
    output = functional.conv2d(x, dense, **steps)
    if of_ones is not None:
        output = output + functional.conv2d(x.new_ones(1, 1, *sides), of_ones, **steps)
    projections = functional.conv2d(x, *projection).unflatten(1, (maps, head_size))
    expected = ops.shift_conv(projections, fc, convolution.dep, stride=stride, backend="reference")
    expected = expected if convolution.rate is None else convolution.rate * expected
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
    assert (of_ones is None) == (not biased)
