"""The Triton kernels against the definition: on a GPU, or on the CPU in triton's interpreter (TRITON_INTERPRET=1)."""

import dataclasses
import importlib

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, vmap
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from acmix import ops
from acmix.nn import ACmix
from tests.ops.counting import enumerate_flops
from tests.ops.derivatives import differentiate, parts
from tests.ops.problems import Problem, assert_all_stages_as_exact_as_eager, assert_mix_as_exact_as_eager, run

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ON_GPU = DEVICE == "cuda"
# The interpreter computes with numpy, which has no bfloat16.
DTYPES = (torch.float32, torch.float16, torch.bfloat16) if ON_GPU else (torch.float32, torch.float16)
REFUSED = ops.why_not("triton", torch.empty(1, 3, 1, 1, 1, device=DEVICE))
pytestmark = pytest.mark.skipif(REFUSED is not None, reason=f"triton cannot run here: {REFUSED}")
gpu_only = pytest.mark.skipif(not ON_GPU, reason="needs a GPU")


def hardest(*cases):
    """Every case on a GPU, the last alone in the interpreter, in which a program takes half a second."""
    return cases if ON_GPU else cases[-1:]


problems = st.builds(
    Problem,
    batch=st.integers(1, 2),
    heads=st.sampled_from((1, 2, 3, 4, 8)),
    head_size=st.sampled_from((1, 4, 8, 12, 16, 19, 32)),
    height=st.integers(1, 9),
    width=st.integers(1, 11),
    window=st.sampled_from((1, 3, 5, 7, 9)),
    kernel=st.sampled_from((1, 3, 5)),
    stride=st.sampled_from((1, 2)),
    dilation=st.just(1),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(("contiguous", "channels_last", "sliced")),
    seed=st.integers(0, 2**32),
)


def problem(heads=4, head_size=8, height=6, width=9, *, batch=1, stride=1, window=7, dtype=torch.float32):
    return Problem(batch, heads, head_size, height, width, window, 3, stride, 1, dtype, "channels_last", 0)


@pytest.fixture
def _exact_float32():
    before = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    yield
    torch.backends.cudnn.conv.fp32_precision = before


@pytest.fixture
def _poisoned_memory():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def _unchecked_counts(monkeypatch):
    """Nothing looks whether sums of integers overflow, which takes the interpreter two fifths of its time."""
    if not ON_GPU:
        from triton.runtime.interpreter import interpreter_builder as builder

        monkeypatch.setattr(builder, "options", dataclasses.replace(builder.options, sanitize_overflow=False))


pytestmark = [pytestmark, pytest.mark.usefixtures("_exact_float32", "_poisoned_memory")]


# Every example is compiled anew, for ten seconds; on a GPU processes share the dtypes and strides.
GRID = [{"dtype": dtype, "stride": stride} for dtype in DTYPES for stride in (1, 2)]


@pytest.mark.usefixtures("_unchecked_counts")
@pytest.mark.parametrize("fixed", GRID if ON_GPU else [{}])
@settings(max_examples=12 if ON_GPU else 4)
@given(case=problems)
def test_mix_is_as_exact_as_eager(fixed, case):
    assert_mix_as_exact_as_eager(dataclasses.replace(case, **fixed), "triton", DEVICE)


# The convolution path is a dense convolution there, and the projection's bias stops at the border.
@pytest.mark.usefixtures("_unchecked_counts")
@pytest.mark.parametrize("fixed", GRID if ON_GPU else [{}])
@settings(max_examples=12 if ON_GPU else 3)
@given(case=problems, inputs=st.integers(1, 40), biased=st.booleans())
def test_all_stages_are_as_exact_as_eager(fixed, case, inputs, biased):
    assert_all_stages_as_exact_as_eager(dataclasses.replace(case, **fixed), inputs, biased, "triton", device=DEVICE)


# A tile is 2 x 8 queries: these maps have tiles without a border, all borders and all corners.
@pytest.mark.parametrize(
    ("stride", "height", "width", "dtype"),
    [(1, 7, 19, dtype) for dtype in DTYPES] + [(2, 9, 37, dtype) for dtype in DTYPES[-1:]],
)
def test_interior_borders_and_corners(dtype, stride, height, width):
    case = problem(2, 16, height, width, stride=stride, window=5, dtype=dtype)
    assert_mix_as_exact_as_eager(case, "triton", DEVICE)


# Head sizes are multiplied in chunks of 128 down to 16 cells.
@pytest.mark.usefixtures("_unchecked_counts")
@pytest.mark.parametrize(("head_size", "stride"), [*hardest((64, 1), (128, 1)), (100, 2)])
def test_head_sizes(head_size, stride):
    assert_mix_as_exact_as_eager(problem(2, head_size, 4, 7, stride=stride), "triton", DEVICE)


# With more warps than tiles of 16 queries Triton 3.6 made wrong gradients of these on an H200.
@gpu_only
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("head_size", "heads", "side"), [(123, 1, 12), (113, 8, 54), (128, 4, 7), (72, 5, 20)])
def test_large_heads(head_size, heads, side, stride, dtype):
    assert_mix_as_exact_as_eager(
        problem(heads, head_size, side, side + 3, stride=stride, dtype=dtype), "triton", DEVICE
    )


@pytest.mark.usefixtures("_unchecked_counts")
@pytest.mark.parametrize("heads", hardest(5, 24))
def test_many_heads(heads):
    assert_mix_as_exact_as_eager(problem(heads, 8, 3, 5), "triton", DEVICE)


@gpu_only
@pytest.mark.parametrize("fixed", GRID)
@settings(max_examples=8)
@given(case=problems, size=st.tuples(st.integers(1, 70), st.integers(1, 70)), head_size=st.integers(1, 128))
def test_large_maps(fixed, case, size, head_size):
    case = dataclasses.replace(case, height=size[0], width=size[1], head_size=head_size, **fixed)
    assert_mix_as_exact_as_eager(case, "triton", DEVICE)


@pytest.mark.parametrize("stride", hardest(1, 2))
def test_attention_alone(stride):
    tensors = problem(2, 8, 5, 10, stride=stride).tensors(DEVICE)[0].chunk(3, 1)
    gradient = torch.randn(1, 2, 8, -(-5 // stride), -(-10 // stride), device=DEVICE)
    results = [
        run(ops.local_attention, tensors, {"stride": stride, "backend": backend}, gradient)
        for backend in ("triton", "reference")
    ]
    torch.testing.assert_close(*results)


# Keys outside the window must stay below those inside; of equal keys the values' mean is exact.
@pytest.mark.parametrize("size", hardest(1e9, -1e9, 1e35, -1e35))
def test_huge_logits(size):
    query, key, value = problem(2, 8, 5, 10, window=3).tensors(DEVICE)[0].chunk(3, 1)
    query, key = torch.ones_like(query), torch.full_like(key, size) * (1 + (key > 1).float())
    results = [ops.local_attention(query, key, value, window=3, backend=name) for name in ("triton", "reference")]
    torch.testing.assert_close(results[0][..., 1:-1, 1:-1], results[1][..., 1:-1, 1:-1])
    assert (results[0].abs() <= 1.001 * value.abs().amax((3, 4), keepdim=True)).all()


def multiply_in_order(a, b, dtype=None):
    """Products whose sums are in one order in tiles of every shape, as a GPU's are; those of a BLAS need not be."""
    return sum((a[..., k, None] * b[..., None, k, :] for k in range(a.shape[-1])), numpy.zeros((), dtype or a.dtype))


# Weights made again backward from a rounded log-sum-exp were infinite.
@pytest.mark.parametrize("size", hardest(1e4, 1e6, 1e15, 1e10))
def test_gradients_of_huge_logits(monkeypatch, size):
    monkeypatch.setattr(numpy, "matmul", multiply_in_order)
    query, key, value = problem(2, 8, 5, 10, window=3).tensors(DEVICE)[0].chunk(3, 1)
    tensors, gradient = (query * size, key, value), torch.randn(1, 2, 8, 5, 10, device=DEVICE)
    results = [
        run(ops.local_attention, tensors, {"window": 3, "backend": backend}, gradient)
        for backend in ("triton", "reference")
    ]
    (output, (_, *gradients)), (expected, (_, *truth)) = results
    torch.testing.assert_close((output, gradients[1]), (expected, truth[1]))
    # Slopes are sums that cancel: of the size of the terms.
    assert (gradients[0] - truth[0]).norm() <= 1e-4 * size * gradient.norm() * value.norm()


@pytest.mark.parametrize("heads", hardest(2, 5))
def test_convolution_alone(heads):
    projections, _, fc, dep, *_ = problem(heads, 8, 5, 10).tensors(DEVICE)
    gradient = torch.randn(1, heads * 8, 5, 10, device=DEVICE)
    results = [
        run(ops.shift_conv, (projections, fc, dep), {"backend": backend}, gradient)
        for backend in ("triton", "reference")
    ]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


# Pairs of channels, also with half of one; taps of strided kernels by phases, also phases without any.
@pytest.mark.parametrize(
    ("heads", "head_size", "kernel", "stride"), [(4, 3, 1, 2), (2, 6, 5, 2), (1, 2, 3, 2), (3, 5, 3, 1), (5, 4, 3, 2)]
)
def test_pairs_and_phases(heads, head_size, kernel, stride):
    case = Problem(1, heads, head_size, 5, 6, 1, kernel, stride, 1, torch.float16, "channels_last", 0)
    assert_mix_as_exact_as_eager(case, "triton", DEVICE)


# On a GPU, of more programs than run at once.
@pytest.mark.parametrize("dtype", hardest(*reversed(DTYPES)))
@pytest.mark.parametrize("stride", hardest(2, 1))
def test_repeats_bit_for_bit(stride, dtype):
    case = problem(4, 16, *((56, 56) if ON_GPU else (3, 9)), batch=16 if ON_GPU else 1, stride=stride, dtype=dtype)
    keywords = {"backend": "triton", "stride": stride}
    first, second = (run(ops.mix, case.tensors(DEVICE), keywords, torch.ones((), device=DEVICE)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_memory_order_is_kept(layout):
    tensors = dataclasses.replace(problem(), layout=layout).tensors(DEVICE)
    output = ops.mix(*tensors, backend="triton")
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert output.is_contiguous(memory_format=memory_format)


def test_empty_batch():
    leaves = problem(2, 4).tensors(DEVICE)
    leaves = [leaves[0][:0].detach(), *leaves[1:]]
    output, gradients = run(ops.mix, leaves, {"backend": "triton"}, torch.ones((), device=DEVICE))
    assert output.shape == (0, 8, 6, 9)
    assert all((gradient == 0).all() for gradient in gradients)


# opcheck itself looks at gradients of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("part", hardest("attention", "convolution", "mixed", "all"))
def test_opcheck(part):
    importlib.import_module("acmix.ops.triton.operators")
    projections, position, *_ = problem(2, 4, 3, 5).tensors(DEVICE)
    cells = projections.permute(0, 3, 4, 1, 2).contiguous()
    leaves = [
        tensor.requires_grad_()
        for tensor in (
            cells,
            position,
            torch.ones(1, device=DEVICE),
            torch.randn(1, 2, 3, 8, device=DEVICE),
            torch.randn(2, 3, 8, device=DEVICE),
            torch.randn(4, 2, 9, 3, 3, device=DEVICE),
            torch.randn(9, 6, device=DEVICE),
        )
    ]
    cells, *others, kernel, mixing = leaves
    operator, arguments = {
        "all": ("attend", (cells, *others, 3, 2)),
        "attention": ("attend", (cells, None, None, None, None, 3, 1)),
        "mixed": ("convolve", (cells, kernel, mixing, 2)),
        "convolution": ("convolve", (cells, torch.randn(4, 2, 6, 3, 3, device=DEVICE), None, 1)),
    }[part]
    torch.library.opcheck(getattr(torch.ops.acmix_triton, operator).default, arguments)


# Compilers lay out what follows by what they are told of the gradients.
@pytest.mark.parametrize("part", ["attention", "convolution"])
def test_gradients_are_as_told_to_compilers(part):
    importlib.import_module("acmix.ops.triton.operators")
    projections, position, *_ = problem(2, 4, 3, 5).tensors(DEVICE)
    cells, gradient = projections.permute(0, 3, 4, 1, 2), torch.randn(1, 3, 5, 8, device=DEVICE)
    cells = cells.transpose(1, 2).contiguous().transpose(1, 2)
    operator, arguments = {
        "attention": (
            "attend_backward",
            (gradient, torch.zeros(1, 2, 2, 3, 5, device=DEVICE), cells, position, torch.ones((), device=DEVICE), 3, 1),
        ),
        "convolution": ("convolve_backward", (gradient, cells, torch.randn(4, 2, 6, 3, 3, device=DEVICE), None, 1)),
    }[part]
    called = getattr(torch.ops.acmix_triton, operator).default
    torch.library.opcheck(called, arguments, test_utils="test_faketensor")


# What is not touched of a file takes no room; the last program alone runs.
@pytest.mark.skipif(ON_GPU, reason="test_gpu.py computes the whole of it")
def test_images_of_more_numbers_than_32_bits_count(monkeypatch, tmp_path):
    from triton.runtime.interpreter import interpreter_builder

    from acmix.ops.triton import launch, plans

    def untouched(name, channels, dtype=torch.float16):
        return torch.from_file(str(tmp_path / name), shared=True, size=257 * 2**16 * channels, dtype=dtype)

    given = {"POSITIONED": False, "RATED": False, "ADDED": False, "OFFSET": True}
    shape = plans.Shape(1, 1, 128, 257, 2**16, 1, 1)
    one = launch.attention_launch("forward", shape, torch.float16, "tf32", **given)
    last = one.programs - 1, 0, 0
    monkeypatch.setattr(one, "programs", 1)
    monkeypatch.setattr(interpreter_builder, "set_grid_idx", lambda *_: setattr(interpreter_builder, "grid_idx", last))
    output, offset = untouched("output", 128), untouched("offset", 128)
    assert len(offset) > 2**31
    offset[-128:] = torch.arange(128)
    saved = untouched("log_sum_exp", 2, torch.float32)
    one(untouched("projections", 3 * 128), None, None, None, offset, output, saved)
    assert torch.equal(output[-128:], offset[-128:])


def test_halos_have_no_more_rows_than_are_counted_on():
    from acmix.ops import triton
    from acmix.ops.triton import plans, table

    rows = []
    for (kernel, size, stride, _), tile in table.ATTENTION.items():
        shape = plans.Shape(1, 4, size, 99, 99, triton._LARGEST_WINDOW, stride)
        plan = plans.plan_attention(shape, tile, "tf32", gathers_queries=kernel == "key")
        rows.append(plan.halo_rows * (stride if kernel == "key" else 1))
    assert max(rows) == triton._HALO_ROWS


def test_products_are_made_as_the_maker_of_the_gpu_can(monkeypatch):
    from triton.backends.amd.compiler import HIPOptions

    from acmix.ops.triton.plans import precision

    monkeypatch.setattr(torch.version, "hip", "7.0")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert precision(dtype) in HIPOptions.allowed_dot_input_precisions


@pytest.mark.usefixtures("_unchecked_counts")
def test_compiles_to_one_graph_with_gradients():
    compiled = torch.compile(ops.mix, fullgraph=True, dynamic=True, backend="inductor" if ON_GPU else "aot_eager")
    for height in (3, 4):
        case = problem(2, 8, height, 5)
        eager, traced = (
            run(function, case.tensors(DEVICE), {"backend": "triton"}, torch.ones((), device=DEVICE))
            for function in (ops.mix, compiled)
        )
        torch.testing.assert_close(traced, eager)


def test_autocast_computes_in_its_dtype_and_keeps_weights_wide():
    low = torch.bfloat16 if ON_GPU else torch.float16
    tensors = problem(2, 8).tensors(DEVICE)
    wide = ops.mix(*tensors, backend="triton")
    weights = [tensor.requires_grad_() for tensor in tensors[1:]]
    with torch.autocast(DEVICE, dtype=low):
        output = ops.mix(tensors[0].to(low), *weights, backend="triton")
    output.float().sum().backward()
    assert output.dtype == low
    assert all(weight.grad.dtype == torch.float32 for weight in weights)
    assert (output.float() - wide).norm() <= 0.02 * wide.norm()


def test_activation_checkpointing():
    layer = ACmix(8, 8, backend="triton").to(DEVICE)
    x = torch.randn(1, 8, 4, 5, device=DEVICE, requires_grad=True)
    plain = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(torch.autograd.grad(checkpoint(layer, x, use_reentrant=False).sum(), x), plain)


# Attention alone, convolution alone, both; after the first derivative in reverse the definition computes.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("part", ["attention", "convolution", "both"])
@pytest.mark.parametrize("orders", hardest("f", "rr", "rrf", "rf"))
def test_derivatives_of_every_order(part, orders):
    function, tensors, keywords = parts(problem(5, 4, 3, 4, stride=2, window=3), DEVICE)[part]
    actual, expected = (
        differentiate(lambda *given: function(*given, **keywords, backend=name), inputs, orders, 0)  # noqa: B023
        for name, inputs in (("triton", tensors), ("reference", [tensor.double() for tensor in tensors]))
    )
    assert (actual - expected).norm() <= 1e-5 * expected.norm()


def test_gradients_of_every_image_and_of_ensembles():
    def loss(backend, *tensors):
        return ops.mix(*tensors, window=3, backend=backend).square().sum()

    tensors = problem(2, 4, 2, 3, batch=2).tensors(DEVICE)
    stacked = [torch.stack((tensor, 2 * tensor), -1) for tensor in tensors]
    for inputs, dims in ((tensors, (0, *(None,) * 5)), (stacked, (-1,) * 6)):
        inputs = [inputs[0][:, None] if dims[0] == 0 else inputs[0], *inputs[1:]]
        derivative = vmap(grad(loss, argnums=(1, 2, 4)), (None, *dims))
        torch.testing.assert_close(
            derivative("triton", *inputs), derivative("reference", *inputs), rtol=1e-3, atol=1e-3
        )


def test_counts_operations():
    importlib.import_module("acmix.ops.flops")
    with FlopCounterMode(display=False) as counter:
        projections, *weights = problem(4, 8, 6, 6, batch=2).tensors(DEVICE)
        ops.mix(projections.requires_grad_(), *weights, backend="triton").sum().backward()
    counts, operators = counter.get_flop_counts()["Global"], torch.ops.acmix_triton
    _, attention, convolution = enumerate_flops(6, 6, batch=2, inputs=1, channels=32, heads=4)
    assert counts[operators.attend] == attention
    assert counts[operators.convolve] == convolution
    assert counts[operators.attend_backward] == 2.5 * attention
    assert counts[operators.convolve_backward] == 2 * convolution


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"dilation": 2}, "no dilation, got dilation=2"),
        ({"window": 11}, "window of at most 9, got 11"),
        ({"stride": 3}, "stride of 1 or 2, got 3"),
        ({"features": torch.zeros(1, 1, 1, 2, 2, dtype=torch.float64)}, "or bfloat16, got torch.float64"),
        ({"features": torch.zeros(1, 1, 129, 2, 2)}, "at most 128 channels a head, got 129"),
        (
            {"features": torch.zeros(1).expand(2, 3, 1, 2**15, 2**15)},
            "at most 2147482624 cells and 47721836 numbers a row",
        ),
        ({"features": torch.zeros(1).expand(1, 3, 64, 1, 2**19)}, "a row, got 524288 and 100663296"),
    ],
)
def test_says_why_not(changed, reason):
    asked = {"features": torch.zeros(1, 1, 1, 2, 2), "window": 7, "stride": 1, "dilation": 1, **changed}
    numbers = asked["features"]
    asked["features"] = numbers[:1, :1, :1, :1, :1].to(DEVICE).expand(numbers.shape)
    assert reason in ops.why_not("triton", **asked)
