"""Projections inside the compiled kernels: three exact products, however they are computed.

A build may compute them in tiles of narrower numbers, which float64, as most of tests/ops/test_cpu.py, never takes.
"""

import os
import shutil

import pytest
import torch
from torch.nn import functional

import acmix
from acmix import ops
from tests.numerics import assert_as_exact_as_eager
from tests.ops.problems import Problem, assert_all_stages_as_exact_as_eager, run, stage_one

pytestmark = pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler to build with")


@pytest.fixture(autouse=True)
def _kernels_are_built():
    assert ops.why_not("cpu") is None


def poison_scratch(dtype=torch.float32):
    """Leave NaN in every thread's scratch."""
    layer = acmix.ACmix(64, 64, kernel_att=3, backend="cpu", dtype=dtype)
    layer(torch.full((4, 64, 40, 40), torch.nan, dtype=dtype, requires_grad=True)).sum().backward()


def add_projections(x, weight, bias, *, heads):
    """The sum of q, k and v alone: no attention, and taps that select."""
    size = weight.shape[0] // (3 * heads)
    select = torch.eye(heads).repeat(size, 3)[..., None, None]
    nothing = torch.zeros(1)
    keywords = {"heads": heads, "window": 1, "backend": "cpu"}
    output = ops.project_and_mix(x, weight, bias, torch.zeros(size, 2), None, select, nothing, None, **keywords)
    return output.unflatten(1, (size, heads)).transpose(1, 2).flatten(1, 2)


def add_convolutions(x, weight, bias, *, heads):  # noqa: ARG001
    return functional.conv2d(x, weight, bias).unflatten(1, (3, -1)).sum(1)


# Short sums, of inputs, of pixels and of projections, have small errors: a product of terms that is left out shows.
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("heads", "head_size", "inputs", "side"), [(1, 8, 24, 5), (4, 32, 512, 20), (2, 3, 600, 9), (1, 96, 40, 13)]
)
def test_projections_alone_are_as_exact_as_convolutions(layout, heads, head_size, inputs, side):
    case = Problem(2, heads, head_size, side, side, 1, 1, 1, 1, torch.float32, layout, 0)
    x, weight, _ = stage_one(case, inputs)
    gradient = torch.randn(2, heads * head_size, side, side)
    wide, keywords = [x.double(), weight.double(), None], {"heads": heads}
    exact, eager, actual = (
        run(function, tensors, keywords, gradient)
        for function, tensors in (
            (add_convolutions, wide),
            (add_convolutions, [x, weight, None]),
            (add_projections, [x, weight, None]),
        )
    )
    assert_as_exact_as_eager("output", actual[0], eager[0], exact[0])
    for name, ours, theirs, truth in zip(("x", "weight"), actual[1], eager[1], exact[1], strict=False):
        assert_as_exact_as_eager(name, ours, theirs, truth)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("scale", [1e-20, 1e15])
def test_small_and_large_inputs_are_as_exact(scale, layout):
    case = Problem(2, 4, 12, 11, 9, 5, 3, 1, 1, torch.float32, layout, 0)
    assert_all_stages_as_exact_as_eager(case, 40, True, "cpu", scale)


# Sides that fill no tile, of inputs, of projections and of maps; heads together in scratch, one by one, mixed.
@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize(
    ("inputs", "layout", "dtype"),
    [
        (1, "contiguous", torch.float32),
        (3, "channels_last", torch.float32),
        (17, "sliced", torch.float32),
        (33, "channels_last", torch.float32),
        (47, "sliced", torch.float32),
        (1, "channels_last", torch.bfloat16),
        (33, "channels_last", torch.bfloat16),
        (47, "contiguous", torch.bfloat16),
    ],
)
@pytest.mark.parametrize(
    ("heads", "head_size", "batch", "height", "width", "stride"),
    [(1, 1, 1, 1, 1, 1), (1, 5, 3, 7, 5, 2), (3, 7, 2, 13, 17, 1), (4, 19, 1, 9, 31, 3), (8, 3, 1, 5, 31, 1)],
)
def test_sides_that_fill_no_tile(layout, inputs, dtype, heads, head_size, batch, height, width, stride):
    case = Problem(batch, heads, head_size, height, width, 5, 3, stride, 1, dtype, layout, 0)
    poison_scratch()
    assert_all_stages_as_exact_as_eager(case, inputs, inputs != 33, "cpu")


# Strips; bands, also such that begin within a pair of registers; interleaved images; passes; parts and slices.
@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize(
    ("count", "layout", "dtype"),
    [
        (1, "channels_last", torch.float32),
        (2, "contiguous", torch.float32),
        (3, "channels_last", torch.float32),
        (4, "sliced", torch.float32),
        (1, "channels_last", torch.bfloat16),
        (3, "sliced", torch.bfloat16),
    ],
)
@pytest.mark.parametrize(
    ("heads", "head_size", "batch", "height", "width", "inputs", "window", "kernel", "stride"),
    [
        (2, 3, 1, 60, 9, 5, 7, 3, 1),
        (4, 3, 2, 3, 140, 7, 3, 3, 1),
        (4, 3, 1, 3, 261, 33, 3, 3, 2),
        (8, 2, 1, 12, 131, 3, 5, 3, 1),
        (2, 3, 2, 3, 140, 5, 21, 3, 1),
        (2, 3, 5, 7, 7, 200, 5, 3, 1),
        (2, 16, 5, 9, 10, 20, 3, 3, 3),
        (4, 32, 1, 12, 11, 50, 3, 3, 1),
        (4, 40, 3, 6, 5, 17, 3, 1, 2),
        (1, 4, 1, 41, 13, 40, 1, 3, 1),
        (2, 16, 1, 9, 131, 20, 3, 1, 1),
        (1, 4, 3, 13, 24, 300, 1, 1, 1),
    ],
)
def test_bands_and_strips_meet(
    threads, layout, count, dtype, heads, head_size, batch, height, width, inputs, window, kernel, stride
):
    case = Problem(batch, heads, head_size, height, width, window, kernel, stride, 1, dtype, layout, 0)
    threads(count)
    poison_scratch()
    assert_all_stages_as_exact_as_eager(case, inputs, True, "cpu")


# Bands as high as one thread's part of the last cache allows.
@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bands_of_one_thread_that_fill_its_cache_meet(threads, dtype):
    case = Problem(1, 4, 16, 80, 80, 7, 3, 1, 1, dtype, "channels_last", 0)
    threads(1)
    poison_scratch()
    assert_all_stages_as_exact_as_eager(case, 64, True, "cpu")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_strips_of_half_precision_meet(layout, dtype):
    case = Problem(1, 4, 9, 7, 150, 5, 3, 1, 1, dtype, layout, 0)
    assert_all_stages_as_exact_as_eager(case, 35, True, "cpu")


# Neighbouring channels may be multiplied in pairs: views that begin, end and step between two of a pair.
@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("inputs", [1, 16, 37])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_views_of_channels_are_like_copies(dtype, inputs, stride):
    whole = torch.randn(2, 43, 9, 11).to(dtype).to(memory_format=torch.channels_last)
    layer = acmix.ACmix(inputs, 8, kernel_att=5, stride=stride, backend="cpu", dtype=dtype)
    for view in (whole[:, 3 : 3 + inputs], whole[:, :inputs, 1:, 1::2], whole[:1, 43 - inputs :]):
        dense = layer(view.contiguous())
        assert torch.equal(layer(view), dense)
        assert torch.equal(layer(view.contiguous(memory_format=torch.channels_last)), dense)
        # Without gradients the weight is read in its own dtype.
        with torch.no_grad():
            assert torch.equal(layer(view), dense)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_pixel_that_is_not_finite_stays_where_it_is_seen(layout):
    layer = acmix.ACmix(20, 16, kernel_att=3, backend="cpu", dtype=torch.bfloat16)
    x = torch.randn(2, 20, 12, 12).to(torch.bfloat16).to(memory_format=layout)
    before = layer(x)
    x[0, 7, 5, 6] = torch.inf
    after = layer(x)
    assert not after[0, :, 4:7, 5:8].isfinite().any()
    after[0, :, 4:7, 5:8] = before[0, :, 4:7, 5:8]
    assert torch.equal(after, before)


# Bands of a strip that hand on rows which taps reach.
@pytest.mark.parametrize(
    ("heads", "head_size", "height", "inputs", "window", "kernel"), [(8, 3, 17, 3, 3, 3), (2, 16, 50, 20, 1, 3)]
)
def test_bands_of_strips_keep_the_halo(threads, heads, head_size, height, inputs, window, kernel):
    threads(3)
    case = Problem(1, heads, head_size, height, 140, window, kernel, 1, 1, torch.float32, "contiguous", 0)
    assert_all_stages_as_exact_as_eager(case, inputs, True, "cpu")


# Maps whose halo ends the last register of a row: behind the last map of all lies none that clears it.
@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("width", "window"), [(33, 5), (56, 7), (9, 7)])
def test_mixtures_see_nothing_behind_the_last_map(width, window, dtype):
    case = Problem(1, 8, 3, 5, width, window, 3, 1, 1, dtype, "contiguous", 0)
    poison_scratch(dtype)
    assert_all_stages_as_exact_as_eager(case, 3, True, "cpu")


def outputs_and_gradients(layer, x, backend):
    layer.backend = backend
    x = x.detach().requires_grad_()
    output = layer(x)
    return output.detach(), torch.autograd.grad(output.sum(), x)[0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("channels", "side", "stride"), [(8, 7, 1), (32, 20, 1), (16, 13, 2)])
# NaN as processors, in both signs, and as GPUs write it, with all bits; infinity in both signs.
@pytest.mark.parametrize("bits", [0x7FC00000, -0x400000, 0x7FFFFFFF, -1, 0x7F800000, -0x800000])
def test_what_is_not_finite_stays_in_its_image(bits, channels, side, stride, layout):
    layer = acmix.ACmix(19, channels, stride=stride, backend="cpu")
    x = torch.randn(4, 19, side, side).to(memory_format=layout)
    disturbed = x.clone()
    disturbed[1, 3, 4, 5] = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    others = [0, 2, 3]
    for whole, part in zip(
        outputs_and_gradients(layer, x, "cpu"), outputs_and_gradients(layer, disturbed, "cpu"), strict=True
    ):
        assert torch.equal(whole[others], part[others])
        assert part[others].isfinite().all()
    # Not portable's: a matrix product over all pixels spreads what is not finite to the whole image.
    ours, defined = (outputs_and_gradients(layer, disturbed, backend)[0] for backend in ("cpu", "reference"))
    assert not defined.isfinite().all()
    assert torch.equal(ours.isfinite(), defined.isfinite())
