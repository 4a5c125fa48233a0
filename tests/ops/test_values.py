"""Every backend on numbers of any size: huge and denormal ones, ties, and single numbers that are not finite."""

import os
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acmix import ACmix, ops
from tests.numerics import DTYPES
from tests.ops import values
from tests.ops.problems import run

CPU = pytest.param(
    "cpu",
    marks=pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler to build with"),
)
exponents = st.tuples(*[st.integers(-60, 60)] * 3)


def within(dtype, exponents):
    """Exponents of which float16 has fewer."""
    return tuple(exponent // 5 for exponent in exponents) if dtype == torch.float16 else exponents


@pytest.mark.parametrize("backend", [CPU])
@given(problem=values.problems(), exponents=exponents, ties=st.booleans())
@settings(max_examples=100)
def test_logits_of_any_size_are_as_exact_as_eager(backend, problem, exponents, ties):
    values.assert_attention_of_exact_logits(problem, within(problem.dtype, exponents), backend, ties=ties)


# Its gradients of float16 are summed in float16, which near the largest number depends on the order.
@given(problem=values.problems([dtype for dtype in DTYPES if dtype != torch.float16]), exponents=exponents)
def test_portable_rounds_logits(problem, exponents):
    values.assert_attention_of_exact_logits(problem, exponents, "portable", rounds=True)


@pytest.mark.parametrize("backend", [CPU, "portable"])
@given(problem=values.problems(), share=st.floats(0, 1))
def test_attention_of_any_size_is_a_mean(backend, problem, share):
    low, high = values.DECADES[problem.dtype]
    values.assert_mean_of_values(problem, low + share * (high - low), backend)


@pytest.mark.parametrize("backend", [CPU, "portable"])
@given(problem=values.problems(), share=st.floats(0, 1), weights=st.floats(-8, 8))
def test_layers_of_any_size_are_finite(backend, problem, share, weights):
    low, high = values.DECADES[problem.dtype]
    values.assert_layer_of_any_size(problem, low + share * (high - low), weights * high / 12, backend)


@pytest.mark.parametrize("backend", [CPU])
@pytest.mark.parametrize("bits", values.NOT_FINITE)
@given(problem=values.problems(), part=st.integers(0, 2))
@settings(max_examples=12)
def test_one_number_that_is_not_finite_stays_where_it_is_seen(backend, bits, problem, part):
    values.assert_one_number_stays_where_it_is_seen(problem, bits, part, backend)


# PyTorch's convolutions in bfloat16 spread it to cells whose kernels do not reach it.
@pytest.mark.parametrize("bits", values.NOT_FINITE)
@given(problem=values.problems([dtype for dtype in DTYPES if dtype != torch.bfloat16]), part=st.integers(0, 2))
@settings(max_examples=8)
def test_portable_keeps_it_there_too(bits, problem, part):
    values.assert_one_number_stays_where_it_is_seen(problem, bits, part, "portable")


# Where a weight is nothing, so is its slope beside large values; at the border windows hold a key up to four times.
@pytest.mark.parametrize("size", [1e5, 1e20])
@pytest.mark.parametrize("backend", [CPU, "portable", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_key_that_dominates_has_no_slope(backend, dtype, size):
    key = 1024 * torch.stack([torch.randperm(5 * 7) for _ in range(20)]).view(20, 1, 1, 5, 7).to(dtype)
    value, gradient = torch.randn(2, *key.shape, dtype=dtype)
    tensors = torch.ones_like(key), key, value * size
    _, (of_query, of_key, _) = run(ops.local_attention, tensors, {"window": 5, "backend": backend}, gradient)
    assert not of_query.any()
    assert not of_key.any()


@pytest.mark.parametrize("backend", [CPU, "portable", "reference"])
@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != torch.float16])
def test_raw_images_of_16_bits(backend, dtype):
    layer = ACmix(3, 16, backend=backend, dtype=dtype)
    x = torch.randint(0, 65536, (1, 3, 32, 32)).to(dtype).requires_grad_()
    output = layer(x)
    assert output.isfinite().all()
    assert torch.autograd.grad(output.sum(), x)[0].isfinite().all()
