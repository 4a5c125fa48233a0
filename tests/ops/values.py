"""Cases of numbers of any size, and what a backend must make of them."""

import dataclasses
import math

import torch
from hypothesis import strategies as st
from torch import Tensor

from acmix import ops
from tests.numerics import DTYPES, FACTOR
from tests.ops.problems import NAMES, Problem, run, stage_one, widen

# NaN as processors, in both signs, and as GPUs write it, with all bits; infinity in both signs.
NOT_FINITE = (0x7FC00000, -0x400000, 0x7FFFFFFF, -1, 0x7F800000, -0x800000)
# Decades of features: the squares of the largest are within the dtype, those of the smallest are not.
DECADES = {torch.float64: (-30, 12), torch.float32: (-30, 12), torch.bfloat16: (-30, 12), torch.float16: (-7, 4)}


def problems(dtypes=DTYPES, *, widths=(1, 2, 5, 9, 16, 17, 33, 140, 261), heads=(1, 2, 4, 5)) -> st.SearchStrategy:
    """Small maps, and flat ones of several strips; the seed draws the numbers."""

    def flatten(problem: Problem) -> Problem:
        return dataclasses.replace(problem, height=min(problem.height, 2)) if problem.width > 33 else problem

    return st.builds(
        Problem,
        batch=st.integers(1, 2),
        heads=st.sampled_from(heads),
        head_size=st.sampled_from((1, 3, 8)),
        height=st.integers(1, 7),
        width=st.sampled_from(widths),
        window=st.sampled_from((1, 3, 5, 7)),
        kernel=st.sampled_from((1, 3)),
        stride=st.sampled_from((1, 2)),
        dilation=st.just(1),
        dtype=st.sampled_from(dtypes),
        layout=st.sampled_from(("contiguous", "channels_last", "sliced")),
        seed=st.integers(0, 2**32),
    ).map(flatten)


def both(function, tensors, keywords, backend, gradient=None):
    """Output and gradients of the definition in the dtype, of that in float64 rounded to it, and of a backend."""
    defined = {**keywords, "backend": "reference"}
    if gradient is None:
        gradient = torch.randn_like(function(*tensors, **defined))
    wide, narrow = (run(function, given, defined, gradient) for given in (widen(tensors), tensors))
    exact = tuple(part.to(tensors[0].dtype) for part in (wide[0], *wide[1]) if part is not None)
    actual = run(function, tensors, {**keywords, "backend": backend}, gradient)
    eager, ours = ([part for part in (output, *parts) if part is not None] for output, parts in (narrow, actual))
    return gradient, exact, eager, ours


def assert_not_finite_as_defined(names, exact, eager, actual):
    """Not finite where the definition is not, finite where it is."""
    for name, truth, theirs, ours in zip(names, exact, eager, actual, strict=True):
        spread = ~ours.isfinite() & truth.isfinite() & theirs.isfinite()
        hidden = ours.isfinite() & ~truth.isfinite() & ~theirs.isfinite()
        assert not spread.any(), f"{name}: {int(spread.sum())} numbers should be finite"
        assert not hidden.any(), f"{name}: {int(hidden.sum())} numbers should not be finite"


def exact_logits(problem: Problem, query: int, key: int, value: int, *, ties: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value times powers of 2, such that logits are exact in every dtype, whatever their size."""
    generator = torch.Generator().manual_seed(problem.seed)
    shape = (problem.batch, problem.heads, problem.head_size, problem.height, problem.width)
    one = torch.zeros(problem.head_size)
    one[problem.seed % problem.head_size] = 1
    q = torch.randint(-2, 3, (*shape[:2], 1, *shape[3:]), generator=generator) * one[:, None, None]
    k = torch.randint(-3, 4, (*shape[:3], 1, 1) if ties else shape, generator=generator).expand(shape).double()
    v = torch.randn(shape, generator=generator).double()
    scaled = q * 2.0**query, k * 2.0**key, v * 2.0**value
    return tuple(tensor.to(problem.dtype) for tensor in scaled)


def assert_attention_of_exact_logits(problem, exponents, backend, *, ties=False, rounds=False):
    """Every number beside float64, relative to what is summed; a backend may round logits that are exact."""
    tensors = exact_logits(problem, *exponents, ties=ties)
    keywords = {"window": problem.window, "stride": problem.stride}
    shape = ops.local_attention(*tensors, **keywords, backend="reference").shape
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(problem.seed)).to(problem.dtype)
    _, exact, eager, actual = both(ops.local_attention, tensors, keywords, backend, gradient)
    names = ("output", "query", "key", "value")
    assert_not_finite_as_defined(names, exact, eager, actual)
    q, k, v, g = (tensor.double().abs().max().item() for tensor in (*tensors, gradient))
    root, cells = problem.head_size**0.5, problem.window**2
    terms = {"output": v, "query": g * v * k * root, "key": g * v * q * root * cells, "value": g * cells}
    resolution = torch.finfo(problem.dtype)
    wide = torch.finfo(torch.promote_types(problem.dtype, torch.float32))
    slack = min(2.0, FACTOR * q * k * root * wide.eps) if rounds else 0.0
    for name, truth, theirs, ours in zip(names, exact, eager, actual, strict=True):
        finite = ours.isfinite() & theirs.isfinite() & truth.isfinite()
        error, of_eager = (
            (part - truth.double())[finite].abs().amax().item() if finite.any() else 0.0 for part in (ours, theirs)
        )
        allowed = FACTOR * max(of_eager, resolution.eps * terms[name], resolution.smallest_normal * resolution.eps)
        assert error <= allowed + slack * terms[name], f"{name}: error {error:.3e} above {allowed:.3e}"


def tensors_of_size(problem: Problem, decades: float) -> list[Tensor]:
    """Arguments of `mix` whose projections are of the size 10^decades."""
    projections, *weights = problem.tensors()
    return [(projections.double() * 10.0**decades).to(problem.dtype), *weights]


def assert_mean_of_values(problem, decades, backend):
    """Attention is a mean: no larger than the largest value, and its weights sum to 1, in the backward pass, too."""
    query, key, value = tensors_of_size(problem, decades)[0].chunk(3, 1)
    value = value / value.abs().max()
    keywords = {"window": problem.window, "stride": problem.stride}
    tensors = (query, key, value)
    gradient, exact, eager, actual = both(ops.local_attention, tensors, keywords, backend)
    assert_not_finite_as_defined(("output", "query", "key", "value"), exact, eager, actual)
    if not eager[0].isfinite().all():
        return
    rounding = FACTOR * torch.finfo(problem.dtype).eps
    assert actual[0].abs().max() <= 1 + rounding
    largest = value.double().amax((3, 4), keepdim=True)
    assert (actual[0].double() <= largest + rounding).all()
    handed_on, given = actual[3].double().sum((3, 4)), gradient.double().sum((3, 4))
    cells = math.prod(gradient.shape[3:])
    assert (handed_on - given).abs().max() <= rounding * gradient.abs().double().sum((3, 4)).max() * max(cells, 10)


def disturbed(problem: Problem, bits: int, part: int) -> list[Tensor]:
    """Arguments of `mix`; one number of one query, key or value, 0 to 2, anywhere, is not finite."""
    projections, *weights = problem.tensors()
    generator = torch.Generator().manual_seed(problem.seed)
    sizes = (problem.batch, problem.heads, *projections.shape[2:])
    image, head, *place = (int(torch.randint(size, (), generator=generator)) for size in sizes)
    projections = projections.clone()
    projections[(image, part * problem.heads + head, *place)] = torch.tensor(bits, dtype=torch.int32).view(
        torch.float32
    )
    return [projections, *weights]


def assert_one_number_stays_where_it_is_seen(problem, bits, part, backend):
    """In attention, both paths and all stages, forward and in every gradient."""
    # A wider stride skips cells, which fc sees in the definition alone: not where it is part of a composed kernel.
    problem = dataclasses.replace(problem, kernel=3)
    keywords = {"window": problem.window, "stride": problem.stride}
    tensors = disturbed(problem, bits, part)
    _, *results = both(ops.local_attention, tensors[0].chunk(3, 1), keywords, backend)
    assert_not_finite_as_defined(("output", "query", "key", "value"), *results)
    _, *results = both(ops.mix, tensors, keywords, backend)
    assert_not_finite_as_defined(("output", *NAMES), *results)
    x, weight, bias = stage_one(problem, 3)
    x = x.clone()
    if ops.cpu.instructions() == "amx" and problem.dtype != torch.float64 and backend == "cpu":
        # Terms of bfloat16 (csrc/products/tiles.h) have no infinite sum.
        bits = NOT_FINITE[0]
    x[(0, 1, *(size // 2 for size in x.shape[2:]))] = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    keywords["heads"] = problem.heads
    _, *results = both(ops.project_and_mix, (x, weight, bias, *tensors_of_size(problem, 0)[1:]), keywords, backend)
    names = ("x", "weight", "bias", *NAMES[1:])
    assert_not_finite_as_defined(("output", *names), *results)


def assert_layer_of_any_size(problem, decades, weights, backend):
    """All stages of inputs and weights of the sizes 10^decades: finite where the definition is."""
    x, weight, bias = (
        (tensor.double() * 10.0**size).to(problem.dtype)
        for tensor, size in zip(stage_one(problem, 3), (decades, weights, decades), strict=True)
    )
    keywords = {"heads": problem.heads, "window": problem.window, "stride": problem.stride}
    _, *results = both(ops.project_and_mix, (x, weight, bias, *tensors_of_size(problem, 0)[1:]), keywords, backend)
    names = ("x", "weight", "bias", *NAMES[1:])
    # Near the largest number it is a matter of order whether a sum is finite.
    exact, eager, actual = results
    limit = torch.finfo(problem.dtype).max / 1e4
    for name, truth, theirs, ours in zip(("output", *names), exact, eager, actual, strict=True):
        if truth.isfinite().all() and theirs.isfinite().all() and truth.double().abs().max() < limit:
            assert ours.isfinite().all(), f"{name}: should be finite"
