"""Networks of Ultralytics with our layer, from the YAML to the file that a runtime reads."""

import copy
import pickle

import pytest
import torch
import yaml
from torch import nn
from torch.utils import _pytree as pytree

import acmix
from acmix.surgery import FusedACmix
from tests.integrations.pictures import operators, stir

pytestmark = pytest.mark.integrations
# Blocks of both kinds, at the start and in the head, read by the row after them and by others, in two widths.
ROWS = """
nc: 2
scales: {n: [0.5, 0.25, 1024], m: [1.0, 0.75, 512]}
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv_ACmix, [128, 3, 2]]
  - [-1, 2, C2f_ACmix, [128, True]]
  - [-1, 1, ACmix, [256, {stride: 2}]]
  - [-1, 2, ACmix, [1024, {heads: 8, kernel_att: 5}]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [-1, 2, C3k2_ACmix, [512, False, {select: "*.cv2.conv", kernel_att: 3}]]
head:
  - [-1, 1, nn.Upsample, [null, 2, nearest]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 1, ACmix, [256]]
  - [-1, 1, C2f, [256]]
  - [[10, 6], 1, Detect, [nc]]
"""
EVERY_BLOCK = ("ACmix", "C2f_ACmix", "C3_ACmix", "C3k2_ACmix", "C2_ACmix", "Bottleneck_ACmix", "RepNCSPELAN4_ACmix")


@pytest.fixture(scope="module", autouse=True)
def registered(_alone):
    from acmix.integrations import ultralytics

    ultralytics.register()
    ultralytics.register()


@pytest.fixture
def build():
    """A network from rows, with norms that do something."""
    from ultralytics.nn import tasks

    def build(rows=ROWS, **changed):
        described = {**(yaml.safe_load(rows) if isinstance(rows, str) else copy.deepcopy(rows)), **changed}
        return stir(tasks.DetectionModel(described, verbose=False))

    return build


def sizes(network):
    return {
        name: (module.in_channels, module.out_channels, module.heads, module.kernel_att, module.stride[0])
        for name, module in operators(network).items()
    }


@torch.no_grad()
def maps(network, size=64):
    """What the head reads, and its own outputs unless they are in an order of their own, for one image."""
    torch.manual_seed(1)
    seen = []
    head = network.model[-1]
    with head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        output = network(torch.rand(1, 3, size, size))
    # Behind the first are raw outputs, of which versions keep what they please.
    output = output[0] if isinstance(output, tuple) else output
    return pytree.tree_leaves((seen[-1], [] if type(head).__name__ == "RTDETRDecoder" else output))


def assert_same(network, expected, tolerance=1e-5, size=64):
    for ours, theirs in zip(maps(network, size), expected, strict=True):
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_rows_have_channels_and_options_at_every_width(build):
    assert sizes(build(scale="n")) == {
        "model.1.conv": (16, 32, 4, 7, 2),
        "model.2.m.0.cv1.conv": (16, 16, 4, 7, 1),
        "model.2.m.0.cv2.conv": (16, 16, 4, 7, 1),
        "model.3": (32, 64, 4, 7, 2),
        "model.4": (64, 256, 8, 5, 1),
        "model.6.m.0.cv2.conv": (32, 64, 4, 3, 1),
        "model.9": (384, 64, 4, 7, 1),
    }
    wide = sizes(build(scale="m"))
    assert wide["model.3"] == (96, 192, 4, 7, 2)
    assert [wide["model.4.0"], wide["model.4.1"]] == [(192, 384, 8, 5, 1), (384, 384, 8, 5, 1)]
    # Ultralytics makes every C3k2 one of C3k from the width "m" on.
    assert {name for name in wide if name.startswith("model.6.")} == {
        f"model.6.m.{outer}.m.{inner}.cv2.conv" for outer in (0, 1) for inner in (0, 1)
    }
    assert wide["model.9"] == (768, 192, 4, 7, 1)


@pytest.mark.parametrize(("arguments", "stride"), [([], 1), ([{"stride": 2}], 2)])
@pytest.mark.parametrize("row", [0, 3])
def test_the_layer_alone_keeps_the_channels(build, row, arguments, stride):
    described = yaml.safe_load(ROWS)
    described["backbone"].insert(row, [-1, 1, "ACmix", arguments])
    described["head"][1:2], described["head"][-1] = [[[-1, 5], 1, "Concat", [1]]], [[11, 7], 1, "Detect", ["nc"]]
    if row == 0:
        with pytest.raises(ValueError, match="no number of heads divides 3 channels"):
            build(described)
    else:
        assert sizes(build(described, scale="m"))["model.3"] == (96, 96, 4, 7, stride)


@pytest.mark.parametrize("name", EVERY_BLOCK)
@pytest.mark.parametrize("row", [0, 2])
def test_a_row_may_stand_anywhere(build, name, row):
    described = yaml.safe_load(ROWS)
    extra = {"RepNCSPELAN4_ACmix": [128, 64, 32, 1]}.get(name, [128])
    described["backbone"][row] = [-1, 2 if row == 0 and name == "ACmix" else 1, name, extra]
    network = build(described)
    assert any(found.startswith(f"model.{row}") for found in operators(network))
    assert network.model[row].type == name
    assert all(each.isfinite().all() for each in maps(network))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([-1, 1, "ACMix", [128]], "got 'ACMix'; near are ACmix"),
        ([-1, 1, "C2F_ACmix", [128]], "got 'C2F_ACmix'; near are C2f_ACmix"),
        ([-1, 1, "Nothing_ACmix", [128]], "must be named ACmix, the layer, or X_ACmix"),
        ([-1, 1, "deepcopy_ACmix", [128]], "must be named ACmix"),
        ([-1, 1, "ACmix", [128, 7, 4, 3, 2]], "only argument without a name"),
        ([1, 1, "ACmix", []], "or none where it reads the row before"),
        ([-1, 1, "ACmix", [128, {"head": 4}]], r"\[128, {'head': 4}\]\] in the YAML: .*'head'"),
        ([-1, 1, "ACmix", [128, {"heads": 7}]], "7 heads do not divide 32 channels"),
        ([-1, 1, "ACmix", [128, {"kernel_att": 4}]], "kernel_att must be"),
        ([-1, 1, "ACmix", [128, {"stride": 0}]], "stride"),
        ([-1, 1, "SPPF_ACmix", [128, 5]], "no convolution that ACmix can replace: cv1.conv .* is 1 x 1"),
        ([-1, 1, "C2f_ACmix", [128, {"select": "nothing"}]], "must name convolutions"),
    ],
)
def test_a_row_without_meaning_is_refused(build, row, message):
    described = yaml.safe_load(ROWS)
    described["backbone"][3] = row
    with pytest.raises(ValueError, match=message):
        build(described)


# Of some only a part, for time: blocks with branches, with attention, in a ResNet.
NETWORKS = {
    "yolov8n": None,
    "yolov9t": "model.4.*",
    "yolo11n-seg": None,
    "yolo11n-cls": None,
    "yolo12n": "model.2.*",
}


@pytest.mark.parametrize(("name", "select"), {**NETWORKS, "rtdetr-resnet50": "model.[12].*"}.items())
def test_networks_after_surgery_are_described_and_fused(name, select):
    from ultralytics import RTDETR, YOLO

    size = 256 if "rtdetr" in name else 64
    model = (RTDETR if "rtdetr" in name else YOLO)(f"{name}.yaml")
    report = acmix.replace_convolutions(model.model, select=select)
    network = stir(model.model)
    assert len(operators(network)) == len(report.replaced) > 0
    expected = maps(network, size)

    again = type(network)(copy.deepcopy(network.yaml), verbose=False)
    assert sizes(again) == sizes(network)
    again.load(copy.deepcopy(network), verbose=False)
    assert_same(again.eval(), expected, 0, size)

    fused = network.fuse(verbose=False)
    assert {type(operator) for operator in operators(fused).values()} == {FusedACmix}
    assert fused.yaml == again.yaml
    assert_same(fused, expected, 1e-4, size)
    assert_same(fused.fuse(verbose=False), expected, 1e-4, size)


def test_a_norm_that_cannot_be_folded_follows(build):
    network = build()
    network.model[1].conv.register_forward_hook(lambda *_: 2 * _[-1])
    expected = maps(network)
    fused = network.fuse(verbose=False)
    assert type(fused.model[1].conv[0]) is acmix.ACmix
    assert_same(fused, expected)


def test_two_branches_keep_the_one_that_is_an_operator(build):
    from ultralytics.nn.modules import Conv2

    network = build()
    old = network.model[1]
    network.model[1] = both = Conv2(16, 32, 3, 2)
    both.conv, both.i, both.f, both.type = old.conv, old.i, old.f, old.type
    expected = maps(stir(network))
    assert_same(network.fuse(verbose=False), expected)


def test_the_yaml_of_a_network_follows_it(build):
    plain = build(scale="n")
    rows = set(plain.yaml["acmix"])
    plain.model[0].conv = acmix.ACmix(3, 16, stride=2, heads=2, quiet_shifts=True, bias=True)
    assert set(plain.yaml["acmix"]) == {*rows, "0.conv"}
    plain.model[9].heads = 2
    network = build(yaml.safe_load(yaml.safe_dump(plain.yaml)))
    first = network.model[0].conv
    assert (first.heads, first.quiet_shifts, first.bias is not None, first.stride) == (2, True, True, (2, 2))
    assert network.model[9].heads == 2
    assert sizes(network) == sizes(plain)

    for name in rows | {"0.conv"}:
        operator = network.model.get_submodule(name)
        channels = operator.in_channels, operator.out_channels
        marks = {mark: getattr(operator, mark) for mark in ("i", "f", "type") if hasattr(operator, mark)}
        convolution = nn.Conv2d(*channels, 3, operator.stride, 1, bias=False)
        vars(convolution).update(marks)
        network.model.set_submodule(name, convolution)
    assert "acmix" not in network.yaml


def test_an_operator_without_a_place_is_refused(build):
    network = build(scale="n")
    marked = network.model[0]
    network.model[0] = nn.Sequential(marked, acmix.ACmix(16, 16))
    network.model[0].i, network.model[0].f = marked.i, marked.f
    with pytest.raises(ValueError, match=r"model\.0\.1 is an ACmix, .* has nothing there"):
        build(network.yaml)


def test_an_operator_of_another_type_is_refused(build):
    network = build(scale="n")
    network.model[9].__class__ = type("Mine", (acmix.ACmix,), {})
    with pytest.raises(ValueError, match=r"model\.9 is a Mine, which a YAML cannot describe"):
        build(network.yaml)


def test_heads_that_other_classes_do_not_have_are_refused():
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    network = YOLO("yolov8n.yaml").model
    acmix.replace_convolutions(network, select="model.22.cv3.*", heads=5)
    with pytest.raises(ValueError, match="64 and heads=5"):
        DetectionModel(network.yaml, nc=2, verbose=False)


def test_networks_without_operators_are_as_they_were():
    from ultralytics import YOLO

    network = YOLO("yolo11n.yaml").model
    assert "acmix" not in network.yaml
    assert "_acmix" not in vars(pickle.loads(pickle.dumps(network)))  # noqa: S301  our own
    assert not operators(network.fuse(verbose=False))
