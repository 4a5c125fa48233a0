"""What is special to the compiled kernels; tests/ops/test_backends.py holds them against the definition."""

import dataclasses
import importlib
import os
import shutil

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import acmix
from acmix import ops
from acmix.ops import cpu
from tests.ops.counting import enumerate_flops
from tests.ops.problems import Problem, assert_mix_as_exact_as_eager, run, stage_one

pytestmark = pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler to build with")


@pytest.fixture(autouse=True)
def _kernels_are_built():
    assert ops.why_not("cpu") is None


def problem(heads=2, head_size=4, height=12, width=9, *, batch=2, stride=1, dtype=torch.float32, layout="contiguous"):
    return Problem(batch, heads, head_size, height, width, 7, 3, stride, 1, dtype, layout, 0)


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("height", "width"), [(150, 9), (5, 131), (1, 1), (33, 33)])
def test_bands_and_tails_leave_nothing_unwritten(layout, stride, height, width):
    case = problem(2, 19, height, width, batch=1, stride=stride, layout=layout)
    assert_mix_as_exact_as_eager(case, "cpu")


# Output columns: two strips, strips of the backward pass that leave one column over, the same of the forward pass.
# Every shape has every stride and every layout, and every stride every layout.
@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    ("turn", "heads", "columns", "window", "kernel", "dtype"),
    [
        (0, 2, 129, 7, 3, torch.float32),
        (1, 8, 129, 7, 3, torch.float32),
        (2, 8, 257, 7, 3, torch.float64),
        (3, 2, 257, 9, 5, torch.float32),
        (4, 8, 193, 5, 1, torch.bfloat16),
        (5, 2, 1025, 3, 5, torch.float32),
    ],
)
def test_strips_of_wide_maps_meet(stride, turn, heads, columns, window, kernel, dtype):
    layout = ("contiguous", "channels_last", "sliced")[(stride + turn) % 3]
    height = 5 if columns > 1000 else 23
    case = problem(heads, 3, height, stride * (columns - 1) + 1, stride=stride, batch=1, dtype=dtype, layout=layout)
    assert_mix_as_exact_as_eager(dataclasses.replace(case, window=window, kernel=kernel), "cpu")


# Forward: several bands of one thread, which hand rows on, and of several, which do not.
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("heads", "width", "window", "kernel"), [(8, 100, 7, 3), (8, 24, 3, 5), (2, 140, 5, 1)])
def test_bands_that_follow_each_other_share_rows(threads, layout, stride, heads, width, window, kernel):
    case = problem(heads, 192 // heads, 40, width, stride=stride, dtype=torch.float64, layout=layout)
    case = dataclasses.replace(case, window=window, kernel=kernel)
    expected = ops.mix(*case.tensors(), **case.keywords(), backend="portable")
    results = []
    for count in (1, 3):
        threads(count)
        results.append(ops.mix(*case.tensors(), **case.keywords(), backend="cpu"))
    torch.testing.assert_close(results[0], expected)
    assert torch.equal(*results)


# In pairs of bfloat16 queries of an odd head lie beside keys, whose reflections must not stay in rows that are kept.
@pytest.mark.parametrize("heads", [1, 3])
def test_bands_of_odd_heads_share_rows_without_reflections(threads, heads):
    case = problem(heads, 99 // heads, 60, 120, batch=1, dtype=torch.bfloat16)
    results = []
    for count in (1, 8):
        threads(count)
        results.append(ops.mix(*case.tensors(), **case.keywords(), backend="cpu"))
    assert torch.equal(*results)


def all_stages(case, inputs, *, mixed="two weights"):
    """Tensors of `project_and_mix`; `mixed` names weights that are not there."""
    x, weight, bias = stage_one(case, inputs)
    position, fc, dep, *rates = case.tensors()[1:]
    if mixed == "one kernel":
        fc, dep = None, torch.einsum("pc,opyx->ocyx", fc, dep)
    return x, weight, None if mixed == "no bias" else bias, position, fc, dep, *rates


def run_all_stages(case, tensors, backend="cpu", gradient=None):
    keywords = {"heads": case.heads, **case.keywords(), "backend": backend}
    return run(ops.project_and_mix, tensors, keywords, torch.ones(()) if gradient is None else gradient)


def assert_same_bits(one, other):
    assert torch.equal(one[0], other[0])
    for index, (a, b) in enumerate(zip(one[1], other[1], strict=True)):
        assert (a is None and b is None) or torch.equal(a, b), index


# Bands and strips of every kind: many rows, many columns, interleaved images, several bands a thread; heads of an item
# and items of a head, with fewer and more pixels than weights.
@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    ("heads", "head_size", "batch", "height", "width", "inputs", "kernel", "mixed"),
    [
        (2, 3, 1, 150, 9, 5, 3, "two weights"),
        (4, 3, 2, 5, 300, 7, 3, "no bias"),
        (8, 3, 1, 33, 140, 3, 3, "two weights"),
        (2, 3, 5, 7, 7, 300, 3, "two weights"),
        (1, 3, 1, 1, 1, 1, 3, "two weights"),
        (2, 3, 2, 40, 24, 400, 3, "two weights"),
        (2, 3, 1, 45, 150, 90, 3, "one kernel"),
        (4, 19, 1, 9, 11, 33, 3, "one kernel"),
        (8, 16, 3, 5, 6, 17, 5, "one kernel"),
        (4, 1, 7, 12, 9, 20, 1, "no bias"),
        (8, 16, 1, 6, 5, 16, 3, "two weights"),
        (1, 4, 5, 20, 24, 600, 1, "two weights"),
    ],
)
def test_projections_of_bands_and_strips_meet(
    threads, layout, stride, heads, head_size, batch, height, width, inputs, kernel, mixed
):
    case = problem(heads, head_size, height, width, batch=batch, stride=stride, dtype=torch.float64, layout=layout)
    case = dataclasses.replace(case, kernel=kernel)
    tensors = all_stages(case, inputs, mixed=mixed)
    # One that differs from pixel to pixel, or gradients of neighbours could be exchanged.
    gradient = torch.randn(ops.project_and_mix(*tensors, heads=heads, **case.keywords()).shape, dtype=torch.float64)
    expected = run_all_stages(case, tensors, "portable", gradient)
    results = []
    for count in (1, 2, 3, 4):
        threads(count)
        results.append(run_all_stages(case, tensors, gradient=gradient))
        torch.testing.assert_close(results[-1], expected)
        assert torch.equal(results[-1][0], results[0][0])
    order = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert all(maps.is_contiguous(memory_format=order) for maps in (results[0][0], results[0][1][0]))


def test_projections_are_computed_inside(monkeypatch):
    layer = acmix.ACmix(6, 8, backend="cpu")
    x = torch.randn(2, 6, 9, 9)
    inside = []
    operator = cpu._OPERATORS["project_and_mix"]
    monkeypatch.setitem(cpu._OPERATORS, "project_and_mix", lambda *arguments: inside.append(1) or operator(*arguments))
    expected = layer(x)
    assert inside == [1]
    assert expected.requires_grad
    with torch.no_grad():
        assert torch.equal(layer(x), expected)
    assert inside == [1, 1]
    # A hook must be called, and an attached module may compute anything.
    handle = layer.qkv.register_forward_hook(lambda module, inputs, output: 2 * output)  # noqa: ARG005
    assert not torch.equal(layer(x), expected)
    handle.remove()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    # Where the kernels multiply no pairs of bfloat16, a convolution projects under autocast.
    assert len(inside) == (3 if cpu.instructions() == "avx512_bf16" else 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stride", [1, 2])
def test_autocast_projects_in_its_dtype_and_keeps_weights_wide(stride, dtype):
    layer = acmix.ACmix(6, 8, stride=stride, kernel_att=3, backend="cpu")
    gradients = []
    for given in (torch.float32, dtype):
        x = torch.linspace(-1, 1, 2 * 6 * 9 * 9).reshape(2, 6, 9, 9).to(dtype).to(given).requires_grad_()
        with torch.autocast("cpu", dtype):
            output = layer(x)
        assert output.dtype == dtype
        gradients.append(torch.autograd.grad(output.float().square().sum(), [x, *layer.parameters()]))
        assert gradients[-1][0].dtype == given
        assert all(gradient.dtype == torch.float32 for gradient in gradients[-1][1:])
    assert all(torch.equal(one.float(), other.float()) for one, other in zip(*gradients, strict=True))
    expected = torch.autograd.grad(layer(x.detach().float()).square().sum(), layer.parameters())
    for ours, wide in zip(gradients[0][1:], expected, strict=True):
        assert (ours - wide).norm() <= 0.05 * wide.norm()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("heads", [2, 8])
def test_strips_of_each_path_alone(stride, heads):
    case = problem(heads, 4, 20, 260 * stride, stride=stride, dtype=torch.float64, layout="channels_last")
    projections, _, fc, dep, _, _ = case.tensors()
    for function, tensors in ((ops.local_attention, projections.chunk(3, 1)), (ops.shift_conv, (projections, fc, dep))):
        results = [
            run(function, tensors, {"stride": stride, "backend": backend}, projections.sum())
            for backend in ("cpu", "portable")
        ]
        torch.testing.assert_close(*results)


def test_strips_of_the_widest_window():
    case = dataclasses.replace(problem(1, 2, 40, 200, batch=1, dtype=torch.float64), window=31)
    assert_mix_as_exact_as_eager(case, "cpu")


@pytest.mark.parametrize("stride", [1, 2])
def test_scratch_shows_nothing_of_the_task_before(threads, stride):
    threads(1)
    case = problem(2, 8, 60, 400, stride=stride, batch=1)
    tensors, keywords = case.tensors(), {**case.keywords(), "backend": "cpu"}
    first = run(ops.mix, tensors, keywords, torch.ones(()))
    infinite = [tensors[0].clone(), *tensors[1:]]
    infinite[0][..., :200] = torch.inf
    output, (gradient, *_) = run(ops.mix, infinite, keywords, torch.ones(()))
    assert output[..., -(-203 // stride) :].isfinite().all()
    assert gradient[..., 206:].isfinite().all()
    run(ops.mix, [torch.full_like(tensors[0], torch.nan), *tensors[1:]], keywords, torch.ones(()))
    again = run(ops.mix, tensors, keywords, torch.ones(()))
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], again[1], strict=True))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("heads", "dtype"), [(2, torch.float32), (2, torch.bfloat16), (8, torch.bfloat16)])
def test_scratch_of_projections_shows_nothing_of_the_task_before(threads, heads, dtype, stride, layout):
    threads(1)
    case = problem(heads, 8, 60, 400, stride=stride, batch=1, dtype=dtype, layout=layout)
    x, *others = all_stages(case, 5)
    first = run_all_stages(case, (x, *others))
    infinite = x.clone()
    infinite[..., :200] = torch.inf
    output, (gradient, *_) = run_all_stages(case, (infinite, *others))
    assert output[..., -(-203 // stride) :].isfinite().all()
    assert gradient[..., 206:].isfinite().all()
    run_all_stages(case, (torch.full_like(x, torch.nan), *others))
    assert_same_bits(run_all_stages(case, (x, *others)), first)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("width", "count"), [(7, 1), (7, 3), (24, 2)])
def test_images_projected_together_do_not_meet(threads, stride, width, count, layout):
    threads(count)
    case = problem(4, 3, 9, width, batch=5, stride=stride, layout=layout)
    x, *others = all_stages(case, 20)
    first, (gradient, *_) = run_all_stages(case, (x, *others))
    infinite = x.clone()
    infinite[1] = torch.inf
    output, (disturbed, *_) = run_all_stages(case, (infinite, *others))
    for whole, part in ((first, output), (gradient, disturbed)):
        assert torch.equal(whole[[0, 2, 3, 4]], part[[0, 2, 3, 4]])
    run_all_stages(case, (torch.full_like(x, torch.nan), *others))
    assert_same_bits(run_all_stages(case, (x, *others)), run_all_stages(case, (x, *others)))


# Strips, bands, interleaved images; parts of the heads and slices of the tasks.
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("heads", "batch", "height", "width"), [(4, 1, 30, 300), (8, 1, 45, 24), (4, 5, 9, 7), (4, 1, 7, 6)]
)
def test_projections_repeat_bit_for_bit(threads, heads, batch, height, width, count, dtype, layout):
    threads(count)
    case = problem(heads, 16, height, width, batch=batch, dtype=dtype, layout=layout)
    tensors = all_stages(case, 33)
    first = run_all_stages(case, tensors)
    # Whoever needs scratch in between must not show.
    run_all_stages(problem(2, 3, 20, 50), all_stages(problem(2, 3, 20, 50), 7))
    for _ in range(2):
        assert_same_bits(run_all_stages(case, tensors), first)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_any_subset_of_gradients_of_all_stages(dtype):
    case = problem(2, 3, 17, 9, dtype=dtype)
    tensors = all_stages(case, 5)
    _, every = run_all_stages(case, tensors)
    for wanted in range(len(tensors)):
        leaves = [tensor.detach().requires_grad_(i == wanted) for i, tensor in enumerate(tensors)]
        ops.project_and_mix(*leaves, heads=2, backend="cpu").sum().backward()
        assert [i for i, leaf in enumerate(leaves) if leaf.grad is not None] == [wanted]
        torch.testing.assert_close(leaves[wanted].grad, every[wanted])


@pytest.mark.parametrize("mixed", ["two weights", "one kernel", "no bias"])
def test_all_stages_of_an_empty_batch(mixed):
    case = problem(2, 3, 17, 9)
    x, *others = all_stages(case, 5, mixed=mixed)
    output, gradients = run_all_stages(case, (x[:0], *others))
    assert output.shape == (0, 6, 17, 9)
    assert all((gradient == 0).all() for gradient in gradients if gradient is not None)


@pytest.mark.parametrize("heads", [2, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradcheck_of_a_layer(threads, stride, heads):
    threads(2)
    layer = acmix.ACmix(3, 2 * heads, heads=heads, kernel_att=3, stride=stride, backend="cpu").double()
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def function(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (x, *parameters), fast_mode=True)


def test_a_checkpointed_layer_has_the_same_gradients():
    layer, x = acmix.ACmix(6, 8, backend="cpu"), torch.randn(2, 6, 10, 9)
    results = []
    for function in (layer, lambda x: checkpoint(layer, x, use_reentrant=False)):
        results.append(run(lambda x, *_, function=function: function(x), [x], {}, torch.ones(())))
        results[-1] = (*results[-1], *(torch.autograd.grad(function(x).sum(), layer.parameters())))
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("batch", "width"), [(1, 13), (3, 13), (1, 300)])
def test_bitwise_the_same_for_any_number_of_threads(threads, stride, layout, batch, width):
    case = problem(4, 16, 30, width, batch=batch, stride=stride, layout=layout)
    results = []
    for count in (1, 2, 4, 1, 2):
        threads(count)
        output, gradients = run(ops.mix, case.tensors(), {**case.keywords(), "backend": "cpu"}, torch.ones(()))
        results.append((output, *gradients))
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


# opcheck itself looks at gradients of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize(
    ("layout", "path", "maps_in", "parameters_in"),
    [
        *(
            (layout, path, torch.float32, torch.float32)
            for layout in ("contiguous", "channels_last")
            for path in ("composed", "two steps", "given")
        ),
        ("channels_last", "composed", torch.bfloat16, torch.bfloat16),
        ("channels_last", "two steps", torch.bfloat16, torch.float32),
        ("contiguous", "composed", torch.float64, torch.float32),
    ],
)
def test_opcheck(layout, path, maps_in, parameters_in):
    case = problem(2, 4, 5, 6, layout=layout)
    tensors = case.tensors()
    projections, position, fc, dep, *rates = [tensor.detach().requires_grad_() for tensor in tensors]
    if path == "given":
        fc, dep = None, torch.randn(8, 6, 3, 3, requires_grad=True)
    if layout == "channels_last":
        # As nn.Module.to makes them of every parameter with four axes.
        dep = dep.detach().to(memory_format=torch.channels_last).requires_grad_()

    def leaf(tensor, dtype=parameters_in):
        return None if tensor is None else tensor.detach().to(dtype).requires_grad_()

    projections = leaf(projections, maps_in)
    parameters = [leaf(tensor) for tensor in (position, rates[0], fc, dep, rates[1])]
    arguments = (projections, *parameters, path == "composed", 5, 2)
    torch.library.opcheck(torch.ops.acmix.mix.default, arguments)
    x, *projection = stage_one(case, 5)
    stage = leaf(x, maps_in), *(leaf(tensor) for tensor in projection)
    torch.library.opcheck(torch.ops.acmix.project_and_mix.default, (*stage, *arguments[1:], 2))
    torch.library.opcheck(torch.ops.acmix.project_and_mix.default, (*stage[:2], None, *arguments[1:], 2))
    maps = [tensor.detach().requires_grad_() for tensor in projections.chunk(3, 1)]
    torch.library.opcheck(torch.ops.acmix.local_attention.default, (*maps, 5, 2))


@pytest.mark.parametrize("stride", [1, 2])
def test_compiles_to_one_graph_with_gradients(stride):
    case = problem(4, 4, 10, 9, stride=stride)
    keywords = {**case.keywords(), "backend": "cpu"}
    compiled = torch.compile(ops.mix, fullgraph=True, backend="aot_eager")
    eager, traced = (run(function, case.tensors(), keywords, torch.ones(())) for function in (ops.mix, compiled))
    torch.testing.assert_close(traced, eager)
    layer, x = acmix.ACmix(6, 8, stride=stride, backend="cpu"), torch.randn(2, 6, 10, 9, requires_grad=True)
    traced = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(traced(x), layer(x))
    leaves = [x, *layer.parameters()]
    results = [torch.autograd.grad(function(x).square().sum(), leaves) for function in (layer, traced)]
    torch.testing.assert_close(*results)


def test_counts_operations():
    importlib.import_module("acmix.ops.flops")
    with FlopCounterMode(display=False) as counter:
        projections, *weights = problem(4, 16, 14, 14).tensors()
        projections.requires_grad_()
        ops.mix(projections, *weights, backend="cpu").sum().backward()
        ops.local_attention(*projections.chunk(3, 1), backend="cpu").sum().backward()
    counts = counter.get_flop_counts()["Global"]
    _, attention, convolution = enumerate_flops(14, 14, batch=2, inputs=1, channels=64, heads=4)
    assert counts[torch.ops.acmix.mix] == attention + convolution
    assert counts[torch.ops.acmix.mix_backward] == 2.5 * attention + 2 * convolution
    assert counts[torch.ops.acmix.local_attention] == attention
    assert counts[torch.ops.acmix.local_attention_backward] == 2.5 * attention


@pytest.mark.parametrize("frozen", ["nothing", "input", "weights", "both"])
def test_counts_operations_of_all_stages(frozen):
    importlib.import_module("acmix.ops.flops")
    layer, x = acmix.ACmix(10, 64, backend="cpu"), torch.randn(2, 10, 14, 14)
    x.requires_grad_(frozen in ("nothing", "weights"))
    layer.qkv.requires_grad_(frozen in ("nothing", "input"))
    weights = [layer.position_weight, layer.fc_weight, layer.dep_weight, layer.rate_attention, layer.rate_convolution]
    # Not the layer: the counter hooks all modules, and so the layer calls its projection as one.
    with FlopCounterMode(display=False) as counter:
        ops.project_and_mix(x, layer.qkv.weight, layer.qkv.bias, *weights, heads=4, backend="cpu").sum().backward()
    counts = counter.get_flop_counts()["Global"]
    projection, attention, convolution = enumerate_flops(14, 14, batch=2, inputs=10, channels=64, heads=4)
    assert counts[torch.ops.acmix.project_and_mix] == attention + convolution + projection
    # The projections again, and the gradients of their input and of their weights that are asked for.
    products = {"nothing": 3, "both": 1}.get(frozen, 2)
    assert counts[torch.ops.acmix.project_and_mix_backward] == 2.5 * attention + 2 * convolution + products * projection


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"dilation": 2}, "no dilation, got dilation=2"),
        ({"window": 33}, "window of at most 31, got 33"),
        ({"features": torch.zeros(1, 1, 1, 2, 2, device="meta")}, "on the CPU, got meta"),
    ],
)
def test_says_why_not(changed, reason):
    asked = {"features": torch.zeros(1, 1, 1, 2, 2), "window": 7, "dilation": 1, **changed}
    assert reason in ops.why_not("cpu", **asked)


def test_automatic_choice_takes_portable_for_what_the_kernels_do_not():
    query = torch.randn(1, 2, 3, 9, 9)
    dilated = ops.local_attention(query, query, query, dilation=2)
    assert torch.equal(dilated, ops.local_attention(query, query, query, dilation=2, backend="portable"))


def test_an_exported_graph_holds_standard_operators_only():
    class Layer(torch.nn.Module):
        def forward(self, projections):
            query, key, value = projections.unflatten(1, (6, 2)).chunk(3, 1)
            return ops.local_attention(query, key, value, window=3)

    exported = torch.export.export(Layer(), (torch.randn(1, 12, 16, 16),))
    assert not any("acmix" in str(node.target) for node in exported.graph.nodes)
