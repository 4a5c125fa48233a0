"""Published names and ours: golden operators under both, exact round trips, errors that name the key."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from acmix import ACmix, ops
from acmix.checkpoints import from_published, load_state_dict, load_weights, to_published
from acmix.models import create_model

DATA = Path(__file__).parents[1] / "data"
GOLDEN = sorted(DATA.glob("acmix_*.npz"))


def published_operator(channels=8, channels_in=4, heads=2):
    return to_published(ACmix(channels_in, channels, heads=heads).state_dict())


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(actual[key], tensor), key


def test_all_golden_operators_are_here():
    assert len(GOLDEN) == 6


@pytest.mark.parametrize("backend", ops.backends())
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_operator(path, backend):
    golden = {name: torch.from_numpy(array) for name, array in np.load(path, allow_pickle=False).items()}
    channels_in, channels, kernel_att, heads, kernel_conv, stride = golden["config"].tolist()
    layer = ACmix(
        channels_in,
        channels,
        heads=heads,
        kernel_att=kernel_att,
        kernel_conv=kernel_conv,
        stride=stride,
        backend=backend,
        dtype=torch.float64,
    )
    load_weights(layer, {name[6:]: array for name, array in golden.items() if name.startswith("param/")})
    x = golden["x"].requires_grad_()
    y = layer(x)
    y.backward(golden["g"])
    gradients = from_published({name[5:]: array for name, array in golden.items() if name.startswith("grad/")})
    assert gradients.keys() == dict(layer.named_parameters()).keys()
    torch.testing.assert_close(y, golden["y"], rtol=0, atol=1e-10)
    torch.testing.assert_close(x.grad, golden["dx"], rtol=0, atol=1e-10)
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=0, atol=1e-10, msg=lambda text: name + text)  # noqa: B023


@pytest.mark.parametrize("prefix", ["", "layer1.0.conv2.", "a.b."])
def test_round_trip_is_exact_and_leaves_the_input_alone(prefix):
    torch.manual_seed(0)
    ours = {prefix + name: tensor for name, tensor in ACmix(4, 8, heads=2).state_dict().items()}
    before = {name: tensor.clone() for name, tensor in ours.items()}
    published = to_published(ours)
    assert published[prefix + "conv_p.bias"].count_nonzero() == 0
    published_before = {name: tensor.clone() for name, tensor in published.items()}
    assert_equal(from_published(published), ours)
    assert_equal(to_published(from_published(published)), published)
    assert_equal(ours, before)
    assert_equal(published, published_before)


def test_the_classifier_of_a_network_is_no_operator():
    network = nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 7), "body": ACmix(4, 8, heads=2), "fc": nn.Linear(8, 5)})
    published = to_published(network.state_dict())
    assert published["fc.weight"].shape == (5, 8)
    assert published["body.fc.weight"].shape == (9, 6, 1, 1)
    assert_equal(from_published(published), network.state_dict())


def test_names_without_an_operator_pass_unchanged():
    state = nn.Linear(2, 3).state_dict()
    assert_equal(from_published(state), state)
    assert_equal(to_published(state), state)


class Namesakes(nn.Module):
    """Layers and rates of a network's own under some of the names of an operator."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(4, 4, 1) for _ in range(3))
        self.dep_conv, self.fc = nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.Linear(4, 2)
        self.rate1 = nn.Parameter(torch.ones(1))
        self.attn = nn.Module()
        self.attn.relative_position_bias_table = nn.Parameter(torch.ones(9, 1))
        self.attn.fc = nn.Linear(4, 4)
        self.fc_weight, self.dep_weight = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))


@pytest.mark.parametrize("convert", [from_published, to_published])
def test_namesakes_of_an_operators_layers_pass_unchanged(convert):
    state = Namesakes().state_dict()
    assert_equal(convert(state), state)
    load_weights(Namesakes(), state)


def test_our_names_pass_unchanged_through_from_published():
    state = ACmix(4, 8, heads=2).state_dict()
    assert_equal(from_published(state), state)


def test_data_parallel_prefix_is_taken_off():
    published = published_operator()
    wrapped = {f"module.{name}": tensor for name, tensor in published.items()}
    assert_equal(from_published(wrapped), from_published(published))


def test_position_bias_is_optional_and_ignored():
    published = published_operator()
    expected = from_published(published)
    published["conv_p.bias"] += 1
    assert_equal(from_published(published), expected)
    del published["conv_p.bias"]
    assert_equal(from_published(published), expected)


@pytest.mark.parametrize("name", [name for name in published_operator() if name != "conv_p.bias"])
def test_missing_key_is_named(name):
    published = {f"layer1.0.conv2.{key}": tensor for key, tensor in published_operator().items() if key != name}
    with pytest.raises(ValueError, match=rf"missing: layer1\.0\.conv2\.{name}"):
        from_published(published)


@pytest.mark.parametrize("name", list(published_operator()))
def test_wrong_shape_raises(name):
    published = published_operator()
    published[name] = torch.zeros(3, 5)
    with pytest.raises(ValueError, match=r"\(3, 5\)"):
        from_published(published)


def test_wrong_shape_names_key_and_both_shapes():
    published = published_operator()
    published["fc.weight"] = torch.zeros(9, 12, 1, 1)
    with pytest.raises(ValueError, match=r"fc\.weight must be \(9, 6, 1, 1\), got \(9, 12, 1, 1\)"):
        from_published(published)


def test_our_operator_with_a_missing_key_or_wrong_shape_raises():
    state = dict(ACmix(4, 8, heads=2).state_dict())
    without = {name: tensor for name, tensor in state.items() if name != "qkv.bias"}
    with pytest.raises(ValueError, match=r"missing: qkv\.bias"):
        to_published(without)
    with pytest.raises(ValueError, match=r"fc_weight must be \(9, 6\), got \(9, 7\)"):
        to_published({**state, "fc_weight": torch.zeros(9, 7)})


def swin(**settings):
    return create_model("acmix_swin_tiny", depths=(1, 2, 1, 1), embed_dim=32, num_heads=(1, 2, 4, 8), **settings)


def as_published(state):
    """With what published files hold besides."""
    buffers = {
        "layers.1.blocks.1.attn_mask": torch.zeros(16, 49, 49),
        "layers.1.blocks.1.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64),
    }
    return {**to_published(state), **buffers}


@pytest.mark.parametrize("prefix", ["", "module.", "encoder."])
def test_swin_round_trip_is_exact(prefix):
    state = swin().state_dict()
    published = {prefix + name: tensor for name, tensor in as_published(state).items()}
    for name in ("layers.0.downsample.reduction.weight", "layers.1.blocks.1.attn.fc.weight", "head.weight"):
        assert prefix + name in published
    assert published[prefix + "layers.1.blocks.1.attn.dep_conv.weight"].shape == (64, 9, 3, 3)
    ours = from_published(published)
    kept = "" if prefix == "module." else prefix
    assert_equal(ours, {kept + name: tensor for name, tensor in state.items()})
    assert_equal(from_published(ours), ours)
    assert_equal(to_published(ours), {kept + name: tensor for name, tensor in to_published(state).items()})


def test_published_swin_loads_as_a_file_of_its_trainer(tmp_path):
    source, target = swin(), swin()
    torch.save({"model": as_published(source.state_dict()), "epoch": 299}, tmp_path / "swin.pth")
    loaded = load_weights(target, load_state_dict(tmp_path / "swin.pth"))
    assert not loaded.unused
    assert not loaded.kept
    assert_equal(target.state_dict(), source.state_dict())


def test_a_lone_attention_of_a_swin_is_renamed():
    state = swin().layers[1].blocks[0].attn.state_dict()
    published = to_published(state)
    assert {"fc.weight", "fc.bias", "dep_conv.weight", "rate1", "rate2"} < published.keys()
    assert_equal(from_published(published), state)


@pytest.mark.parametrize("name", ["fc.weight", "fc.bias", "dep_conv.weight", "rate1", "rate2"])
def test_missing_and_wrong_keys_of_a_swin_are_named(name):
    state = to_published(swin().state_dict())
    key = f"layers.1.blocks.0.attn.{name}"
    with pytest.raises(ValueError, match=re.escape(f"missing: {key}")):
        from_published({other: tensor for other, tensor in state.items() if other != key})
    with pytest.raises(ValueError, match=r"\(3, 5\)"):
        from_published({**state, key: torch.zeros(3, 5)})


def test_a_swin_under_both_names_is_refused():
    state = swin().state_dict()
    both = to_published(state) | {"head.fc.bias": state["head.fc.bias"]}
    with pytest.raises(ValueError, match=r"head\.fc\.bias is there under its published and under our name"):
        from_published(both)


def test_a_plain_swin_passes_unchanged():
    state = create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1)).state_dict()
    assert_equal(from_published(state), state)
    assert_equal(to_published(state), state)


@pytest.mark.parametrize("convert", [from_published, to_published, functools.partial(load_weights, ACmix(4, 8))])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        (ACmix(4, 8), "got ACmix; give its .state_dict()"),
        ("weights.pth", "got str; acmix.checkpoints.load_state_dict reads a file"),
        (Path("weights.pth"), "load_state_dict reads a file"),
        ([("qkv.weight", torch.ones(1))], "got list"),
        ({1: torch.ones(1)}, "got dict"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_state_dict_is_refused(convert, given, told):
    with pytest.raises(TypeError, match=re.escape("state_dict must be a mapping of names to tensors")) as raised:
        convert(given)
    assert told in str(raised.value)
