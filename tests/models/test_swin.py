"""ACmix-Swin: the published logits, any size, masks and windows as timm has them, every way to run it."""

import copy
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import fx

from acmix.checkpoints import load_weights, to_published
from acmix.models import SwinBlock, WindowACmix, create_model, mix_paths, swin

DATA = Path(__file__).parents[1] / "data"
TIMM = "swin_tiny_patch4_window7_224"
# As few blocks as have a shifted one and a small map.
SMALL = {"depths": (2, 1, 1, 1), "num_heads": (1, 2, 4, 8), "embed_dim": 32, "num_classes": 3, "drop_path_rate": 0.0}


def small(name="acmix_swin_tiny", **settings):
    torch.manual_seed(0)
    return create_model(name, **{**SMALL, **settings})


def images(*sizes, batch=2, dtype=torch.float32):
    return torch.randn(batch, 3, *sizes, generator=torch.Generator().manual_seed(1)).to(dtype)


def made_by_rule(name, shape):
    g = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) <= 1:
        if name.endswith("weight"):
            return 1 + 0.1 * g
        return 0.5 + 0.1 * g if "rate" in name else 0.1 * g
    return g / np.sqrt(np.prod(shape[1:]))


def test_logits_of_the_published_swin_tiny():
    model = create_model("acmix_swin_tiny", dtype=torch.float64).eval()
    published = {
        name: torch.from_numpy(made_by_rule(name, tuple(tensor.shape)))
        for name, tensor in to_published(model.state_dict()).items()
    }
    load_weights(model, published)
    golden = np.load(DATA / "swin_tiny.npz", allow_pickle=False)
    x = np.random.default_rng(int(golden["seed"])).standard_normal((1, 3, 224, 224)).astype(np.float32)
    with torch.inference_mode():
        logits = model(torch.from_numpy(x).double())
    torch.testing.assert_close(logits, torch.from_numpy(golden["y"]), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "parameters"), [("acmix_swin_tiny", 28_649_908), ("acmix_swin_small", 50_345_080)])
def test_parameters(name, parameters):
    model = create_model(name, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"img_size": 64}, (64, 64)),
        ({"img_size": (60, 100), "window_size": (4, 7)}, (60, 100)),
        ({"img_size": 64, "always_partition": True}, (64, 64)),
        # One side of the first map smaller than the window, or as large; then both.
        ({"img_size": (24, 96)}, (24, 96)),
        ({"img_size": (96, 28)}, (96, 28)),
        ({"img_size": (20, 28), "window_size": (5, 7)}, (20, 28)),
        ({"img_size": (24, 96), "always_partition": True}, (24, 96)),
        ({"img_size": 96, "dynamic_img_size": True}, (16, 120)),
        ({"img_size": 64, "dynamic_img_size": True}, (36, 92)),
        ({"img_size": 64, "qkv_bias": False}, (64, 64)),
    ],
)
def test_without_the_convolution_it_is_timms(settings, sizes):
    theirs = small(TIMM, **settings).double().eval()
    mixed = copy.deepcopy(theirs)
    for stage in mixed.layers:
        for block in stage.blocks:
            operator = mix_paths(block)
            torch.nn.init.ones_(operator.rate_attention)
            torch.nn.init.zeros_(operator.rate_convolution)
    x = images(*sizes, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(mixed(x), theirs(x), rtol=1e-12, atol=1e-12)


def by_definition(operator, x, shift):
    """The convolution path of a map as its equation reads: fc, then zero padding of the shifted map."""
    batch, height, width, channels = x.shape
    rolled = torch.roll(x, [-cells for cells in shift], (1, 2))
    z = operator.qkv(rolled).view(batch, height, width, 3 * operator.num_heads, -1)
    path = operator.convolution
    f = torch.einsum("pc,byxcd->bdpyx", path.fc_weight, z) + path.fc_bias[:, None, None]
    kernels = path.dep_weight.shape[-1]
    output = torch.nn.functional.conv2d(
        f.flatten(1, 2), path.dep_weight, padding=kernels // 2, groups=channels // operator.num_heads
    )
    return operator.rate_convolution * torch.roll(output.permute(0, 2, 3, 1), shift, (1, 2))


@pytest.mark.parametrize("shift", [(0, 0), (3, 3), (0, 2)])
@pytest.mark.parametrize("kernel", [3, 5])
def test_the_convolution_path_is_that_of_the_shifted_map(shift, kernel):
    model = small(kernel_conv=kernel).double()
    operator = model.layers[0].blocks[1].attn
    torch.nn.init.normal_(operator.convolution.dep_weight)
    x = torch.randn(2, 9, 11, 32, dtype=torch.float64)
    attended, convolved = operator.paths(x, shift)
    torch.testing.assert_close(convolved, by_definition(operator, x, shift))
    torch.testing.assert_close(operator(x, shift), attended + convolved)


@pytest.mark.parametrize("sizes", [(1, 1), (7, 90), (97, 61), (64, 64)])
def test_any_size(sizes):
    model = small().eval()
    with torch.inference_mode():
        assert model(images(*sizes)).isfinite().all()
        *_, features = model.forward_intermediates(images(*sizes))
    assert [feature.shape[-2:] for feature in features] == [
        tuple(-(-size // reduction) for size in sizes) for reduction in (4, 8, 16, 32)
    ]


# Where timm scales positions it indexes as NumPy will not.
@pytest.mark.filterwarnings("ignore:.*(searchsorted|non-tuple sequence):UserWarning")
def test_strict_sizes_are_those_that_it_is_set_to():
    model = small(img_size=(61, 97), strict_img_size=True).eval()
    assert model(images(61, 97)).shape == (2, 3)
    with pytest.raises(AssertionError, match="height"):
        model(images(64, 97))
    model.set_input_size((130, 64))
    assert model(images(130, 64)).shape == (2, 3)
    assert isinstance(model.layers[0].blocks[0].attn, WindowACmix)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    model = small()
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


def test_channels_last_images_change_nothing():
    model = small().eval()
    x = images(40, 52)
    with torch.inference_mode():
        expected = model(x)
        torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), expected)
        torch.testing.assert_close(model.to(memory_format=torch.channels_last)(x), expected)


def test_traces_and_copies():
    model = small().eval()
    x = images(40, 52)
    expected = model(x)
    torch.testing.assert_close(copy.deepcopy(model)(x), expected)
    traced = fx.symbolic_trace(model)
    for sizes in ((40, 52), (64, 33)):
        torch.testing.assert_close(traced(images(*sizes)), model(images(*sizes)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        with pytest.raises(RuntimeError, match=r"torch\.jit\.script does not take an ACmix"):
            torch.jit.script(model)


@pytest.mark.parametrize("backend", ["portable", "reference", "auto"])
def test_backends_agree(backend):
    model, other = small(backend="reference").double().eval(), small(backend=backend).double().eval()
    x = images(40, 52, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(other(x), model(x))


def test_training_keeps_values_once(monkeypatch):
    """No copy of them by windows beside the projections, at no derivative's cost."""
    operator = small().double().layers[0].blocks[1].attn
    x = torch.randn(2, 9, 11, 32, dtype=torch.float64, requires_grad=True)
    found = []
    for plain in (False, True):
        monkeypatch.setattr(swin, "is_transformed", lambda plain=plain: plain)
        storages = {}

        def keep(tensor, storages=storages):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = operator(x, (3, 3))
        kept = sum(storage.nbytes() for storage in storages.values())
        first = torch.autograd.grad(output.square().sum(), [x, *operator.parameters()], create_graph=True)
        second = torch.autograd.grad(sum(slope.square().sum() for slope in first), [x, *operator.parameters()])
        found.append((kept, output, *first, *second))
    (kept, *ours), (before, *theirs) = found
    assert before - kept == 2 * 14 * 14 * 32 * 8
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_rates_are_not_decayed():
    model = small()
    rates = {name for name, _ in model.named_parameters() if name.endswith(("rate_attention", "rate_convolution"))}
    assert len(rates) == 2 * sum(SMALL["depths"])
    assert rates < model.no_weight_decay()
    assert model.no_weight_decay() > timm.create_model(TIMM, **SMALL).no_weight_decay()


def test_initialisation_keeps_shifts_and_starts_rates_anew():
    model = small()
    kernels = model.layers[0].blocks[0].attn.convolution.dep_weight.clone()
    for module in model.modules():
        if isinstance(module, WindowACmix):
            torch.nn.init.normal_(module.convolution.dep_weight)
            torch.nn.init.normal_(module.rate_attention)
    model.init_weights()
    operator = model.layers[0].blocks[0].attn
    assert torch.equal(operator.convolution.dep_weight, kernels)
    assert operator.rate_attention == operator.rate_convolution == 0.5


def test_what_it_cannot_mix_is_refused():
    with pytest.raises(ValueError, match=r"head_dim times the heads must be the 32 channels"):
        small(head_dim=16)
    with pytest.raises(ValueError, match="kernel must be odd"):
        small(kernel_conv=2)
    with pytest.raises(ValueError, match="backend must be one of"):
        small(backend="fast")


def test_every_block_is_mixed():
    blocks = [module for module in small().modules() if isinstance(module, SwinBlock)]
    assert len(blocks) == sum(SMALL["depths"])
    assert all(isinstance(block.attn, WindowACmix) for block in blocks)
