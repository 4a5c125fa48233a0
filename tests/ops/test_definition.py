"""The reference against the equations written as loops, so that the specification itself is held by something."""

import itertools
import math

import pytest
import torch

from acmix import ops
from acmix.ops.geometry import output_size, position_map, reflect


def reflected(position, size):
    """Mirror by walking back and forth, the meaning of reflection."""
    if size == 1:
        return 0
    while not 0 <= position < size:
        position = -position if position < 0 else 2 * (size - 1) - position
    return position


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_reflection_mirrors_as_often_as_needed(size):
    positions = torch.arange(-20, 21)
    assert reflect(positions, size).tolist() == [reflected(int(position), size) for position in positions]


@pytest.mark.parametrize(("size", "stride", "expected"), [(1, 1, 1), (7, 2, 4), (8, 2, 4), (1, 3, 1), (10, 3, 4)])
def test_output_size_is_that_of_a_same_convolution(size, stride, expected):
    assert output_size(size, stride) == expected
    assert torch.nn.functional.conv1d(torch.ones(1, 1, size), torch.ones(1, 1, 3), None, stride, 1).shape[2] == expected


def test_position_map_is_linear_in_x_then_y():
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    across, down = position_map(weight, 3, 5)
    assert torch.equal(across, torch.linspace(-1, 1, 5).expand(3, 5))
    assert torch.equal(down, torch.linspace(-1, 1, 3)[:, None].expand(3, 5))
    assert position_map(weight, 1, 1).flatten().tolist() == [-1.0, -1.0]


@pytest.mark.parametrize(("height", "width", "stride", "dilation"), [(3, 5, 1, 1), (4, 3, 2, 1), (2, 6, 1, 2)])
def test_mix_is_the_definition(height, width, stride, dilation):
    heads, head_size, window, kernel = 2, 2, 5, 3
    projections = torch.randn(1, 3 * heads, head_size, height, width, dtype=torch.float64)
    query, key, value = projections.chunk(3, 1)
    weight = torch.randn(head_size, 2, dtype=torch.float64)
    fc = torch.randn(kernel**2, 3 * heads, dtype=torch.float64)
    dep = torch.randn(head_size * heads, kernel**2, kernel, kernel, dtype=torch.float64)
    alpha, beta = torch.tensor([0.7, -0.3], dtype=torch.float64)
    position = position_map(weight, height, width)
    output = torch.zeros(1, heads * head_size, output_size(height, stride), output_size(width, stride)).double()
    for n, d, y, x in itertools.product(range(heads), range(head_size), range(output.shape[2]), range(output.shape[3])):
        i, j = stride * y, stride * x
        cells = [
            (reflected(i + dilation * u, height), reflected(j + dilation * v, width))
            for u, v in itertools.product(range(-2, 3), repeat=2)
        ]
        logits = [
            sum(
                (query[0, n, c, i, j] * (key[0, n, c, a, b] + position[c, i, j] - position[c, a, b])).item()
                for c in range(head_size)
            )
            / math.sqrt(head_size)
            for a, b in cells
        ]
        weights = torch.tensor(logits, dtype=torch.float64).softmax(0)
        attended = sum(w * value[0, n, d, a, b] for w, (a, b) in zip(weights, cells, strict=True))
        output[0, n * head_size + d, y, x] += alpha * attended
        for u, v in itertools.product(range(3), repeat=2):
            a, b = i + dilation * (u - 1), j + dilation * (v - 1)
            if 0 <= a < height and 0 <= b < width:
                output[0, d * heads + n, y, x] += beta * dep[d * heads + n, :, u, v] @ fc @ projections[0, :, d, a, b]
    steps = {"window": window, "stride": stride, "dilation": dilation}
    actual = ops.mix(projections, weight, fc, dep, alpha, beta, **steps, backend="reference")
    torch.testing.assert_close(actual, output, rtol=1e-12, atol=1e-12)


def test_composed_and_two_step_convolutions_agree_at_both_sides_of_the_rule():
    for heads in (4, 5):
        projections = torch.randn(2, 3 * heads, 3, 6, 7, dtype=torch.float64)
        fc = torch.randn(9, 3 * heads, dtype=torch.float64)
        dep = torch.randn(3 * heads, 9, 3, 3, dtype=torch.float64)
        expected = ops.shift_conv(projections, fc, dep, backend="reference")
        torch.testing.assert_close(ops.shift_conv(projections, fc, dep, backend="portable"), expected)


def test_shift_kernels_shift():
    value = torch.randn(1, 1, 1, 4, 5)
    projections = torch.cat((torch.zeros(1, 2, 1, 4, 5), value), 1)
    shifts = torch.eye(9).view(1, 9, 3, 3)
    for position in range(9):
        fc = torch.zeros(9, 3)
        fc[position, 2] = 1
        output = ops.shift_conv(projections, fc, shifts)[0, 0]
        padded = torch.nn.functional.pad(value[0, 0, 0], (1, 1, 1, 1))
        y, x = divmod(position, 3)
        torch.testing.assert_close(output, padded[y : y + 4, x : x + 5])
