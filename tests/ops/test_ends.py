"""What stands on both sides of the stages, in the kernels' own passes: ReLU of the input; bias, ReLU of the output."""

import dataclasses
import importlib
import itertools
import os
import shutil
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import acmix
from acmix.ops import cpu, dispatch
from acmix.ops.contract import Backend, Convolution, Ends, Grid, Projection, Weights
from tests.numerics import DTYPES, assert_as_exact_as_eager
from tests.ops.problems import Problem, eager_project_and_mix, problems, stage_one

CPU = pytest.param(
    "cpu",
    marks=pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler to build with"),
)
compiled = pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler to build with")


def tensors_of(problem, inputs):
    """Arguments of `project_and_mix`, and a bias of the output."""
    channels = problem.heads * problem.head_size
    bias = torch.randn(channels, generator=torch.Generator().manual_seed(problem.seed)).to(problem.dtype)
    return (*stage_one(problem, inputs), *problem.tensors()[1:]), bias


def arguments_of(tensors, problem):
    """The same as a backend takes them."""
    x, weight, bias, position, fc, dep, *rates = tensors
    weights = Weights(position, rates[0], Convolution(dep, fc, rates[1]))
    return x, Projection(weight, bias), weights, Grid(problem.heads, problem.window, problem.stride, problem.dilation)


def compute(tensors, problem, ends, backend):
    return dispatch.project_and_mix(*arguments_of(tensors, problem), backend, ends)


def define(tensors, problem, ends):
    """One pass after the other, in the dtype of the tensors."""
    x, *others = tensors
    x = x.relu() if ends.rectified_input else x
    output = eager_project_and_mix(x, *others, heads=problem.heads, **problem.keywords())
    output = output if ends.bias is None else output + ends.bias[:, None, None]
    return output.relu() if ends.rectified else output


@pytest.mark.parametrize("backend", [CPU, "portable", "reference"])
@given(problem=problems, inputs=st.integers(1, 70), ends=st.tuples(*[st.booleans()] * 3))
def test_ends_are_as_exact_as_eager(backend, problem, inputs, ends):
    problem = dataclasses.replace(problem, dilation=1) if backend == "cpu" else problem
    tensors, bias = tensors_of(problem, inputs)
    before = tensors[0].clone()
    given_ends = Ends(ends[0], bias if ends[1] else None, ends[2])
    wide = given_ends._replace(bias=bias.double() if ends[1] else None)
    exact = define([tensor.double() for tensor in tensors], problem, wide)
    actual = compute(tensors, problem, given_ends, backend)
    # Of a row that is rectified away, the size of what was summed tells how it rounds.
    summed = define([tensor.double() for tensor in tensors], problem, wide._replace(rectified=False)).norm().item()
    assert_as_exact_as_eager("output", actual, define(tensors, problem, given_ends), exact, summed)
    assert torch.equal(tensors[0], before)


class Calls(TorchDispatchMode):
    """Counts operators."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func] += 1
        return func(*args, **(kwargs or {}))


def calls_of(function, *arguments):
    with Calls() as calls:
        function(*arguments)
    return calls.counts


def plain_passes(*arguments):
    """What the compiled backend computes in several passes."""
    return Backend.project_and_mix_between(cpu.Compiled(), *arguments)


# Strips, bands and interleaved images; channels and their pairs that fill no register.
@compiled
@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("heads", "head_size", "batch", "height", "width", "inputs", "stride"),
    [
        (1, 1, 1, 1, 1, 1, 1),
        (2, 19, 3, 9, 12, 33, 1),
        (4, 8, 5, 7, 7, 64, 1),
        (2, 16, 1, 40, 60, 17, 2),
        (4, 5, 1, 5, 150, 3, 1),
        (2, 3, 2, 5, 300, 16, 2),
        (8, 4, 2, 13, 20, 18, 3),
    ],
)
def test_ends_are_those_of_passes_of_their_own(
    threads, dtype, layout, heads, head_size, batch, height, width, inputs, stride
):
    problem = Problem(batch, heads, head_size, height, width, 5, 3, stride, 1, dtype, layout, 0)
    tensors, bias = tensors_of(problem, inputs)
    # A bias in half precision is another rounding.
    biases = (None, bias) if dtype in (torch.float32, torch.float64) else (None,)
    for count, rectified_input, added, rectified in itertools.product((1, 2), (False, True), biases, (False, True)):
        threads(count)
        ends = Ends(rectified_input, added, rectified)
        arguments = ends, *arguments_of(tensors, problem)
        actual, expected = cpu.Compiled().project_and_mix_between(*arguments), plain_passes(*arguments)
        assert torch.equal(actual, expected), ends
        assert actual.stride() == expected.stride()


def numbers_of(dtype):
    """Of every kind: NaN of either sign with the least and the most bits, infinite, largest, denormal, nothing."""
    limits = torch.finfo(dtype)
    known = [torch.inf, -torch.inf, limits.max, limits.min, -limits.smallest_normal / 4, -0.0]
    integer = {torch.float64: torch.int64, torch.float32: torch.int32}.get(dtype, torch.int16)
    infinite = torch.tensor([torch.inf, -torch.inf], dtype=dtype).view(integer)
    bits = [*(infinite + 1).tolist(), torch.iinfo(integer).max, -1]
    return torch.cat([torch.tensor(known, dtype=dtype), torch.tensor(bits, dtype=integer).view(dtype)])


@compiled
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("which", range(10))
def test_numbers_of_every_kind(dtype, layout, which):
    problem = Problem(2, 2, 8, 9, 11, 3, 3, 1, 1, dtype, layout, 0)
    tensors, _ = tensors_of(problem, 21)
    for place in ((0, 3, 4, 5), (1, 20, 8, 10), (1, 0, 0, 0)):
        tensors[0][place] = numbers_of(dtype)[which]
    for ends in itertools.product((False, True), (None,), (False, True)):
        arguments = Ends(*ends), *arguments_of(tensors, problem)
        actual, expected = cpu.Compiled().project_and_mix_between(*arguments), plain_passes(*arguments)
        torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


@compiled
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_without_derivatives_it_is_one_operator():
    layer = acmix.ACmix(6, 8, bias=True, backend="cpu")
    x = torch.randn(2, 6, 9, 9)
    infer, apart = torch.ops.acmix.infer.default, torch.ops.acmix.project_and_mix.default
    with torch.no_grad():
        layer.bias.normal_()
        assert calls_of(layer, x)[infer] == 1
    expected = layer(x)
    assert calls_of(layer, x)[infer] == 0
    assert calls_of(layer, x)[apart] == 1
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected)
    layer.requires_grad_(False)
    assert calls_of(layer, x)[infer] == 1
    with torch.autocast("cpu", torch.bfloat16):
        assert calls_of(layer, x)[infer] == 0
        assert layer(x).dtype == torch.bfloat16
    for output in (
        torch.func.vmap(layer)(x[:, None])[:, 0],
        torch.func.functional_call(layer, dict(layer.named_parameters()), x),
        torch.func.jvp(layer, (x,), (torch.ones_like(x),))[0],
    ):
        torch.testing.assert_close(output, expected)


PROBLEM = Problem(2, 2, 4, 6, 7, 5, 3, 1, 1, torch.float64, "contiguous", 0)


@pytest.mark.parametrize("backend", [CPU, "portable", "reference"])
def test_gradients_are_those_of_the_definition(backend):
    tensors, bias = tensors_of(PROBLEM, 5)

    def gradients(function):
        leaves = [tensor.clone().requires_grad_() for tensor in (*tensors, bias)]
        output = function(leaves[:-1], PROBLEM, Ends(True, leaves[-1], True))
        return output, *torch.autograd.grad((output * (1 + output)).sum(), leaves)

    actual = gradients(lambda *arguments: compute(*arguments, backend))
    for ours, theirs in zip(actual, gradients(define), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("backend", [CPU, "portable"])
@pytest.mark.parametrize("derived", [False, True])
def test_compiles_to_one_graph(backend, derived):
    tensors, bias = tensors_of(PROBLEM, 5)
    x = tensors[0].requires_grad_(derived)

    def function(x):
        return compute((x, *tensors[1:]), PROBLEM, Ends(True, bias, True), backend)

    graph = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(graph(x), function(x))
    if derived:
        (expected,), (actual,) = (torch.autograd.grad(each(x).sum(), x) for each in (function, graph))
        torch.testing.assert_close(actual, expected)
        with torch.no_grad():
            torch.testing.assert_close(graph(x), function(x))


@compiled
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_opcheck_and_count(layout):
    importlib.import_module("acmix.ops.flops")
    problem = dataclasses.replace(PROBLEM, dtype=torch.float32, layout=layout)
    (x, weight, bias, position, fc, dep, *rates), added = tensors_of(problem, 5)
    stages = x, weight, bias, position, rates[0], fc, dep, rates[1], True, 5, 1, 2
    bare = *[None] * 7, False
    every = True, added, True, *bare
    torch.library.opcheck(torch.ops.acmix.infer.default, (*stages, *every))
    torch.library.opcheck(torch.ops.acmix.infer.default, (*stages, False, None, False, *bare))
    counts = []
    for operator, ends in ((torch.ops.acmix.infer, every), (torch.ops.acmix.project_and_mix, ())):
        with FlopCounterMode(display=False) as counter:
            operator(*stages, *ends)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
    with pytest.raises(RuntimeError, match=r"the output's bias must be \(C\)"):
        torch.ops.acmix.infer(*stages, True, added[1:], True, *bare)
