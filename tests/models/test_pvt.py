"""ACmix-PVT, by our definition: its figures, both paths as the definition reads, any size, every way to run it."""

import copy

import pytest
import torch
from torch import fx
from torch.nn import functional

from acmix.models import PyramidACmix, create_model

SMALL = {"channels": (16, 32), "depths": (1, 1), "num_heads": (1, 2), "mlp_ratios": (2, 2), "ratios": (3, 1)}


def small(**settings):
    torch.manual_seed(0)
    return create_model("acmix_pvt_tiny", **{**SMALL, "num_classes": 3, "img_size": 40, **settings}).eval()


def images(*sizes, dtype=torch.float32):
    return torch.randn(2, 3, *sizes, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize(("ratio", "tokens"), [(1, 1), (1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("size", [(6, 6), (5, 7), (1, 2)])
def test_both_paths_are_those_of_the_definition(ratio, tokens, size):
    torch.manual_seed(0)
    layer = PyramidACmix(12, 3, ratio=ratio, tokens=tokens, dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    height, width = size
    x = torch.randn(2, tokens + height * width, 12, dtype=torch.float64)
    keys = x
    if ratio > 1:
        padded = x.transpose(1, 2).unflatten(2, size)
        padded = functional.pad(padded, (0, -width % ratio, 0, -height % ratio))
        keys = layer.norm(layer.sr(padded).flatten(2).transpose(1, 2))
    query, (key, value) = layer.q(x), layer.kv(keys).chunk(2, 2)
    heads = (part.unflatten(2, (3, 4)).transpose(1, 2) for part in (query, key, value))
    logits = torch.einsum("bnid,bnjd->bnij", next(heads), next(heads)) / 2
    attended = (logits.softmax(-1) @ next(heads)).transpose(1, 2).flatten(2)
    rows, columns = -(-height // ratio), -(-width // ratio)

    def full(maps):
        return maps[:, tokens:] if ratio == 1 else nearest(maps, (rows, columns))

    def nearest(maps, reduced):
        grid = maps.unflatten(1, reduced)
        down, right = torch.arange(height) // ratio, torch.arange(width) // ratio
        return grid[:, down[:, None], right].flatten(1, 2)

    z = torch.cat((query[:, tokens:], full(key), full(value)), 2).unflatten(2, (9, 4)).unflatten(1, size)
    path = layer.convolution
    f = torch.einsum("pc,byxcd->bdpyx", path.fc_weight, z) + path.fc_bias[:, None, None]
    convolved = functional.conv2d(f.flatten(1, 2), path.dep_weight, padding=1, groups=4).flatten(2).transpose(1, 2)
    expected = layer.rate_attention * layer.proj(attended)
    expected[:, tokens:] += layer.rate_convolution * convolved
    torch.testing.assert_close(layer(x, size), expected)
    torch.testing.assert_close(sum(layer.paths(x, size)), expected)


@pytest.mark.parametrize("sizes", [(1, 1), (7, 90), (40, 40), (61, 33)])
def test_any_size(sizes):
    model = small()
    with torch.inference_mode():
        assert model(images(*sizes)).isfinite().all()
        _, maps = model.forward_intermediates(images(*sizes))
    assert [part.shape[-2:] for part in maps] == [tuple(-(-side // step) for side in sizes) for step in (4, 8)]


def test_a_smaller_grid_has_the_positions_of_its_own():
    model = small()
    with torch.no_grad():
        model.stages[0].pos_embed.copy_(torch.arange(100.0)[None, :, None].expand(-1, -1, 16))
    seen = []
    model.stages[0].blocks[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    model.stages[0].patch_embed.norm.register_forward_hook(lambda _, __, output: output * 0)
    model(images(40, 40))
    model(images(20, 40))
    torch.testing.assert_close(seen[0][0, :, 0], torch.arange(100.0))
    grid = torch.arange(100.0).view(1, 1, 10, 10)
    fewer = functional.interpolate(grid, (5, 10), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(seen[1][0, :, 0], fewer.flatten())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_autocast_and_gradients(dtype):
    model = small().train()
    exact = copy.deepcopy(model).double()(images(40, 52, dtype=torch.float64))
    half = copy.deepcopy(model).to(dtype)
    with torch.autocast("cpu", dtype):
        mixed = model(images(40, 52))
    for output in (half(images(40, 52, dtype=dtype)), mixed):
        assert output.dtype == dtype
        torch.testing.assert_close(output.double(), exact, rtol=0, atol=0.03)
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
        if isinstance(module, PyramidACmix):
            module.backend = "reference"
    torch.testing.assert_close(model(x), expected)


def test_poolings():
    model = small()
    features = model.forward_features(images(40, 40))
    assert features.shape == (2, 1 + 25, 32)
    for pooling, expected in (("token", features[:, 0]), ("avg", features[:, 1:].mean(1)), ("", features)):
        model.reset_classifier(0, pooling)
        torch.testing.assert_close(model.forward_head(features), expected)
    with pytest.raises(ValueError, match=r"global_pool must be one of .*, got 'max'"):
        model.reset_classifier(3, "max")
    with pytest.raises(ValueError, match="channels must be divisible by heads"):
        small(num_heads=(3, 2))
