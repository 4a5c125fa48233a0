"""Graphs that are made by tracing: right at every size, whatever they were made at, of standard operations alone."""

import pytest
import torch

from acmix import ops
from tests.numerics import assert_as_exact_as_eager
from tests.ops.problems import Problem

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")

SIZES = [(1, 1), (1, 9), (2, 3), (7, 7), (8, 5), (23, 12), (40, 17)]
USUAL = {
    "batch": 2,
    "heads": 4,
    "head_size": 8,
    "height": 12,
    "width": 10,
    "window": 7,
    "kernel": 3,
    "stride": 1,
    "dilation": 1,
    "dtype": torch.float32,
    "layout": "contiguous",
    "seed": 0,
}
VARIANTS = [
    {},
    {"stride": 2, "heads": 2, "head_size": 3},
    {"dilation": 2, "window": 5, "kernel": 5},
    {"stride": 3, "dilation": 2, "heads": 8, "window": 3, "layout": "channels_last"},
    {"heads": 1, "head_size": 19, "window": 1, "kernel": 1, "layout": "sliced"},
    {"dtype": torch.bfloat16},
    {"window": 11},
]


def trace(function, *tensors):
    """PyTorch's own check of a trace has a tolerance that another order of sums exceeds."""
    return torch.jit.trace(function, tensors, check_trace=False)


def functions(problem):
    """Of projections and weights: the three functions of `ops`."""
    grid = {"stride": problem.stride, "dilation": problem.dilation}

    def attention(projections, position, *_):
        return ops.local_attention(*projections.chunk(3, 1), position_weight=position, **problem.keywords())

    def convolution(projections, _, fc, dep, *__):
        return ops.shift_conv(projections, fc, dep, **grid)

    def both(*tensors):
        return ops.mix(*tensors, **problem.keywords())

    return attention, convolution, both


def project(problem, x, weight, bias, *weights):
    return ops.project_and_mix(x, weight, bias, *weights, heads=problem.heads, **problem.keywords())


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_trace_serves_every_size(variant):
    problem = Problem(**USUAL | variant)
    tensors = problem.tensors()
    for function in functions(problem):
        traced = trace(function, *tensors)
        for batch, (height, width) in enumerate(SIZES, 1):
            other = Problem(**USUAL | variant | {"batch": batch, "height": height, "width": width, "seed": batch})
            inputs = [other.tensors()[0], *tensors[1:]]
            exact = [tensor.double() for tensor in inputs]
            expected = function(*exact)
            eager = function(*inputs)
            assert_as_exact_as_eager(f"{function.__name__} {height} x {width}", traced(*inputs), eager, expected)


@pytest.mark.parametrize("bias", [True, False])
def test_a_trace_of_all_three_stages(bias):
    problem = Problem(**USUAL | {"stride": 2, "dilation": 2})
    weight = torch.randn(96, 5, 1, 1) / 5**0.5
    addend = torch.randn(96) if bias else None
    weights = problem.tensors()[1:]

    def function(x):
        return project(problem, x, weight, addend, *weights)

    traced = trace(function, torch.randn(1, 5, 20, 9))
    for height, width in SIZES:
        x = torch.randn(3, 5, height, width)
        exact = [None if tensor is None else tensor.double() for tensor in (x, weight, addend, *weights)]
        assert_as_exact_as_eager(f"{height} x {width}", traced(x), function(x), project(problem, *exact))


def test_gradients_of_a_trace():
    problem = Problem(**USUAL)
    function = functions(problem)[-1]
    traced = trace(function, *problem.tensors())
    tensors = Problem(**USUAL | {"height": 5, "width": 7, "seed": 1}).tensors()

    def gradients(of, tensors):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        return torch.autograd.grad(of(*leaves).square().sum(), leaves)

    exact = gradients(function, [tensor.double() for tensor in tensors])
    for index, found in enumerate(zip(gradients(traced, tensors), gradients(function, tensors), exact, strict=True)):
        assert_as_exact_as_eager(f"gradient {index}", *found, scale=found[2].norm().item())


def test_keys_outside_of_a_window_do_not_count_however_large():
    problem = Problem(**USUAL | {"window": 3})
    tensors = problem.tensors()
    traced = trace(functions(problem)[0], *tensors)
    tensors[0][..., 5, 6] *= 300
    assert_as_exact_as_eager(
        "attention",
        traced(*tensors),
        functions(problem)[0](*tensors),
        functions(problem)[0](*(tensor.double() for tensor in tensors)),
    )


def test_standard_operations_alone_and_no_unfolding():
    traced = trace(functions(Problem(**USUAL))[-1], *Problem(**USUAL).tensors())
    kinds = {node.kind() for node in traced.inlined_graph.nodes()}
    assert {kind.split("::")[0] for kind in kinds} == {"aten", "prim"}
    assert not kinds & {"aten::im2col", "aten::unfold", "aten::as_strided", "aten::index"}
    tensors = (
        output for node in traced.inlined_graph.nodes() for output in node.outputs() if output.isCompleteTensor()
    )
    assert max(len(tensor.type().sizes()) for tensor in tensors) == 5


def test_a_backend_that_was_asked_for_by_name():
    tensors = Problem(**USUAL).tensors()

    def function(backend):
        return lambda *tensors: ops.mix(*tensors, backend=backend)

    for backend in ("portable", "reference"):
        traced = trace(function(backend), *tensors)
        inputs = [Problem(**USUAL | {"height": 3, "width": 17}).tensors()[0], *tensors[1:]]
        torch.testing.assert_close(traced(*inputs), function("reference")(*inputs))
    if "cpu" in ops.backends():
        with pytest.raises(ValueError, match=r"'cpu' cannot run this: an exported graph holds standard operators only"):
            trace(function("cpu"), *tensors)


def test_bad_arguments_are_refused_in_a_trace_in_plain_numbers():
    tensors = Problem(**USUAL).tensors()
    with pytest.raises(ValueError, match=r"position_weight must have the shape \(D = 8, 2\), got \(7, 2\)"):
        trace(ops.mix, tensors[0], torch.zeros(7, 2), *tensors[2:])
