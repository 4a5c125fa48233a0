"""ACmix-SAN, by our definition: both paths as the definition reads, any size, every way to run it."""

import copy

import pytest
import torch
from torch import fx
from torch.nn import functional

from acmix.models import PatchwiseACmix, create_model
from acmix.ops.reference import unfold_window

SMALL = {"channels": (32, 64), "depths": (1, 1), "kernels": (3, 5), "num_classes": 3}


def small(**settings):
    torch.manual_seed(0)
    return create_model("acmix_san10", **{**SMALL, **settings}).eval()


def images(*sizes, dtype=torch.float32):
    return torch.randn(2, 3, *sizes, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("size", [(9, 8), (5, 7), (1, 2)])
def test_both_paths_are_those_of_the_definition(size):
    torch.manual_seed(0)
    layer = PatchwiseACmix(64, 5, dtype=torch.float64).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    height, width = size
    x = torch.randn(2, 64, *size, dtype=torch.float64)
    query, key, value = layer.query(x), layer.key(x), layer.value(x)
    seen = unfold_window(key, 5, 1, 1).permute(0, 1, 4, 5, 2, 3).flatten(1, 3)
    weights = layer.weigh(torch.cat((query, seen), 1)).view(2, 2, 25, height, width)
    windows = unfold_window(value, 5, 1, 1).flatten(4)
    attended = torch.stack(
        [torch.einsum("byxj,bjyx->byx", windows[:, channel], weights[:, channel % 2]) for channel in range(16)], 1
    )
    z = torch.cat((query[:, None], key[:, None], value.view(2, 4, 4, height, width)), 1)
    path = layer.convolution
    f = torch.einsum("pc,bcdyx->bdpyx", path.fc_weight, z).flatten(1, 2)
    convolved = functional.conv2d(f, path.dep_weight, padding=1, groups=4)
    expected = layer.rate_attention * attended + layer.rate_convolution * convolved
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(sum(layer.paths(x)), expected)


@pytest.mark.parametrize("sizes", [(1, 1), (7, 90), (40, 40), (61, 33)])
def test_any_size(sizes):
    model = small()
    with torch.inference_mode():
        assert model(images(*sizes)).isfinite().all()
        _, maps = model.forward_intermediates(images(*sizes))
    assert [part.shape[-2:] for part in maps] == [tuple(-(-side // step) for side in sizes) for step in (2, 4)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_autocast_and_gradients(dtype):
    model = small().train()
    half = copy.deepcopy(model).to(dtype)
    exact = copy.deepcopy(model).double()(images(40, 52, dtype=torch.float64))
    with torch.autocast("cpu", dtype):
        mixed = model(images(40, 52))
    for output in (half(images(40, 52, dtype=dtype)), mixed):
        torch.testing.assert_close(output.double(), exact, rtol=0, atol=0.1)
        output.float().square().sum().backward()
    for network in (half, model):
        assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_traces_memory_formats_and_backends():
    model = small()
    x = images(40, 52)
    expected = model(x)
    torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), expected)
    torch.testing.assert_close(copy.deepcopy(model).to(memory_format=torch.channels_last)(x), expected)
    traced = fx.symbolic_trace(model)
    for sizes in ((40, 52), (64, 33)):
        torch.testing.assert_close(traced(images(*sizes)), model(images(*sizes)))
    for module in model.modules():
        if isinstance(module, PatchwiseACmix):
            module.backend = "reference"
    torch.testing.assert_close(model(x), expected)


def test_what_it_cannot_be_is_refused():
    with pytest.raises(ValueError, match="channels must be divisible by 32"):
        small(channels=(32, 48))
    with pytest.raises(ValueError, match="global_pool must be"):
        small(global_pool="max")
