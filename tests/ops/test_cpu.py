"""The compiled kernels against the definition in float64: forward and every gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from acmix import ops
from acmix.ops import cpu, reference

PARAMETERS = ("position_weight", "fc_weight", "dep_weight", "rate_attention", "rate_convolution")


@pytest.fixture(autouse=True)
def _kernels_are_built():
    assert cpu.why_not(None, 7, 1, 1) is None


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def make_inputs(batch, heads, head_size, height, width, kernel=3, dtype=torch.float32, channels_last=False, seed=0):
    """The packed projections and the parameters of the mix."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)

    wide = torch.promote_types(dtype, torch.float32)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    projections = normal(batch, 3 * heads * head_size, height, width).contiguous(memory_format=memory_format)
    parameters = (
        normal(head_size, 2),
        normal(kernel**2, 3 * heads, scale=0.3),
        normal(heads * head_size, kernel**2, kernel, kernel, scale=0.3),
        torch.tensor([0.7]),
        torch.tensor([-0.4]),
    )
    return projections, tuple(parameter.to(wide) for parameter in parameters)


def compute(module, projections, parameters, heads, path, window, stride):
    """One of the three functions of a backend on views of the packed projections."""
    query, key, value = projections.unflatten(1, (3, heads, -1)).unbind(1)
    if path == "attention":
        return module.local_attention(query, key, value, window, stride, 1).flatten(1, 2)
    if path == "convolution":
        return module.shift_conv(query, key, value, parameters[1], parameters[2], stride, 1)
    return module.mix(query, key, value, *parameters, window, stride, 1)


def with_gradients(module, projections, parameters, heads, path, window, stride):
    """The output and the gradients of everything that the path uses."""
    projections = projections.detach().requires_grad_()
    parameters = tuple(parameter.detach().requires_grad_() for parameter in parameters)
    used = {"attention": (), "convolution": parameters[1:3], "mix": parameters}[path]
    output = compute(module, projections, parameters, heads, path, window, stride)
    generator = torch.Generator().manual_seed(1)
    slope = torch.randn(output.shape, generator=generator).bfloat16().to(output.dtype)
    return output, *torch.autograd.grad(output, (projections, *used), slope)


def assert_matches_definition(projections, parameters, heads, path, window, stride):
    actual = with_gradients(cpu, projections, parameters, heads, path, window, stride)
    wide = tuple(parameter.double() for parameter in parameters)
    expected = with_gradients(reference, projections.double(), wide, heads, path, window, stride)
    for got, wanted in zip(actual, expected, strict=True):
        assert got.shape == wanted.shape
        if got.numel():
            error = (got.double() - wanted).abs().max() / wanted.abs().max().clamp(min=1)
            assert error <= 64 * torch.finfo(got.dtype).eps


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    batch=st.integers(1, 5),
    heads=st.sampled_from((1, 2, 3, 4, 6)),
    head_size=st.sampled_from((1, 2, 5, 8, 16, 19)),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    window=st.sampled_from((1, 3, 5, 7, 9)),
    kernel=st.sampled_from((1, 3, 5)),
    stride=st.sampled_from((1, 2, 3)),
    dtype=st.sampled_from((torch.float32, torch.float64, torch.float16, torch.bfloat16)),
    channels_last=st.booleans(),
    path=st.sampled_from(("attention", "convolution", "mix")),
    seed=st.integers(0, 99),
)
def test_matches_definition(
    batch, heads, head_size, height, width, window, kernel, stride, dtype, channels_last, path, seed
):
    projections, parameters = make_inputs(batch, heads, head_size, height, width, kernel, dtype, channels_last, seed)
    assert_matches_definition(projections, parameters, heads, path, window, stride)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels_last", [False, True])
def test_bands_of_a_tall_map_meet(stride, channels_last):
    projections, parameters = make_inputs(1, 2, 4, 150, 9, channels_last=channels_last)
    assert_matches_definition(projections, parameters, 2, "mix", 7, stride)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels_last", [False, True])
def test_bitwise_the_same_for_any_number_of_threads(threads, stride, channels_last):
    projections, parameters = make_inputs(3, 4, 16, 30, 13, channels_last=channels_last)
    results = []
    for count in (1, 2, 4, 1, 2):
        threads(count)
        results.append(with_gradients(cpu, projections, parameters, 4, "mix", 7, stride))
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("channels_last", [False, True])
def test_output_keeps_the_memory_format(channels_last):
    projections, parameters = make_inputs(2, 4, 16, 9, 9, channels_last=channels_last)
    output = compute(cpu, projections, parameters, 4, "mix", 7, 1)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert output.is_contiguous(memory_format=memory_format)


def test_empty_batch():
    projections, parameters = make_inputs(0, 4, 4, 5, 6)
    output, gradient, *others = with_gradients(cpu, projections, parameters, 4, "mix", 7, 2)
    assert output.shape == (0, 16, 3, 3)
    assert gradient.shape == projections.shape
    assert all(not other.any() for other in others)


def test_arbitrary_strides():
    projections, parameters = make_inputs(2, 2, 4, 12, 14)
    turned = projections.transpose(2, 3)[:, :, ::2, 1::3]
    assert_matches_definition(turned, parameters, 2, "mix", 5, 1)


@pytest.mark.parametrize("wanted", range(6))
def test_gradient_of_one_input_alone(wanted):
    projections, parameters = make_inputs(1, 2, 4, 6, 7, dtype=torch.float64)
    everything = (projections, *parameters)
    full = with_gradients(cpu, projections, parameters, 2, "mix", 5, 1)[1:]
    alone = [tensor.detach().requires_grad_(index == wanted) for index, tensor in enumerate(everything)]
    output = compute(cpu, alone[0], tuple(alone[1:]), 2, "mix", 5, 1)
    generator = torch.Generator().manual_seed(1)
    slope = torch.randn(output.shape, generator=generator).bfloat16().to(output.dtype)
    (gradient,) = torch.autograd.grad(output, alone[wanted], slope)
    assert torch.allclose(gradient, full[wanted], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("heads", "stride"), [(2, 1), (2, 2), (6, 1)])
def test_gradcheck(heads, stride):
    projections, parameters = make_inputs(1, heads, 2, 5, 4, dtype=torch.float64)
    inputs = tuple(tensor.detach().requires_grad_() for tensor in (projections, *parameters))
    assert torch.autograd.gradcheck(
        lambda first, *rest: compute(cpu, first, rest, heads, "mix", 3, stride), inputs, fast_mode=True
    )


# opcheck itself looks at gradients of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("channels_last", [False, True])
def test_opcheck(channels_last):
    projections, (position, _, _, rate, _) = make_inputs(2, 2, 4, 5, 6, channels_last=channels_last)
    maps = projections.unflatten(1, (3, 2, 4)).unbind(1)
    maps = [tensor.detach().requires_grad_() for tensor in maps]
    kernel = torch.randn(4, 2, 6, 3, 3, requires_grad=True)
    arguments = (*maps, position.requires_grad_(), rate.requires_grad_(), kernel, None, 5, 2)
    torch.library.opcheck(torch.ops.acmix.stage2.default, arguments)


@pytest.mark.parametrize("stride", [1, 2])
def test_compiles_to_one_graph(stride):
    projections, parameters = make_inputs(2, 4, 4, 10, 9)

    def layer(first, *rest):
        query, key, value = first.unflatten(1, (3, 4, -1)).unbind(1)
        return ops.mix(query, key, value, *rest, window=5, stride=stride, backend="cpu")

    compiled = torch.compile(layer, fullgraph=True)
    results = []
    for function in (layer, compiled):
        inputs = tuple(tensor.detach().requires_grad_() for tensor in (projections, *parameters))
        results.append(torch.autograd.grad(function(*inputs).square().sum(), inputs))
    for eager, traced in zip(*results, strict=True):
        assert torch.allclose(eager, traced, rtol=1e-4, atol=1e-5)


def test_counts_operations():
    projections, parameters = make_inputs(2, 4, 16, 14, 14)
    with FlopCounterMode(display=False) as counter:
        compute(cpu, projections, parameters, 4, "mix", 7, 1)
    counts = counter.get_flop_counts()["Global"]
    assert counts[torch.ops.acmix.stage2] == 2 * 2 * 14 * 14 * (98 * 64 + 27 * 4 * 64)


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        ({"dilation": 2}, "no dilation, got dilation=2"),
        ({"window": 33}, "window of at most 31, got 33"),
        ({"query": torch.zeros(1, 1, 1, 2, 2, device="meta")}, "on the CPU, got meta"),
    ],
)
def test_says_why_not(problem, reason):
    arguments = {"query": torch.zeros(1, 1, 1, 2, 2), "window": 7, "dilation": 1, **problem}
    assert reason in ops.why_not("cpu", **arguments)


def test_automatic_choice_falls_back_for_export():
    class Layer(torch.nn.Module):
        def forward(self, projections):
            query, key, value = projections.unflatten(1, (3, 2, 2)).unbind(1)
            return ops.local_attention(query, key, value, window=3)

    exported = torch.export.export(Layer(), (torch.randn(1, 12, 16, 16),))
    assert not any("acmix" in str(node.target) for node in exported.graph.nodes)
