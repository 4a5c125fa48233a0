"""What timm's own suite asks of every network (tests/test_models.py of 1.0.31) beyond `test_timm_surface.py`, small."""

import copy
import fnmatch
import inspect

import pytest
import timm
import torch
from timm.layers import get_channel_dim
from timm.models import group_parameters
from timm.models._features import FeatureGetterNet
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import acmix
from acmix.models import WindowACmix

every_name = pytest.mark.parametrize("name", timm.list_models("acmix_*"))
# One of each family, as narrow as it goes.
SMALL = {
    "acmix_resnet14_small": {"zero_init_last": False},
    "acmix_swin_tiny": {"embed_dim": 16, "depths": (2, 1, 1, 2), "num_heads": (1, 1, 1, 1)},
    "acmix_pvt_tiny": {
        "channels": (16, 32, 32, 64),
        "depths": (1, 1, 1, 1),
        "num_heads": (1, 2, 2, 4),
        "mlp_ratios": (2, 2, 2, 2),
    },
    "acmix_san10": {"channels": (32, 32, 64, 64, 64), "depths": (1, 1, 1, 1, 1)},
}
every_family = pytest.mark.parametrize("name", SMALL)
TIMMS = "swin_tiny_patch4_window7_224"


def on_meta(name, **settings):
    return acmix.create_model(name, device="meta", dtype=torch.float32, **settings)


def small(name, **settings):
    torch.manual_seed(0)
    own = SMALL["acmix_swin_tiny" if name == TIMMS else name]
    return acmix.create_model(name, **{"num_classes": 5, **own, **settings}).eval()


def images(*size, batch=2):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


@every_name
def test_arguments_and_names_of_parameters(name):
    model = on_meta(name)
    with pytest.raises(TypeError):
        on_meta(name, not_an_argument=1)
    assert model.in_chans == model.default_cfg["input_size"][0]
    assert inspect.signature(model.reset_classifier).parameters["global_pool"].default is None
    assert len(set(group_parameters(model, model.group_matcher(coarse=False), reverse=True).values())) > 1
    names = [parameter for parameter, _ in model.named_parameters()]
    undecayed = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    # timm's own Swin names the positions of a version of its own.
    assert [one for one in undecayed if not fnmatch.filter(names, one)] in ([], ["absolute_pos_embed"])


@every_name
def test_a_new_classifier_is_as_the_network_is(name):
    model = on_meta(name).double().eval()
    for classes in (0, 2):
        model.reset_classifier(classes)
        assert all(not module.training for module in model.modules())
    parts = [*model.get_classifier().parameters()]
    assert parts
    assert {(part.device.type, part.dtype) for part in parts} == {("meta", torch.float64)}


@every_family
def test_without_classes_it_gives_the_features_of_its_head(name):
    x = images(64, 64)
    with torch.inference_mode():
        model, unpooled = small(name, num_classes=0), small(name, num_classes=0, global_pool="")
        assert model(x).shape == (2, model.head_hidden_size)
        assert model.forward_head(model.forward_features(x), pre_logits=True).shape == (2, model.head_hidden_size)
        features = unpooled(x)
        assert torch.equal(features, unpooled.forward_features(x))
    axis = 2 if features.ndim == 3 else get_channel_dim(getattr(model, "output_fmt", "NCHW"))
    assert features.shape[axis] == model.num_features


@every_name
def test_what_is_frozen_stays_frozen(name):
    model = on_meta(name).requires_grad_(False)
    model.reset_classifier(0)
    model.reset_classifier(0, "")
    if hasattr(model, "set_input_size"):
        model.set_input_size(img_size=(448, 448))
    assert not [parameter for parameter, value in model.named_parameters() if value.requires_grad]


@every_family
def test_nothing_is_kept_in_a_dtype_that_the_network_had(name):
    model = small(name)
    with torch.inference_mode():
        expected = model(images(40, 52))
        model.to(torch.bfloat16)
        half = model(images(40, 52).bfloat16())
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), expected, rtol=0, atol=0.1)


@every_family
def test_checkpointing_changes_no_intermediate(name):
    model = small(name)
    with torch.no_grad():
        expected, intermediates = model.forward_intermediates(images(40, 52))
        model.set_grad_checkpointing()
        found, others = model.forward_intermediates(images(40, 52))
    torch.testing.assert_close([found, *others], [expected, *intermediates])


@every_family
def test_a_pruned_network_has_the_same_features_and_no_parameter_too_many(name):
    model = small(name, drop_rate=0.5)
    x = images(40, 52)
    last = len(model.feature_info) - 1
    with torch.no_grad():
        expected, features = model(x), model.forward_intermediates(x, intermediates_only=True)
        whole = copy.deepcopy(model)
        whole.prune_intermediate_layers([last], prune_head=False)
        torch.testing.assert_close(whole(x), expected)
    for index in range(last + 1):
        early = model.forward_intermediates(x, indices=[index], stop_early=True, intermediates_only=True)
        torch.testing.assert_close(early, [features[index]])
        pruned = copy.deepcopy(model)
        taken = pruned.prune_intermediate_layers([index], prune_norm=True)
        assert not [module for module in pruned.modules() if isinstance(module, nn.Dropout) and module.training]
        kept = pruned.forward_intermediates(x, indices=taken, intermediates_only=True)
        torch.testing.assert_close(kept, [features[index]])
        pruned(x).sum().backward()
        unused = [parameter for parameter, value in pruned.named_parameters() if value.grad is None]
        assert unused == [], index


@every_family
def test_feature_extractors_of_torchvision_learn(name):
    model = small(name).train()
    nodes, _ = get_graph_node_names(model)
    extractor = create_feature_extractor(model, {nodes[-1]: "logits"})
    extractor(images(40, 52))["logits"].sum().backward()
    assert not [parameter for parameter, value in extractor.named_parameters() if value.grad is None]


# Sizes and windows as timm's `set_input_size` takes them, one after another.
RESIZED = {
    "sizes": [{"img_size": (128, 96)}, {}, {"img_size": (64, 64)}],
    "a window a stage": [{"img_size": (128, 128), "window_size": (4, 4, 8, 4)}, {}, {"img_size": (64, 96)}],
    "oblong windows": [{"img_size": (128, 96), "window_size": ((4, 2), (4, 6), (8, 6), (2, 2))}],
    "windows": [{"window_size": 4}, {"window_size": 1}],
    "ratios": [{"img_size": (128, 160), "window_ratio": (8, 8, 4, 8)}, {"img_size": (96, 64)}],
    "always windows": [{"img_size": (64, 64), "always_partition": True}],
    "patches": [{"img_size": (64, 96), "patch_size": 2}, {"patch_size": 4}],
    "odd maps": [{"img_size": (72, 88), "window_size": 7}],
}


# Where timm scales positions it indexes as NumPy will not.
@pytest.mark.filterwarnings("ignore:.*(searchsorted|non-tuple sequence):UserWarning")
@pytest.mark.parametrize("calls", RESIZED.values(), ids=RESIZED)
def test_input_sizes_and_windows_are_those_that_timms_swin_has(calls):
    ours, theirs = (small(name, img_size=64, window_size=2) for name in ("acmix_swin_tiny", TIMMS))
    ours.load_state_dict(theirs.state_dict(), strict=False)
    for module in ours.modules():
        if isinstance(module, WindowACmix):
            nn.init.ones_(module.rate_attention)
            nn.init.zeros_(module.rate_convolution)
    for settings in calls:
        for model in (ours, theirs):
            model.set_input_size(**settings)
        blocks = zip(
            *([block for stage in model.layers for block in stage.blocks] for model in (ours, theirs)), strict=True
        )
        for block, other in blocks:
            assert (block.window_size, block.shift_size) == (other.window_size, other.shift_size)
            assert block.input_resolution == other.input_resolution
        assert ours.patch_embed.img_size == theirs.patch_embed.img_size
        assert ours.patch_embed.grid_size == theirs.patch_embed.grid_size
        x = images(*theirs.patch_embed.img_size)
        with torch.inference_mode():
            torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"window_ratio": (8, 4)}, {"window_ratio": 0}, {"window_size": (7, 7, 7)}, {"window_size": 0}]
)
def test_windows_that_cannot_be_leave_the_network_as_it_was(settings):
    model = small("acmix_swin_tiny", img_size=64)
    with torch.inference_mode():
        expected = model(images(64, 64))
        with pytest.raises(AssertionError):
            model.set_input_size(img_size=(128, 128), **settings)
        assert model.patch_embed.img_size == (64, 64)
        assert torch.equal(model(images(64, 64)), expected)


@pytest.mark.filterwarnings("ignore:.*(searchsorted|non-tuple sequence):UserWarning")
def test_a_pruned_swin_is_set_to_sizes_too():
    model = small("acmix_swin_tiny", img_size=(64, 96))
    model.prune_intermediate_layers([0, 1], prune_norm=True)
    for settings in ({"window_size": ((2, 4), (4, 2))}, {"window_ratio": (8, 4)}, {}):
        model.set_input_size(img_size=(96, 128), **settings)
        with torch.inference_mode():
            maps = model.forward_intermediates(images(96, 128), intermediates_only=True)
        assert [tuple(found.shape[-2:]) for found in maps] == [(24, 32), (12, 16)]


@pytest.mark.filterwarnings("ignore:.*(searchsorted|non-tuple sequence):UserWarning")
def test_features_know_their_patches_when_these_change():
    model = small("acmix_swin_tiny", img_size=(64, 96), patch_size=2)
    features = FeatureGetterNet(model, out_indices=(0, 1))
    assert features.feature_info.reduction() == [2, 4]
    model.set_input_size(img_size=(96, 128), patch_size=4)
    assert features.feature_info.reduction() == [4, 8]
