"""What a residual block has around the operator, in one call with it: 1x1 convolutions, the shortcut, a ReLU."""

import dataclasses
import importlib
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from acmix.ops import cpu, dispatch
from acmix.ops.contract import Ends, Projection, Tail
from acmix.ops.cpu.arguments import sides_of, stages_of
from tests.numerics import DTYPES, assert_as_exact_as_eager
from tests.ops.problems import Problem, problems
from tests.ops.test_ends import CPU, PROBLEM, arguments_of, calls_of, compiled, define, tensors_of


def layers_of(tensors, problem, head, tail):
    """The input of a 1x1 convolution before the operator and that, and what follows it; each may be left out."""
    generator = torch.Generator().manual_seed(problem.seed + 2)
    x, inputs, channels = tensors[0], tensors[1].shape[1], problem.heads * problem.head_size

    def normal(*shape, scale=1.0):
        return (torch.randn(*shape, generator=generator) * scale).to(problem.dtype)

    def layer(outputs, inputs, has_bias):
        return Projection(normal(outputs, inputs, 1, 1, scale=inputs**-0.5), normal(outputs) if has_bias else None)

    ends = Ends()
    if head:
        x = normal(problem.batch, head, *x.shape[2:]).to(memory_format=torch.channels_last)
        ends = ends._replace(head=layer(inputs, head, problem.seed % 2))
    if tail:
        outputs, added, rectified = tail
        sizes = [-(-size // problem.stride) for size in x.shape[2:]]
        shortcut, downsample = normal(problem.batch, outputs, *sizes) if added else None, None
        if added == "downsampled":
            shortcut = normal(problem.batch, 9, *x.shape[2:]).to(memory_format=torch.channels_last)
            downsample = layer(outputs, 9, problem.seed % 2)
        last = layer(outputs, channels, problem.seed % 3)
        ends = ends._replace(tail=Tail(last, shortcut, downsample, rectified))
    return x, ends


def widened(ends):
    """The same in float64."""

    def wide(value):
        return value.double() if isinstance(value, torch.Tensor) else value

    def layer(given):
        return None if given is None else Projection(*map(wide, given))

    head, tail = layer(ends.head), ends.tail
    if tail is not None:
        tail = Tail(layer(tail.projection), wide(tail.shortcut), layer(tail.downsample), tail.rectified)
    return Ends(ends.rectified_input, wide(ends.bias), ends.rectified, head, tail)


def define_layers(x, tensors, problem, ends, rectified=True):
    """One pass after the other, in the dtype of the tensors."""
    x = x if ends.head is None else torch.nn.functional.conv2d(x, *ends.head)
    output = define((x, *tensors[1:]), problem, ends)
    if ends.tail is not None:
        output = torch.nn.functional.conv2d(output, *ends.tail.projection)
        shortcut, downsample = ends.tail.shortcut, ends.tail.downsample
        if downsample is not None:
            shortcut = torch.nn.functional.conv2d(shortcut, *downsample, stride=problem.stride)
        output = output if shortcut is None else output + shortcut
        output = output.relu() if ends.tail.rectified and rectified else output
    return output


def assert_layers(x, tensors, problem, ends, backend):
    before = [
        each.clone() for each in (x, *([] if ends.tail is None or ends.tail.shortcut is None else [ends.tail[1]]))
    ]
    actual = dispatch.project_and_mix(x, *arguments_of(tensors, problem)[1:], backend, ends)
    wide = x.double(), [tensor.double() for tensor in tensors], problem, widened(ends)
    summed = define_layers(*wide, rectified=False).norm().item()
    eager = define_layers(x, tensors, problem, ends)
    assert_as_exact_as_eager("output", actual, eager, define_layers(*wide), summed)
    for kept, each in zip(before, (x, *([] if len(before) == 1 else [ends.tail[1]])), strict=True):
        assert torch.equal(kept, each)
    return actual


@pytest.mark.parametrize("backend", [CPU, "portable", "reference"])
@given(
    problem=problems,
    inputs=st.integers(1, 40),
    head=st.sampled_from([0, 1, 7, 32]),
    tail=st.none()
    | st.tuples(st.sampled_from([1, 5, 32]), st.sampled_from([False, True, "downsampled"]), st.booleans()),
    ends=st.tuples(*[st.booleans()] * 3),
)
def test_layers_on_both_sides_are_as_exact_as_eager(backend, problem, inputs, head, tail, ends):
    problem = dataclasses.replace(problem, dilation=1) if backend == "cpu" else problem
    tensors, bias = tensors_of(problem, inputs)
    x, layers = layers_of(tensors, problem, head, tail)
    given_ends = layers._replace(rectified_input=ends[0], bias=bias if ends[1] else None, rectified=ends[2])
    assert_layers(x, tensors, problem, given_ends, backend)


@pytest.fixture
def _layers_of_ours(monkeypatch):
    """Where the build would leave them to PyTorch, too."""
    monkeypatch.setattr(cpu, "_INSTRUCTIONS", "baseline")


@compiled
@pytest.mark.usefixtures("_poisoned_memory", "_layers_of_ours")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("heads", "head_size", "batch", "height", "width", "inputs", "stride", "head", "outputs"),
    [
        (1, 1, 1, 1, 1, 1, 1, 1, 1),
        (2, 19, 3, 9, 12, 33, 1, 40, 21),
        (4, 8, 5, 7, 7, 64, 1, 128, 128),
        (2, 16, 1, 40, 60, 17, 2, 16, 64),
        (4, 5, 1, 5, 150, 3, 1, 2, 3),
        (2, 3, 2, 5, 300, 16, 2, 70, 6),
        (8, 4, 2, 13, 20, 18, 3, 5, 96),
    ],
)
def test_layers_of_the_kernels(threads, dtype, heads, head_size, batch, height, width, inputs, stride, head, outputs):
    problem = Problem(batch, heads, head_size, height, width, 5, 3, stride, 1, dtype, "channels_last", 0)
    tensors, bias = tensors_of(problem, inputs)
    tails = None, (outputs, False, False), (outputs, True, True), (outputs, "downsampled", True)
    for ahead, tail in itertools.product((0, head), tails):
        x, layers = layers_of(tensors, problem, ahead, tail)
        ends = layers._replace(bias=bias, rectified=True)
        threads(1)
        alone = assert_layers(x, tensors, problem, ends, "cpu")
        threads(2)
        assert torch.equal(dispatch.project_and_mix(x, *arguments_of(tensors, problem)[1:], "cpu", ends), alone)
        assert tail is None or alone.is_contiguous(memory_format=torch.channels_last)


@compiled
@pytest.mark.usefixtures("_layers_of_ours")
def test_layers_are_part_of_the_operator_where_that_is_the_same(monkeypatch):
    infer, convolve = torch.ops.acmix.infer.default, torch.ops.aten.convolution.default
    problem = dataclasses.replace(PROBLEM, dtype=torch.float32, layout="channels_last")
    tensors, _ = tensors_of(problem, 5)
    x, ends = layers_of(tensors, problem, 6, (7, True, True))
    (head, tail), arguments = (ends.head, ends.tail), arguments_of(tensors, problem)[1:]

    def counts(x, ends):
        expected = define_layers(x, tensors, problem, ends)
        found = calls_of(dispatch.project_and_mix, x, *arguments, "cpu", ends)
        torch.testing.assert_close(dispatch.project_and_mix(x, *arguments, "cpu", ends), expected)
        return found[infer], found[convolve]

    assert counts(x, ends) == (1, 0)
    assert counts(x, ends._replace(tail=tail._replace(shortcut=tail.shortcut.contiguous()))) == (1, 0)
    # Ours for a contiguous map would turn it around, and write another order than PyTorch's.
    assert counts(x.contiguous(), ends) == (0, 2)
    assert counts(x.contiguous(), ends._replace(rectified=True)) == (1, 2)
    # A shortcut that widens the sum, in shape or in dtype.
    assert counts(x[:1], ends) == (1, 1)
    _, down = layers_of(tensors, problem, 6, (7, "downsampled", True))
    assert counts(x, down) == (1, 0)
    assert counts(x.contiguous(), down) == (0, 3)
    assert counts(x[:1], down) == (1, 2)
    wide = ends._replace(tail=tail._replace(shortcut=tail.shortcut.double()))
    assert calls_of(dispatch.project_and_mix, x, *arguments, "cpu", wide)[convolve] == 1
    assert dispatch.project_and_mix(x, *arguments, "cpu", wide).dtype == torch.float64
    derived = ends._replace(tail=tail._replace(shortcut=tail.shortcut.clone().requires_grad_()))
    assert counts(x, derived)[0] == 0
    with torch.no_grad():
        assert counts(x, derived) == (1, 0)
    with torch.autocast("cpu", torch.bfloat16):
        found = dispatch.project_and_mix(x, *arguments, "cpu", ends._replace(tail=tail._replace(shortcut=None)))
        assert found.dtype == torch.bfloat16
    for name, wrong in (
        ("head", Projection(head.weight.double(), None)),
        ("tail", Tail(Projection(head.weight, None))),
    ):
        with pytest.raises(RuntimeError):
            dispatch.project_and_mix(x, *arguments, "cpu", ends._replace(**{name: wrong}))
    with pytest.raises(ValueError, match=r"x must have the shape \(B, C_in = 6, H, W\)"):
        dispatch.project_and_mix(x[:, 1:], *arguments, "cpu", ends)
    # There PyTorch's convolutions have tiles.
    monkeypatch.setattr(cpu, "_INSTRUCTIONS", "amx")
    assert counts(x, ends) == (0, 2)


@pytest.mark.parametrize("backend", [CPU, "portable", "reference"])
def test_gradients_of_layers(backend):
    problem = dataclasses.replace(PROBLEM, layout="channels_last")
    tensors, _ = tensors_of(problem, 5)
    x, ends = layers_of(tensors, dataclasses.replace(problem, seed=1), 6, (7, "downsampled", True))

    def gradients(function):
        layers = [x, *ends.head, *ends.tail.projection, ends.tail.shortcut, *ends.tail.downsample]
        leaves = [tensor.clone().requires_grad_() for tensor in (*layers, *tensors[1:])]
        here, first, first_bias, last, last_bias, shortcut, beside, beside_bias = leaves[:8]
        tail = Tail(Projection(last, last_bias), shortcut, Projection(beside, beside_bias), True)
        output = function(
            here, (None, *leaves[8:]), problem, Ends(True, None, True, Projection(first, first_bias), tail)
        )
        return output, *torch.autograd.grad((output * (1 + output)).sum(), leaves)

    def ours(x, tensors, problem, ends):
        return dispatch.project_and_mix(x, *arguments_of(tensors, problem)[1:], backend, ends)

    for actual, expected in zip(gradients(ours), gradients(define_layers), strict=True):
        torch.testing.assert_close(actual, expected)


@compiled
def test_opcheck_and_count_of_layers():
    importlib.import_module("acmix.ops.flops")
    problem = dataclasses.replace(PROBLEM, dtype=torch.float32, layout="channels_last", stride=2, seed=1)
    (_, weight, bias, position, fc, dep, *rates), added = tensors_of(problem, 5)
    x, ends = layers_of((_, weight), problem, 6, (7, "downsampled", True))
    stages = weight, bias, position, rates[0], fc, dep, rates[1], True, 5, 2, 2
    last, shortcut, beside, _ = ends.tail
    layers = *ends.head, *last, shortcut, *beside, True
    torch.library.opcheck(torch.ops.acmix.infer.default, (x, *stages, True, added, True, *layers))
    with FlopCounterMode(display=False) as both:
        torch.ops.acmix.infer(x, *stages, True, added, True, *layers)
    with FlopCounterMode(display=False) as apart:
        between = torch.nn.functional.conv2d(x, *ends.head)
        torch.nn.functional.conv2d(torch.ops.acmix.project_and_mix(between, *stages), *last)
        torch.nn.functional.conv2d(shortcut, *beside, stride=2)
    assert both.get_total_flops() == apart.get_total_flops() > 0


@compiled
def test_the_operator_refuses_a_kernel_with_as_many_numbers():
    tensors, _ = tensors_of(PROBLEM, 6)
    _, *arguments = arguments_of(tensors, PROBLEM)
    x = torch.randn(1, 9, 5, 5).to(memory_format=torch.channels_last)
    sides = sides_of(Ends(head=Projection(torch.randn(6, 1, 3, 3), None)))
    with pytest.raises(RuntimeError, match=r"the weight of a layer must be \(C', C, 1, 1\)"):
        torch.ops.acmix.infer(*stages_of(x, *arguments), *sides)
