"""Replacing convolutions of torchvision's, timm's and home-made networks."""

import json

import numpy as np
import pytest
import rich
import timm
import torch
import torchvision
from torch import nn
from torch.nn.utils import parametrizations, prune

import acmix
from acmix import ACmix, explain
from acmix.accounting import account, operator_multiply_adds
from tests.tracers import assert_traced

X = torch.randn(2, 3, 33, 32)


class Mixed(nn.Module):
    """One of everything that can and cannot be replaced."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.body = nn.Sequential(
            nn.Conv2d(8, 12, 5, padding="same"),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=2, dilation=2),
            nn.Conv2d(12, 16, 1),
        )
        self.same = self.body[2]
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.valid = nn.Conv2d(16, 16, 3)
        self.even = nn.Conv2d(16, 16, 2)
        self.oblong = nn.Conv2d(16, 16, (1, 3), padding=(0, 1))
        self.uneven = nn.Conv2d(16, 16, 3, stride=(1, 2), padding=1)
        self.mirrored = nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect")
        self.prime = nn.Conv2d(16, 13, 3, padding=1)
        self.normed = parametrizations.weight_norm(nn.Conv2d(13, 16, 3, padding=1))
        self.up = nn.ConvTranspose2d(16, 8, 3)
        self.lazy = nn.LazyConv2d(8, 3, padding=1)

    def forward(self, x):
        for module in self.children():
            x = module(x) if module is not self.same else x
        return x


REASONS = {
    "stem": None,
    "body.0": None,
    "body.2": None,
    "body.3": "1 x 1",
    "depthwise": "depthwise",
    "grouped": "grouped",
    "valid": "padding (0, 0), not the (1, 1) that keeps a map's size",
    "even": "kernel 2 x 2, not odd and square",
    "oblong": "kernel 1 x 3, not odd and square",
    "uneven": "stride (1, 2) or dilation (1, 1) differs between the axes",
    "mirrored": "padding mode reflect",
    "prime": "no number of heads divides 13 channels",
    "normed": "has a parametrization",
    "up": "transposed",
    "lazy": "not built yet: call the network once before",
}


@pytest.fixture(scope="module")
def mixed():
    network = Mixed()
    return network, acmix.replace_convolutions(network, example_inputs=X)


def test_every_convolution_is_reported_with_its_reason():
    report = acmix.replace_convolutions(Mixed())
    assert {layer.name: layer.reason for layer in report.layers} == REASONS
    assert [layer.heads for layer in report.replaced] == [4, 4, 4]
    assert all(layer.map_size is layer.multiply_adds is layer.residual is None for layer in report.layers)


def test_sizes_are_kept(mixed):
    network, report = mixed
    stem, body = network.stem, network.body[0]
    assert (stem.stride, stem.bias, stem.kernel_conv) == ((2, 2), None, 3)
    assert (body.kernel_conv, body.in_channels, body.out_channels, body.bias.shape) == (5, 8, 12, (12,))
    assert network.body[2].dilation == (2, 2)
    assert network.same is network.body[2]
    assert network(X).shape == Mixed()(X).shape
    sizes = {layer.name: layer.map_size for layer in report.replaced}
    # The example builds the lazy layer, which can be replaced then.
    assert sizes == {"stem": (33, 32), "body.0": (17, 16), "body.2": (17, 16), "lazy": sizes["lazy"]}
    assert len(sizes["lazy"]) == 2


def test_costs_are_those_of_the_layers(mixed):
    network, report = mixed
    fresh = Mixed()
    for layer in report.layers[:4]:
        before, after = fresh.get_submodule(layer.name), network.get_submodule(layer.name)
        assert layer.parameters == tuple(sum(p.numel() for p in module.parameters()) for module in (before, after))
    stem, one = report.layers[0], report.layers[3]
    assert stem.multiply_adds == (8 * 27 * 17 * 16, sum(operator_multiply_adds(network.stem, 33, 32).values()))
    assert one.multiply_adds == (16 * 12 * 17 * 16,) * 2


def test_report_is_a_table_a_dictionary_and_a_line(mixed, capsys):
    _, report = mixed
    assert json.loads(json.dumps(report.to_dict()))["layers"][0]["replaced"] is True
    assert str(report).startswith("4 of 15 convolutions replaced\n1 left: 1 x 1\n")
    rich.print(report)
    shown = capsys.readouterr().out
    assert "stem" in shown
    assert "residual" not in shown


@pytest.mark.parametrize(
    ("select", "names"),
    [
        ("stem", ["stem"]),
        ("body.*", ["body.0", "body.2"]),
        (["stem", "body.[01]"], ["stem", "body.0"]),
        (lambda name, module: name != "stem" and module.kernel_size == (5, 5), ["body.0"]),
        (17 * 16, ["body.0", "body.2", "lazy"]),
    ],
)
def test_select(select, names):
    network = Mixed()
    report = acmix.replace_convolutions(network, select=select, example_inputs=X)
    assert [layer.name for layer in report.replaced] == names
    chosen = {name for name, module in network.named_modules() if isinstance(module, ACmix)}
    assert chosen == set(names)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"select": "steem"}, ValueError, "select must name convolutions of the network, got 'steem'; it has stem"),
        ({"select": 0}, ValueError, "select must be at least one cell"),
        ({"select": 100}, ValueError, "select=100 cells needs example_inputs"),
        ({"heads": 0}, ValueError, "heads must be at least 1, got 0"),
        ({"heads": "many"}, TypeError, "heads must be an integer, got 'many'"),
        ({"kernel_att": 4}, ValueError, "kernel_att must be odd"),
        ({"backend": "gpu"}, ValueError, "backend must be one of"),
        ({"kernel_conv": 3, "warm_start": True}, ValueError, "kernel_conv must be None with warm_start=True"),
        ({"example_inputs": torch.randn(2, 4, 8, 8)}, ValueError, "example_inputs must be what Mixed takes, got: "),
        ({"window": 7}, TypeError, "window"),
    ],
)
def test_bad_arguments_change_nothing(arguments, error, words):
    network = Mixed()
    with pytest.raises(error, match=words):
        acmix.replace_convolutions(network, **arguments)
    assert not any(isinstance(module, ACmix) for module in network.modules())
    assert all(module.training for module in network.modules())


def test_a_lone_convolution_is_refused():
    with pytest.raises(ValueError, match="network must contain its convolutions, got a Conv2d itself"):
        acmix.replace_convolutions(nn.Conv2d(4, 4, 3, padding=1))


@pytest.mark.parametrize(
    ("channels", "heads"), [(64, 4), (6, 3), (10, 5), (14, 2), (22, 2), (512, 4), (1024, 8), (2, None), (7, None)]
)
def test_automatic_heads(channels, heads):
    network = nn.Sequential(nn.Conv2d(4, channels, 3, padding=1, device="meta"))
    assert acmix.replace_convolutions(network).layers[0].heads == heads


def test_given_heads_that_do_not_divide_are_reported():
    report = acmix.replace_convolutions(Mixed(), heads=5, select="stem")
    assert report.layers[0].reason == "5 heads do not divide 8 channels"


def test_dtype_device_mode_and_frozen_weights_are_kept():
    network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, dtype=torch.bfloat16)).eval().requires_grad_(False)
    acmix.replace_convolutions(network)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network[0].training


@pytest.mark.parametrize("trained", ["weight", "bias"])
def test_weight_or_bias_alone_stays_frozen(trained):
    network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1)).requires_grad_(False)
    getattr(network[0], trained).requires_grad_(True)
    acmix.replace_convolutions(network)
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert (learning == {"0.bias"}) if trained == "bias" else ("0.bias" not in learning and "0.qkv.weight" in learning)


class Picky(nn.Module):
    """Takes a dictionary, hands keywords to its convolution, and asserts what it wants."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(4, 8, 3, padding=1)

    def forward(self, batch):
        image = batch["image"]
        torch._assert(image.shape[2] == 5, "Input height doesn't match model (5).")
        return self.body(input=image)


@pytest.mark.parametrize(
    ("example", "told"),
    [
        ({"picture": torch.ones(1, 4, 5, 5)}, "got: 'image'"),
        ({"image": torch.ones(1, 4, 7, 5)}, r"got: Input height doesn't match model \(5\)"),
        ([torch.ones(1, 4, 5, 5)], "got: list indices must be integers"),
    ],
)
def test_an_example_that_a_network_refuses_in_its_own_way_changes_nothing(example, told):
    network = Picky()
    with pytest.raises(ValueError, match=f"example_inputs must be what Picky takes, {told}"):
        acmix.replace_convolutions(network, example_inputs=example)
    assert type(network.body) is nn.Conv2d


def test_sizes_of_a_convolution_that_is_called_with_a_keyword_are_seen():
    report = acmix.replace_convolutions(Picky(), example_inputs={"image": torch.ones(1, 4, 5, 6)})
    assert report.layers[0].map_size == (5, 6)


class ByKeyword(nn.Module):
    """Hands its convolution the image by name."""

    def __init__(self):
        super().__init__()
        self.body, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, images):
        return self.norm(self.body(input=images))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit", "ignore::DeprecationWarning")
def test_operators_are_called_as_the_convolution_was_by_keyword():
    network = ByKeyword().eval()
    acmix.replace_convolutions(network)
    expected = network.norm(network.body(X))
    assert_traced(network, X, expected)
    acmix.fuse(network)
    torch.testing.assert_close(network(X), expected)


def test_operators_called_by_keyword_are_counted_shown_and_written(tmp_path):
    network = ByKeyword().eval()
    (layer,) = acmix.replace_convolutions(network, example_inputs=X).layers
    assert account(network, X.shape[1:]).network.total.multiply_adds == layer.multiply_adds[1]
    assert torch.equal(explain.layer_inputs(network, X)["body"], X)
    assert [share.layer for share in explain.path_shares(network, [X])] == ["body"]
    acmix.export.to_onnx(network, tmp_path / "network.onnx", input_size=X.shape[1:], dynamic=False)


def test_an_operator_is_not_replaced_again():
    network = nn.Sequential(ACmix(4, 8))
    assert acmix.replace_convolutions(network).layers == ()


def hooked(module):
    module.register_full_backward_hook(lambda *_: None)


def patched(module):
    module.forward = lambda x: 2 * x


def patched_within(module):
    module._conv_forward = lambda x, *_: x


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda module: module.register_forward_hook(lambda *_: None), "has forward hooks"),
        (lambda module: module.register_forward_pre_hook(lambda *_: None, with_kwargs=True), "has forward hooks"),
        (hooked, "has backward hooks"),
        (lambda module: module.register_full_backward_pre_hook(lambda *_: None), "has backward hooks"),
        (patched, "has a forward of its own"),
        (patched_within, "has a forward of its own"),
        (lambda module: prune.l1_unstructured(module, "weight", 0.5), "has forward hooks"),
        (parametrizations.spectral_norm, "has a parametrization"),
        (lambda module: module.weight.register_hook(lambda slope: 2 * slope), "has gradient hooks on its weights"),
        (
            lambda module: module.bias.register_post_accumulate_grad_hook(lambda _: None),
            "has gradient hooks on its weights",
        ),
        (lambda module: module.register_state_dict_post_hook(lambda *_: None), "has state_dict hooks"),
        (lambda module: module.register_load_state_dict_pre_hook(lambda *_: None), "has state_dict hooks"),
        (lambda module: module.register_buffer("mask", torch.ones(8)), "holds mask, which no operator has"),
        (lambda module: module.add_module("adapter", nn.Identity()), "holds adapter, which no operator has"),
    ],
)
def test_what_is_more_than_a_convolution_is_left(change, reason):
    network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    change(network[0])
    report = acmix.replace_convolutions(network)
    assert [layer.reason for layer in report.layers] == [reason, None]


def test_a_subclass_is_left():
    class Scaled(nn.Conv2d):
        pass

    report = acmix.replace_convolutions(nn.Sequential(Scaled(4, 8, 3, padding=1)))
    assert report.layers[0].reason == "is a Scaled, not Conv2d itself"


def test_hooks_of_all_modules_leave_everything():
    handle = nn.modules.module.register_module_full_backward_hook(lambda *_: None)
    try:
        report = acmix.replace_convolutions(nn.Sequential(nn.Conv2d(4, 8, 3, padding=1)))
    finally:
        handle.remove()
    assert report.layers[0].reason == "is seen by backward hooks of all modules"


def test_tied_weights_stay_tied():
    network = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)))
    network[1].weight = network[0].weight
    report = acmix.replace_convolutions(network)
    assert [layer.reason for layer in report.layers] == ["shares weights with 1", "shares weights with 0", None]
    assert network[1].weight is network[0].weight


class Holder(nn.Module):
    """A convolution under two names, in a list and in a dictionary."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.block = nn.Sequential(self.first)
        self.listed, self.named = [self.first], {"a": (self.first, 1)}

    def forward(self, x):
        return self.named["a"][0](self.listed[0](self.block(self.first(x))))


def test_one_convolution_in_many_places_is_one_operator():
    network = Holder()
    (layer,) = acmix.replace_convolutions(network).layers
    assert layer.name == "first"
    operator = network.first
    assert isinstance(operator, ACmix)
    assert operator is network.block[0] is network.listed[0] is network.named["a"][0]
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(network(x), operator(operator(operator(operator(x)))))


def step(network, loss_of, steps=3, rate=0.01):
    """A few steps on one batch; the losses."""
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(network)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
    return losses


@pytest.mark.parametrize(
    ("make", "replaced"),
    [
        (lambda: torchvision.models.resnet18(num_classes=4), 17),
        (lambda: torchvision.models.regnet_y_400mf(num_classes=4), 1),
        (lambda: torchvision.models.mobilenet_v3_small(num_classes=4), 1),
        (lambda: timm.create_model("test_convnext", num_classes=4), 0),
        (lambda: timm.create_model("test_efficientnet", num_classes=4), 4),
    ],
    ids=["resnet18", "regnet", "mobilenet_v3", "convnext", "efficientnet"],
)
def test_swap_and_train(make, replaced):
    # Batch statistics of two images on maps of one pixel are signs: nothing that a step improves.
    network = make().eval()
    report = acmix.replace_convolutions(network, example_inputs=X)
    assert len(report.replaced) == replaced
    assert {layer.reason for layer in report.left} <= {
        "1 x 1",
        "depthwise",
        "grouped",
        "kernel 2 x 2, not odd and square",
        "kernel 4 x 4, not odd and square",
    }
    labels = torch.tensor([0, 3])
    losses = step(network, lambda network: nn.functional.cross_entropy(network(X), labels))
    assert min(losses[1:]) < losses[0]
    if replaced == 17:
        cost = account(network, (3, 32, 32))
        assert cost.network.total.parameters == sum(p.numel() for p in network.parameters())


def test_swap_and_train_a_detector():
    network = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64
    )
    images = [torch.rand(3, 50, 64), torch.rand(3, 64, 40)]
    report = acmix.replace_convolutions(network, example_inputs=(images,))
    names = [layer.name for layer in report.replaced]
    assert "backbone.body.0.0" in names
    assert "rpn.head.conv.0.0" in names
    assert all(layer.map_size for layer in report.replaced)
    boxes = torch.tensor([[5.0, 5.0, 30.0, 40.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1])}, {"boxes": boxes / 2, "labels": torch.tensor([2])}]
    losses = step(network, lambda network: sum(network(images, targets).values()))
    assert min(losses[1:]) < losses[0]
    with torch.inference_mode():
        assert set(network.eval()(images)[0]) == {"boxes", "labels", "scores"}


def test_a_network_that_is_built_again_from_its_yaml_is_warned_of():
    kind = type("DetectionModel", (Mixed,), {"__module__": "ultralytics.nn.tasks"})
    network = kind()
    network.yaml = {"backbone": []}
    with pytest.warns(UserWarning, match=r"acmix\.integrations\.ultralytics\.register\(\)"):
        acmix.replace_convolutions(network)
    # As `register` does it: the class tells what the network is.
    known = type("DetectionModel", (Mixed,), {"__module__": "ultralytics.nn.tasks", "yaml": property(dict)})()
    vars(known)["yaml"] = {"backbone": []}
    acmix.replace_convolutions(known)


def test_what_others_wrote_on_a_convolution_stays():
    network = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
    network[0].f, network[0].heads = -1, "theirs"
    acmix.replace_convolutions(network)
    assert (network[0].f, network[0].heads) == (-1, 4)


def test_heads_of_numpy_are_reported_as_numbers():
    network = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
    (layer,) = acmix.replace_convolutions(network, heads=np.int64(2), kernel_att=np.int64(3)).layers
    assert json.dumps(layer.heads) == "2"
    assert (network[0].heads, network[0].kernel_att) == (2, 3)
