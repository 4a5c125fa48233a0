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


@given(
    heads=st.integers(1, 4),
    head_size=st.integers(1, 4),
    kernel=st.sampled_from((1, 3, 5)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    sides=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    rated=st.booleans(),
    last=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_a_bias_of_fc_counts_on_the_map_alone(heads, head_size, kernel, stride, dilation, sides, rated, last, seed):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    projections = normal(2, 3 * heads, head_size, *sides)
    if last:
        projections = projections.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    fc, bias = normal(kernel**2, 3 * heads), normal(kernel**2)
    dep, rate = normal(heads * head_size, kernel**2, kernel, kernel), normal(1)
    mixed = torch.einsum("pc,bcdyx->bdpyx", fc, projections) + bias[:, None, None]
    steps = {"stride": stride, "dilation": dilation}
    expected = functional.conv2d(
        mixed.flatten(1, 2), dep, padding=dilation * (kernel // 2), groups=head_size, **steps
    ) * (rate if rated else 1)
    for backend in ("auto", "portable", "reference"):
        output = ops.shift_conv(
            projections, fc, dep, fc_bias=bias, rate_convolution=rate if rated else None, backend=backend, **steps
        )
        torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
