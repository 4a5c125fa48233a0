"""The layer: initialisation, validation, and everything a user does to a module."""

import copy
import io
import json
import operator

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx

import acmix
from acmix.nn import ACmix
from acmix.paths import ConvolutionPath

# What an operator tells of the convolution that it stands in for.
LIKE_A_CONVOLUTION = (
    *("in_channels", "out_channels", "kernel_size", "stride"),
    *("padding", "dilation", "groups", "padding_mode"),
)


def shifts(layer):
    return torch.eye(layer.kernel_conv**2).view(-1, layer.kernel_conv, layer.kernel_conv).expand_as(layer.dep_weight)


def test_output_size_is_that_of_the_convolution_it_replaces():
    for height, width, stride, dilation in [(1, 1, 1, 1), (7, 10, 2, 1), (11, 4, 3, 1), (8, 8, 2, 2)]:
        x = torch.randn(2, 6, height, width)
        convolution = nn.Conv2d(6, 8, 3, stride, padding=dilation, dilation=dilation)
        assert ACmix(6, 8, stride=stride, dilation=dilation)(x).shape == convolution(x).shape


def test_starts_as_shifts_with_equal_rates():
    layer = ACmix(8, 16, kernel_conv=5)
    assert torch.equal(layer.dep_weight, shifts(layer))
    assert layer.rate_attention.item() == layer.rate_convolution.item() == 0.5


def test_quiet_shifts_have_the_norm_of_random_kernels():
    layer = ACmix(8, 64, quiet_shifts=True)
    torch.testing.assert_close(layer.dep_weight, shifts(layer) * (2 / 64) ** 0.5)
    random = nn.init.kaiming_normal_(torch.empty(64, 9, 3, 3), mode="fan_out", nonlinearity="relu")
    assert abs(random.norm() / layer.dep_weight.norm() - 1) < 0.1
    assert "quiet_shifts=True" in repr(layer)


def test_shifts_survive_a_loop_over_convolutions():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), ACmix(8, 8))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    assert torch.equal(network[1].dep_weight, shifts(network[1]))


def test_reset_parameters_restores_the_start():
    layer = ACmix(8, 8)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(9)
    layer.reset_parameters()
    assert torch.equal(layer.dep_weight, shifts(layer))
    assert all((parameter != 9).any() for parameter in layer.parameters())


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((8, 10), {}, ValueError, "out_channels must be divisible by heads, got out_channels=10 and heads=4"),
        ((8, 8), {"kernel_att": 8}, ValueError, "kernel_att must be odd.*got 8"),
        ((8, 8), {"kernel_conv": 2}, ValueError, "kernel_conv must be odd.*got 2"),
        ((8, 8), {"kernel_att": 65}, ValueError, "kernel_att must be at most 31, got 65; is it a number of channels"),
        ((0, 8), {}, ValueError, "in_channels must be at least 1, got 0"),
        ((8, 8.0), {}, TypeError, "out_channels must be an integer, got 8.0"),
        ((8, 8), {"stride": (2, 1)}, ValueError, r"stride must be one number for both axes, got \(2, 1\)"),
        ((8, 8), {"dilation": "2"}, TypeError, "dilation must be an integer, got '2'"),
        ((8, 8), {"kernel_size": (3, 5)}, ValueError, r"kernel_size must be one number for both axes, got \(3, 5\)"),
        (
            (8, 8),
            {"kernel_size": 5, "kernel_conv": 7},
            ValueError,
            "give one of them, got kernel_conv=7 and kernel_size=5",
        ),
        ((8, 8), {"kernel_size": 4}, ValueError, "kernel_conv must be odd.*got 4"),
        (
            (8, 8),
            {"padding": 0},
            ValueError,
            r"padding must be dilation \* \(kernel_conv // 2\) = 1, .*got 0; pad or crop",
        ),
        ((8, 8), {"padding": "valid"}, ValueError, "padding must be .* = 1, .*got 'valid'"),
        ((8, 8), {"groups": 8}, ValueError, "groups must be 1, got 8: .*keep nn.Conv2d for depthwise"),
        ((8, 8), {"padding_mode": "reflect"}, ValueError, "padding_mode must be 'zeros'.*got 'reflect'"),
        ((8, 8), {"backend": "gpu"}, ValueError, "backend must be one of auto, .*got 'gpu'"),
        ((8, 8, 3, 2), {}, TypeError, "by name, got 3, 2: is it kernel_conv, .*or kernel_att"),
    ],
)
def test_bad_arguments(arguments, options, error, words):
    with pytest.raises(error, match=words):
        ACmix(*arguments, **options)


def test_integers_of_numpy_are_integers():
    three, eight = np.int64(3), np.int32(8)
    layer = ACmix(three, eight, heads=np.int8(2), kernel_att=three, kernel_conv=three, stride=np.int64(2), dilation=1)
    sizes = (layer.in_channels, layer.out_channels, layer.heads, layer.kernel_att, *layer.kernel_size, *layer.stride)
    assert json.dumps(sizes) == "[3, 8, 2, 3, 3, 3, 2, 2]"
    assert layer(torch.zeros(1, 3, 4, 4)).shape == (1, 8, 2, 2)


@pytest.mark.parametrize("padding", [None, 4, (4, 4), [4, 4], "same"])
def test_arguments_of_a_convolution_mean_what_they_mean_there(padding):
    options = {"kernel_size": (5, 5), "stride": (2, 2), "dilation": (2, 2), "groups": 1, "padding_mode": "zeros"}
    layer = ACmix(8, 16, padding=padding, bias=True, **options)
    assert repr(layer) == repr(ACmix(8, 16, kernel_conv=5, stride=2, dilation=2, bias=True))
    convolution = nn.Conv2d(8, 16, padding=4, **options)
    for name in (*options, "padding", "in_channels", "out_channels"):
        assert getattr(layer, name) == getattr(convolution, name)


@pytest.mark.parametrize("x", [None, 3, [[1.0]]])
def test_what_is_no_tensor_is_refused_by_name(x):
    with pytest.raises(TypeError, match=f"x must be a torch.Tensor, got {type(x).__name__}"):
        ACmix(8, 8)(x)


@pytest.mark.parametrize("shape", [(5, 5), (7, 5, 5), (1, 7, 5, 5), (1, 1, 8, 5, 5)])
def test_bad_input(shape):
    with pytest.raises(ValueError, match=r"x must have the shape \(B, C_in = 8, H, W\) with"):
        ACmix(8, 8)(torch.randn(shape))


def test_repr_shows_the_configuration():
    text = repr(ACmix(8, 16, heads=2, stride=2))
    assert "8, 16, heads=2, kernel_att=7, kernel_conv=3, stride=2, dilation=1, backend='auto'" in text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    layer = ACmix(8, 8).to(dtype)
    x = torch.randn(2, 8, 9, 20, dtype=dtype, requires_grad=True)
    output = layer(x)
    output.sum().backward()
    assert output.dtype == x.grad.dtype == dtype
    assert all(torch.isfinite(parameter.grad).all() for parameter in layer.parameters())


@pytest.mark.parametrize("size", [(9, 20), (40, 40)])
def test_memory_format_is_kept(size):
    layer = ACmix(8, 8)
    x = torch.randn(2, 8, *size)
    assert layer(x).is_contiguous()
    last = layer(x.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, layer(x))


def test_autocast_trains():
    layer = ACmix(8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(torch.randn(2, 8, 9, 9))
    output.float().square().mean().backward()
    assert output.dtype == torch.bfloat16
    assert all(parameter.grad.dtype == torch.float32 for parameter in layer.parameters())


def test_state_dict_is_pickle_free_and_complete():
    layer = ACmix(8, 8)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other = ACmix(8, 8)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    x = torch.randn(1, 8, 5, 5)
    assert torch.equal(layer(x), other(x))
    assert torch.equal(layer(x), copy.deepcopy(layer)(x))


def test_bias_is_added_and_learned():
    torch.manual_seed(0)
    plain = ACmix(8, 8)
    layer = ACmix(8, 8, bias=True)
    assert torch.equal(layer.bias, torch.zeros(8))
    layer.load_state_dict({**plain.state_dict(), "bias": torch.arange(8.0)})
    x = torch.randn(2, 8, 5, 5)
    output = layer(x)
    torch.testing.assert_close(output, plain(x) + torch.arange(8.0)[:, None, None])
    output.sum().backward()
    torch.testing.assert_close(layer.bias.grad, torch.full((8,), 50.0))
    assert "bias=True" in repr(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (5, 2, 1), (1, 1, 2), (3, 2, 3)])
def test_what_code_reads_of_a_convolution(kernel, stride, dilation):
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(8, 16, kernel, stride, padding, dilation, bias=False, dtype=torch.float16)
    layer = ACmix(8, 16, kernel_conv=kernel, stride=stride, dilation=dilation, dtype=torch.float16)
    names = (*LIKE_A_CONVOLUTION, "bias")
    assert {name: getattr(layer, name) for name in names} == {name: getattr(convolution, name) for name in names}
    assert (layer.weight.dtype, layer.weight.device) == (torch.float16, torch.device("cpu"))
    assert layer.to("meta").weight.device == torch.device("meta")


USES_OF_A_KERNEL = (
    torch.clone,
    nn.init.zeros_,
    torch.ones(1).mul,
    lambda weight: weight * torch.ones(1),
    lambda weight: weight * 2,
    lambda weight: 2 * weight,
    lambda weight: np.ones(2) * weight,
    lambda weight: weight**2,
    lambda weight: weight @ weight,
    lambda weight: weight < 1,
    lambda weight: weight == 0,
    lambda weight: weight != 0,
    lambda weight: weight << 1,
    bool,
    lambda weight: operator.iadd(weight, 1),
    operator.neg,
    operator.itemgetter(0),
    abs,
    len,
    list,
    np.asarray,
    lambda weight: operator.setitem(weight, 0, 1),
)


def test_its_weight_is_no_kernel():
    layer = ACmix(8, 16)
    assert "weight" not in layer.state_dict()
    assert not hasattr(layer.weight, "shape")
    with pytest.raises(AttributeError, match="has no 'data': no kernel .* computes the operator; see .* acmix.fuse"):
        _ = layer.weight.data
    for function in USES_OF_A_KERNEL:
        with pytest.raises(AttributeError, match="the weight of an ACmix tells its dtype and device alone"):
            function(layer.weight)


def test_nothing_can_be_put_on_its_weight():
    layer = ACmix(8, 16)
    with pytest.raises(AttributeError, match="it has no 'requires_grad': no kernel"):
        layer.weight.requires_grad = False
    with pytest.raises(AttributeError, match="it has no 'data': no kernel"):
        layer.weight.data = torch.ones(16, 8, 3, 3)
    for weight in (torch.ones(16, 8, 3, 3), nn.Parameter(torch.ones(16, 8, 3, 3)), None):
        with pytest.raises(AttributeError, match="it is not set: no kernel"):
            layer.weight = weight
    copied = copy.deepcopy(layer.half().weight)
    assert (copied.dtype, copied.device) == (torch.float16, torch.device("cpu"))


@pytest.mark.parametrize("bias", [False, True])
def test_one_image_without_a_batch(bias):
    layer = ACmix(8, 16, stride=2, bias=bias)
    x = torch.randn(8, 7, 6)
    torch.testing.assert_close(layer(x), layer(x[None])[0])
    layer.qkv.register_forward_hook(lambda module, inputs, output: 2 * output)  # noqa: ARG005
    torch.testing.assert_close(layer(x), layer(x[None])[0])


def test_a_batch_of_biases():
    layer = ACmix(4, 8, bias=True)
    biases, x = torch.randn(3, 8), torch.randn(2, 4, 5, 5)
    mapped = torch.vmap(lambda bias: torch.func.functional_call(layer, {"bias": bias}, x))(biases)
    for output, bias in zip(mapped, biases, strict=True):
        torch.testing.assert_close(output, torch.func.functional_call(layer, {"bias": bias}, x))


@pytest.mark.parametrize("hooked", [False, True])
def test_symbolic_traces_serve_every_size(hooked):
    network = nn.Sequential(nn.Conv2d(3, 8, 1), ACmix(8, 8, bias=True), nn.ReLU())
    if hooked:
        network[1].qkv.register_forward_hook(lambda module, inputs, output: 2 * output)  # noqa: ARG005
    traced = fx.symbolic_trace(network)
    for shape in ((2, 3, 9, 7), (1, 3, 1, 1), (3, 5, 4)):
        x = torch.randn(shape)
        assert torch.equal(traced(x), network(x))
    traced(torch.randn(1, 3, 4, 4)).sum().backward()
    assert network[1].dep_weight.grad is not None


@pytest.mark.parametrize("backend", ["portable", "auto"])
def test_traces_of_operations(backend):
    layer, x = ACmix(4, 8, backend=backend), torch.randn(1, 4, 9, 9)
    traced = make_fx(layer)(x)
    torch.testing.assert_close(traced(2 * x), layer(2 * x))


def test_meta_device_computes_shapes_and_materialises():
    layer = ACmix(8, 16, stride=2, device="meta")
    assert layer(torch.randn(2, 8, 9, 20, device="meta")).shape == (2, 16, 5, 10)
    layer.to_empty(device="cpu").reset_parameters()
    assert torch.equal(layer.dep_weight, shifts(layer))


def test_every_parameter_gets_a_gradient():
    layer = ACmix(8, 8)
    layer(torch.randn(2, 8, 6, 6)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("strict", [False, True])
def test_exports_with_dynamic_batch_and_size(strict):
    layer = ACmix(4, 8, heads=2)
    # Each symbolic axis takes PyTorch half a minute.
    dynamic = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC} | ({} if strict else {3: Dim.DYNAMIC})
    program = torch.export.export(
        layer, (torch.randn(2, 4, 30, 17),), dynamic_shapes=(dynamic,), strict=strict
    ).module()
    for batch, height, width in [(1, 2, 3), (3, 5, 40), (1, 64, 50), (2, 7, 7)]:
        shape = batch, 4, height, 17 if strict else width
        x = torch.randn(shape)
        torch.testing.assert_close(program(x), layer(x))


def test_distributed_data_parallel(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        layer = ACmix(4, 4)
        parallel = nn.parallel.DistributedDataParallel(layer)
        parallel(torch.randn(2, 4, 6, 6)).sum().backward()
        assert all(parameter.grad is not None for parameter in layer.parameters())
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"heads": 0}, ValueError, "heads must be at least 1, got 0"),
        ({"head_size": -1}, ValueError, "head_size must be at least 1, got -1"),
        ({"times": 1.5}, TypeError, "times must be an integer, got 1.5"),
        ({"kernel": 4}, ValueError, "kernel must be odd.*got 4"),
        ({"kernel": 3.0}, TypeError, "kernel must be an integer, got 3.0"),
    ],
)
def test_numbers_of_the_convolution_path_are_checked(arguments, error, words):
    with pytest.raises(error, match=words):
        ConvolutionPath(**{"heads": 2, "head_size": 3, **arguments})


def test_the_public_name_is_the_layer():
    assert acmix.ACmix is ACmix
