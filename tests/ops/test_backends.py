"""Every backend against the definition: forward and all gradients, over random shapes, dtypes, layouts, strides."""

import dataclasses
import os
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acmix import ops
from acmix.ops import reference
from tests.numerics import assert_as_exact_as_eager
from tests.ops.problems import (
    NAMES,
    Problem,
    assert_all_stages_as_exact_as_eager,
    assert_mix_as_exact_as_eager,
    eager_mix,
    problems,
    run,
)

ON_THE_CPU = [name for name in ops.backends() if ops.why_not(name, torch.empty(1, 3, 1, 1, 1)) is None]
BACKENDS = [name for name in ON_THE_CPU if name != "reference"]
# What a backend does not take, see its why_not.
LIMITS = {"cpu": {"dilation": 1}}


def test_every_backend_that_must_run_here_is_tested():
    compiled = ["cpu"] if shutil.which(os.environ.get("CXX", "g++")) else []
    assert [*compiled, "portable"] == BACKENDS


@pytest.mark.parametrize("backend", BACKENDS)
@given(problem=problems)
def test_mix_is_as_exact_as_eager(backend, problem):
    assert_mix_as_exact_as_eager(dataclasses.replace(problem, **LIMITS.get(backend, {})), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@given(problem=problems)
def test_paths_alone_are_as_exact_as_eager(backend, problem):
    problem = dataclasses.replace(problem, **LIMITS.get(backend, {}))
    projections, _, fc, dep, _, _ = problem.tensors()
    query, key, value = projections.chunk(3, 1)
    wide = projections.double()
    keywords = problem.keywords()
    exact = ops.local_attention(*wide.chunk(3, 1), **keywords, backend="reference")
    eager = reference.attend(query, key, value, None, *keywords.values())
    assert_as_exact_as_eager(
        "attention", ops.local_attention(query, key, value, **keywords, backend=backend), eager, exact
    )
    del keywords["window"]
    exact = ops.shift_conv(wide, fc.double(), dep.double(), **keywords, backend="reference")
    eager = reference.convolve(projections, fc, dep, *keywords.values())
    assert_as_exact_as_eager(
        "convolution", ops.shift_conv(projections, fc, dep, **keywords, backend=backend), eager, exact
    )


@pytest.mark.parametrize("backend", BACKENDS)
@given(problem=problems, inputs=st.integers(1, 150), biased=st.booleans())
def test_all_stages_are_as_exact_as_eager(backend, problem, inputs, biased):
    problem = dataclasses.replace(problem, **LIMITS.get(backend, {}))
    assert_all_stages_as_exact_as_eager(problem, inputs, biased, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@given(problem=problems)
@settings(max_examples=10)
def test_composed_kernels_are_as_exact_as_eager(backend, problem):
    problem = dataclasses.replace(problem, **LIMITS.get(backend, {}))
    projections, position, fc, dep, alpha, beta = problem.tensors()
    composed = torch.einsum("pc,opyx->ocyx", fc, beta * dep)
    tensors = (projections, position, None, composed, alpha, None)
    wide = [None if tensor is None else tensor.double() for tensor in tensors]
    exact = ops.mix(*wide, **problem.keywords(), backend="reference")
    one = torch.ones(1, dtype=torch.float64)
    identity = torch.eye(3 * problem.heads).double()
    written_out = ops.mix(*wide[:2], identity, wide[3], wide[4], one, **problem.keywords(), backend="reference")
    torch.testing.assert_close(exact, written_out)
    eager = eager_mix(*tensors[:2], identity.to(problem.dtype), composed, alpha, 1, **problem.keywords())
    actual = ops.mix(*tensors, **problem.keywords(), backend=backend)
    assert_as_exact_as_eager("output", actual, eager, exact)


@pytest.fixture(params=[*BACKENDS, "reference"])
def backend(request):
    return request.param


PLAIN = Problem(2, 2, 3, 17, 9, 5, 3, 1, 1, torch.float64, "contiguous", 0)


def test_any_subset_of_gradients(backend):
    tensors = PLAIN.tensors()
    _, every = run(ops.mix, tensors, {"window": 5, "backend": backend}, torch.ones(2, 6, 17, 9))
    for index, name in enumerate(NAMES):
        leaves = [tensor.detach().requires_grad_(i == index) for i, tensor in enumerate(tensors)]
        ops.mix(*leaves, window=5, backend=backend).sum().backward()
        assert [i for i, leaf in enumerate(leaves) if leaf.grad is not None] == [index], name
        torch.testing.assert_close(leaves[index].grad, every[index], msg=name)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradcheck(backend, stride):
    tensors = Problem(1, 2, 2, 4, 16, 3, 3, stride, 1, torch.float64, "contiguous", 3).tensors()
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]

    def function(*arguments):
        return ops.mix(*arguments, window=3, stride=stride, backend=backend)

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


def test_empty_batch(backend):
    leaves = [tensor[:0] if tensor.ndim == 5 else tensor for tensor in PLAIN.tensors()]
    leaves = [tensor.detach().requires_grad_() for tensor in leaves]
    output = ops.mix(*leaves, window=5, backend=backend)
    assert output.shape == (0, 6, 17, 9)
    output.sum().backward()
    assert all((leaf.grad == 0).all() for leaf in leaves)


def test_repeats_bit_for_bit(backend):
    tensors = PLAIN.tensors()
    first = run(ops.mix, tensors, {"backend": backend}, torch.ones(2, 6, 17, 9))
    second = run(ops.mix, tensors, {"backend": backend}, torch.ones(2, 6, 17, 9))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(30, 17), (9, 40), (7, 7)])
def test_channels_last_is_kept(backend, size):
    tensors = Problem(2, 2, 4, *size, 7, 3, 1, 1, torch.float32, "channels_last", 0).tensors()
    output = ops.mix(*tensors, backend=backend)
    assert output.is_contiguous(memory_format=torch.channels_last)
    tensors = Problem(2, 2, 4, *size, 7, 3, 1, 1, torch.float32, "contiguous", 0).tensors()
    assert ops.mix(*tensors, backend=backend).is_contiguous()


def test_autocast_computes_in_its_dtype_and_keeps_weights_wide(backend):
    tensors = [tensor.float() for tensor in PLAIN.tensors()]
    wide = ops.mix(*tensors, backend=backend)
    weights = [tensor.requires_grad_() for tensor in tensors[1:]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = ops.mix(tensors[0].bfloat16(), *weights, backend=backend)
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    assert all(weight.grad.dtype == torch.float32 for weight in weights)
    assert (output.float() - wide).norm() <= 0.02 * wide.norm()


@pytest.mark.filterwarnings("ignore:There is a performance drop because we have not yet implemented")
def test_vmap(backend):
    tensors = [torch.stack((tensor, -tensor)) for tensor in PLAIN.tensors()]
    mapped = torch.vmap(lambda *arguments: ops.mix(*arguments, backend=backend))(*tensors)
    looped = torch.stack([ops.mix(*arguments, backend=backend) for arguments in zip(*tensors, strict=True)])
    torch.testing.assert_close(mapped, looped)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_to_one_graph(backend):
    def function(*arguments):
        return ops.mix(*arguments, backend=backend)

    # Symbolic sizes are torch.export's, in test_nn.py; here they would take a minute more.
    compiled = torch.compile(function, fullgraph=True, backend="eager", dynamic=False)
    for problem in (PLAIN, Problem(1, 2, 3, 5, 20, 5, 3, 1, 1, torch.float64, "contiguous", 1)):
        tensors = problem.tensors()
        torch.testing.assert_close(compiled(*tensors), ops.mix(*tensors, backend=backend))


def test_auto_takes_the_first_that_can():
    tensors = PLAIN.tensors()
    assert torch.equal(ops.mix(*tensors), ops.mix(*tensors, backend=BACKENDS[0]))


def test_softmax_survives_large_logits(backend):
    query = torch.full((1, 1, 4, 9, 9), 200.0)
    key = torch.randn(1, 1, 4, 9, 9)
    output = ops.local_attention(query, key, key, backend=backend)
    exact = ops.local_attention(query.double(), key.double(), key.double(), backend="reference")
    torch.testing.assert_close(output, exact.float(), rtol=1e-3, atol=1e-3)
