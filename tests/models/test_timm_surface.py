"""timm's own checks of a model, over every registered acmix name."""

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import nn

import acmix
import acmix.models

NAMES = timm.list_models("acmix_*")
RESNETS = timm.list_models("acmix_resnet*")
every_model = pytest.mark.parametrize("name", NAMES)
# Their features are maps, not tokens.
every_map_model = pytest.mark.parametrize("name", [name for name in NAMES if "pvt" not in name])
every_resnet = pytest.mark.parametrize("name", RESNETS)
# Where depth changes nothing but the time.
shallow_model = pytest.mark.parametrize(
    "name", ["acmix_resnet14_small", "acmix_resnet26", "acmix_swin_tiny", "acmix_pvt_tiny"]
)
shallow_resnet = pytest.mark.parametrize("name", ["acmix_resnet14_small", "acmix_resnet26"])
SIZE = 64


def create(name, **kwargs):
    torch.manual_seed(0)
    # Residual branches that start at zero have no gradients within.
    own = {"zero_init_last": False} if name in RESNETS else {}
    return acmix.models.create_model(name, **{**own, **kwargs})


def first(maps, model):
    """A map of `forward_features` with its channels first."""
    return maps.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else maps


def image(batch=1, channels=3, size=SIZE, dtype=torch.float32):
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)


def reduced(size, reduction):
    return -(-size // reduction)


def test_names():
    assert NAMES == [
        "acmix_pvt_small",
        "acmix_pvt_tiny",
        "acmix_resnet14_small",
        "acmix_resnet26",
        "acmix_resnet38",
        "acmix_resnet50",
        "acmix_san10",
        "acmix_san15",
        "acmix_san19",
        "acmix_swin_nano",
        "acmix_swin_small",
        "acmix_swin_tiny",
    ]
    assert acmix.create_model is timm.create_model


@every_model
def test_default_cfg(name):
    model = create(name).eval()
    cfg, state = model.default_cfg, model.state_dict()
    assert f"{cfg['classifier']}.weight" in state
    assert f"{cfg['first_conv']}.weight" in state
    assert state[f"{cfg['classifier']}.weight"].shape == (cfg["num_classes"], model.num_features)
    assert state[f"{cfg['first_conv']}.weight"].shape[1] == cfg["input_size"][0]
    with torch.inference_mode():
        features = model.forward_features(torch.randn(1, *cfg["input_size"]))
    if cfg["pool_size"] is None:
        assert features.shape == (1, 1 + 7 * 7, model.num_features)
    else:
        assert first(features, model).shape == (1, model.num_features, *cfg["pool_size"])


@every_model
def test_weights_that_do_not_exist_are_refused(name):
    with pytest.raises(RuntimeError, match="pretrained"):
        create(name, pretrained=True)


@every_map_model
def test_heads(name):
    model = create(name, num_classes=7).eval()
    assert model.get_classifier() is model.get_submodule(model.default_cfg["classifier"])
    with torch.inference_mode():
        features = model.forward_features(image())
        assert model.forward_head(features).shape == (1, 7)
        pooled = model.forward_head(features, pre_logits=True)
        assert pooled.shape == (1, model.head_hidden_size)
        torch.testing.assert_close(pooled, first(features, model).mean((2, 3)))
        if "san" in name:
            with pytest.raises(ValueError, match="global_pool must be"):
                model.reset_classifier(3, "max")
            return
        model.reset_classifier(3, "max")
        assert model.forward_head(features).shape == (1, 3)
        torch.testing.assert_close(model.forward_head(features, pre_logits=True), first(features, model).amax((2, 3)))
        model.reset_classifier(0)
        assert model.forward_head(features).shape == (1, model.num_features)
        model.reset_classifier(0, "")
        assert torch.equal(model.forward_head(features), features)


@every_model
def test_every_parameter_has_a_gradient(name):
    model = create(name, num_classes=7, drop_rate=0.1, in_chans=1, **({} if "san" in name else {"drop_path_rate": 0.1}))
    output = model(image(batch=2, channels=1))
    assert output.shape == (2, 7)
    output.square().mean().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@every_model
def test_features_only(name):
    model = create(name, features_only=True).eval()
    with torch.inference_mode():
        features = model(image(size=72))
    assert len(features) == len(model.feature_info.channels())
    for feature, channels, reduction in zip(
        features, model.feature_info.channels(), model.feature_info.reduction(), strict=True
    ):
        assert first(feature, model).shape == (1, channels, reduced(72, reduction), reduced(72, reduction))


@every_resnet
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_output_stride(name, output_stride):
    model = create(name, features_only=True, output_stride=output_stride, out_indices=(3, 4)).eval()
    free = create(name, device="meta").feature_info
    assert model.feature_info.reduction() == [min(free[i]["reduction"], output_stride) for i in (3, 4)]
    with torch.inference_mode():
        features = model(image(size=40))
    for feature, reduction in zip(features, model.feature_info.reduction(), strict=True):
        assert feature.shape[-1] == reduced(40, reduction)


@every_model
def test_intermediates_and_pruning(name):
    model = create(name).eval()
    with torch.inference_mode():
        last, intermediates = model.forward_intermediates(image())
        assert len(intermediates) == len(model.feature_info)
        normed = model.forward_intermediates(image(), norm=True)[1] if name not in RESNETS else intermediates
        tokens = last[:, 1:].transpose(1, 2).unflatten(2, normed[-1].shape[2:]) if last.ndim == 3 else last
        assert torch.equal(first(tokens, model), normed[-1])
        assert torch.equal(last, model.forward_features(image()))
        before = sum(parameter.numel() for parameter in model.parameters())
        # All but the last stage.
        chosen = [1, 2] if len(intermediates) > 3 else [0]
        assert model.prune_intermediate_layers(chosen) == chosen
        assert sum(parameter.numel() for parameter in model.parameters()) < 0.8 * before
        assert model.num_features == model.feature_info[chosen[-1]]["num_chs"]
        pruned = model.forward_intermediates(image(), indices=chosen, intermediates_only=True)
    for actual, expected in zip(pruned, intermediates[chosen[0] :], strict=False):
        assert torch.equal(actual, expected)


@shallow_model
def test_gradient_checkpointing_changes_no_gradient(name):
    model = create(name, num_classes=3).eval()
    model(image()).sum().backward()
    expected = {key: parameter.grad for key, parameter in model.named_parameters()}
    model.zero_grad()
    model.set_grad_checkpointing()
    model(image()).sum().backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[key], msg=lambda text, key=key: f"{key}: {text}")


@every_model
def test_parameter_groups(name):
    model = create(name, device="meta")
    # A ResNet has features of its stem, too.
    stages = len(model.feature_info) - (name in RESNETS)
    groups = timm.models.group_parameters(model, model.group_matcher(coarse=True))
    assert len(groups) == 1 + stages + 1  # stem, stages, head
    assert sum(len(members) for members in groups.values()) == len(list(model.parameters()))
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.1, weight_decay=1e-4, layer_decay=0.5)
    assert len({group["lr_scale"] for group in optimizer.param_groups}) > stages


@every_resnet
def test_shift_kernels_survive_initialisation(name):
    model = create(name)
    operators = [module for module in model.modules() if isinstance(module, acmix.ACmix)]
    fresh = [acmix.ACmix(operator.in_channels, operator.out_channels) for operator in operators]
    stem = model.get_submodule(model.default_cfg["first_conv"]).weight
    before = stem.clone()
    model.init_weights()
    assert not torch.equal(stem, before)
    for operator, new in zip(operators, fresh, strict=True):
        assert torch.equal(operator.dep_weight, new.dep_weight)
        assert operator.rate_attention == operator.rate_convolution == 0.5


@every_resnet
def test_zero_init_last(name):
    blocks = [m for m in create(name, zero_init_last=True).modules() if isinstance(m, acmix.models.Bottleneck)]
    assert all((block.bn3.weight == 0).all() for block in blocks)
    blocks = [m for m in create(name).modules() if isinstance(m, acmix.models.Bottleneck)]
    assert all((block.bn3.weight == 1).all() for block in blocks)


@every_resnet
def test_drop_path_grows_to_its_rate(name):
    model = create(name, device="meta", drop_path_rate=0.2)
    rates = [m.drop_path.drop_prob if m.drop_path else 0.0 for m in model.modules() if hasattr(m, "drop_path")]
    assert rates == sorted(rates)
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.2)


@every_model
def test_device_and_dtype(name):
    for model in (create(name, device="meta"), create(name, device="meta", dtype=torch.bfloat16)):
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@shallow_model
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_forward_in_every_dtype(name, dtype):
    model = create(name, dtype=dtype).eval()
    with torch.inference_mode():
        output = model(image(dtype=dtype))
    assert output.dtype == dtype
    assert output.isfinite().all()


@every_model
def test_state_dict_round_trip(name):
    model, other = create(name).eval(), acmix.create_model(name).eval()
    other.load_state_dict(model.state_dict())
    with torch.inference_mode():
        assert torch.equal(model(image()), other(image()))


def test_block_is_the_only_difference_to_timm():
    ours, theirs = create("acmix_resnet50", device="meta"), timm.create_model("resnet50", device="meta")
    for name, module in theirs.named_modules():
        if name.endswith(".conv2"):
            assert isinstance(module, nn.Conv2d)
            assert isinstance(ours.get_submodule(name), acmix.ACmix)
        elif name and not isinstance(module, timm.models.resnet.Bottleneck):
            assert type(ours.get_submodule(name)) is type(module), name
