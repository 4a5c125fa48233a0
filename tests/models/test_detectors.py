"""Detectors: what they answer, that their losses are means over images, and how their parts are named."""

from dataclasses import replace

import pytest
import timm
import torch
from timm.models import group_parameters
from timm.models.resnet import Bottleneck
from timm.optim import create_optimizer_v2

from acmix import InputError
from acmix.models.detectors import DETECTORS, DetectorArguments, create_detector
from acmix.models.segmenters import segmenter

SMALL = DetectorArguments(
    backbone="acmix_resnet14_small",
    pyramid_channels=32,
    finest_stride=4,
    pyramid_levels=2,
    head_convolutions=1,
    image_size=32,
    longest_side=64,
    score_threshold=0.0,
)


def examples():
    torch.manual_seed(1)
    images = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for _ in range(3)]
    targets = []
    for boxes, labels in (([[2, 3, 20, 18], [10, 12, 30, 30]], [0, 2]), ([[5, 5, 15, 25]], [1]), ([], [])):
        masks = torch.zeros(len(labels), 32, 32, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
            mask[top:bottom, left:right] = 1
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        targets.append({"boxes": boxes, "labels": torch.tensor(labels, dtype=torch.int64), "masks": masks})
    return images, targets


@pytest.fixture(params=DETECTORS)
def detector(request):
    torch.manual_seed(0)
    network = create_detector(request.param, 3, SMALL).train()
    # Statistics of a batch would make images depend on each other.
    network.backbone.eval()
    return network


def test_losses_are_means_over_images(detector):
    images, targets = examples()
    # So few places that all of them are drawn.
    together = detector(images, targets)
    alone = [detector([image], [target]) for image, target in zip(images, targets, strict=True)]
    for name, loss in together.items():
        mean = sum(float(each[name].detach()) for each in alone) / 3
        assert float(loss.detach()) == pytest.approx(mean, rel=1e-4), name
        assert float(loss.detach()) > 0


def test_labels_count_from_zero_and_boxes_are_of_the_image(detector):
    detector.eval()
    images = [torch.rand(3, 40, 60), torch.rand(3, 64, 32)]
    with torch.no_grad():
        found = detector(images)
    for image, each in zip(images, found, strict=True):
        assert {*each["labels"].unique().tolist()} <= {0, 1, 2}
        assert (each["boxes"] >= 0).all()
        assert (each["boxes"][:, 2] <= image.shape[2]).all()
        assert (each["boxes"][:, 3] <= image.shape[1]).all()
        if "masks" in each:
            assert each["masks"].shape[2:] == image.shape[1:]


@pytest.mark.parametrize("size", [(1, 200), (200, 1), (3, 300), (1, 90)])
def test_of_a_line_something_is_left(detector, size):
    """Sixty-four pixels of the long side are less than one of the short."""
    detector.eval()
    image, (height, width) = torch.rand(3, *size), size
    with torch.no_grad():
        (found,) = detector([image])
    assert (found["boxes"] <= torch.tensor([width, height, width, height])).all()
    assert (found["boxes"][:, 2:] > found["boxes"][:, :2]).all()
    if "masks" in found:
        assert found["masks"].shape[2:] == size
    target = {
        "boxes": torch.tensor([[0.0, 0.0, width, height]]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, *size, dtype=torch.uint8),
    }
    assert all(loss.isfinite() for loss in detector.losses(image, target).values())


@pytest.mark.parametrize("name", ["faster_rcnn", "mask_rcnn"])
@pytest.mark.parametrize("size", [(32, 32), (40, 32), (32, 20)])
def test_regions_are_read_where_they_lie_whatever_image_comes_first(name, size):
    """torchvision takes 40 pixels, continued to 64, for a level at half of its stride."""
    network = create_detector(name, 3, SMALL).eval()
    with torch.no_grad():
        network([torch.rand(3, *size)])
    heads = network.detector.roi_heads
    pools = [heads.box_roi_pool, *([heads.mask_roi_pool] if name == "mask_rcnn" else [])]
    # Cells that hold their own column, in pixels; torchvision's poolers count from the first cell's centre.
    levels = {}
    for level, stride in enumerate((4, 8)):
        cells = torch.arange(64 // stride) * float(stride)
        levels[str(level)] = cells.expand(1, 1, 64 // stride, -1)
    boxes = torch.tensor([[8.0, 4.0, 36.0, 40.0], [20.0, 20.0, 48.0, 60.0]])
    for pool in pools:
        pooled = pool(levels, [boxes], [(64, 64)])
        assert pooled.mean((1, 2, 3)).tolist() == pytest.approx(boxes[:, ::2].mean(1).tolist(), abs=0.01)


def test_anchors_lie_where_they_lie_in_float32(detector):
    """In bfloat16 corners beyond 256 pixels would be rounded to even numbers, beyond 512 to multiples of four."""
    detector.eval()
    detector.detector.transform.min_size, detector.detector.transform.max_size = (32,), 640
    found = []
    part = getattr(detector.detector, "rpn", detector.detector).anchor_generator
    part.register_forward_hook(lambda _module, _inputs, anchors: found.append(anchors[0]))
    image = torch.rand(3, 32, 600)
    with torch.no_grad():
        detector([image])
        with torch.autocast("cpu", torch.bfloat16):
            detector([image])
        detector.bfloat16()([image.bfloat16()])
    assert all(torch.equal(each, found[0]) for each in found)


def test_masks_are_resized_with_their_image():
    """The edge of a mask, over many places, lies in the mean where that of the box does."""
    network = create_detector("mask_rcnn", 3, replace(SMALL, image_size=48))
    apart = []
    for edge in range(20, 60):
        image = torch.zeros(3, 75, 75)
        image[..., edge:] = 1
        target = {
            "boxes": torch.tensor([[float(edge), 0, 75, 75]]),
            "labels": torch.tensor([1]),
            "masks": image[:1].to(torch.uint8),
        }
        _, (found,) = network.detector.transform([image], [target])
        assert found["masks"].shape == (1, 48, 48)
        assert found["masks"].dtype == torch.uint8
        apart.append(48 - float(found["boxes"][0, 0]) - float(found["masks"][0, 0].sum()))
    assert sum(apart) / len(apart) == pytest.approx(0, abs=0.1)


def test_a_level_may_be_one_cell_of_one_image():
    """Each group of a norm is one value then."""
    fcos = create_detector("fcos", 3, replace(SMALL, pyramid_levels=5)).eval()
    with torch.no_grad():
        (found,) = fcos([torch.rand(3, 32, 32)])
    assert found["boxes"].isfinite().all()


@pytest.mark.parametrize(
    ("backbone", "name"),
    [*zip(("acmix_resnet26", "acmix_swin_tiny", "acmix_pvt_tiny", "acmix_san10"), DETECTORS, strict=True)],
)
def test_every_family_serves_as_backbone(backbone, name):
    own = replace(SMALL, backbone=backbone, finest_stride=None, pyramid_levels=None, image_size=64, longest_side=128)
    torch.manual_seed(0)
    network = create_detector(name, 3, own).train()
    sum(network(*examples()).values()).backward()
    assert [
        key for key, each in network.named_parameters() if each.grad is None or not each.grad.isfinite().all()
    ] == []
    network.eval()
    sizes = [(37, 91), (1, 150), (130, 50)]
    with torch.no_grad():
        found = network([torch.rand(3, *size) for size in sizes])
    for (height, width), each in zip(sizes, found, strict=True):
        assert (each["boxes"] <= torch.tensor([width, height, width, height])).all()


def test_heads_answer_in_float32_under_autocast(detector):
    images, targets = examples()
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector(images, targets)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("backbone", ["acmix_resnet14_small", "acmix_swin_tiny", "acmix_pvt_tiny"])
def test_stages_are_those_of_the_backbone(backbone):
    arguments = DetectorArguments(backbone=backbone, pyramid_channels=8, head_convolutions=1)
    with torch.device("meta"):
        network = (
            create_detector("faster_rcnn", 2, arguments)
            if "resnet" not in backbone
            else create_detector("retinanet", 2, SMALL)
        )
    groups = group_parameters(network, network.group_matcher(coarse=True), reverse=True)
    body = {name: group for name, group in groups.items() if ".body." in name}
    others = {group for name, group in groups.items() if ".body." not in name}
    assert set(body.values()) == {*range(max(body.values()) + 1)}
    assert others == {max(groups.values())}
    assert max(body.values()) <= max(groups.values())


@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize("options", [{"acmix_stages": (4,)}, {"acmix_stages": ()}, {"block": Bottleneck}])
def test_other_operators_are_of_the_stage_in_whose_place_they_stand(options, coarse):
    def groups(**own):
        with torch.device("meta"):
            network = create_detector("retinanet", 2, replace(SMALL, pyramid_levels=3, backbone_arguments=own))
        return group_parameters(network, network.group_matcher(coarse=coarse), reverse=True)

    plain, other = groups(), groups(**options)
    place = "detector.backbone.body.layer1.0.conv2"
    assert other[f"{place}.weight"] == plain[f"{place}.fc_weight"]
    assert {name: group for name, group in other.items() if name in plain}.items() <= plain.items()
    assert set(other.values()) == set(plain.values())


@pytest.mark.parametrize("backbone", ["acmix_swin_tiny", "acmix_pvt_tiny", "acmix_resnet26"])
def test_what_the_backbone_does_not_decay_is_not_decayed(backbone):
    arguments = DetectorArguments(backbone=backbone, pyramid_channels=64, head_convolutions=1)
    with torch.device("meta"):
        whole = timm.create_model(backbone)
        detector = create_detector("retinanet", 2, arguments)
        dense = segmenter("semantic_fpn", backbone=backbone, num_classes=2, decoder_channels=64)
    # Rates have one axis, which is not decayed anyway.
    expected = {name for name in getattr(whole, "no_weight_decay", set)() if ".rate_" not in name}
    for network in (detector, dense):
        optimizer = create_optimizer_v2(network, opt="adamw", lr=1e-3, weight_decay=0.1)
        decayed = {id(each) for group in optimizer.param_groups if group["weight_decay"] for each in group["params"]}
        names = [name.replace("_", ".") for name, each in network.named_parameters() if id(each) in decayed]
        assert names
        assert [name for name in names if any(name.endswith(each.replace("_", ".")) for each in expected)] == []


@pytest.mark.parametrize(
    ("name", "changes", "rule"),
    [
        ("retinanett", {}, "model 'retinanett' is no detector; the nearest are retinanet"),
        ("fcos", {"pyramid_channels": 48}, "pyramid_channels must be a multiple of 32 for fcos, got 48"),
        ("retinanet", {"finest_stride": 3}, "finest_stride must be one of 2, 4, 8, 16, the strides of"),
        ("faster_rcnn", {"pyramid_levels": 5}, "pyramid_levels must be 1 to 4 for faster_rcnn"),
        *[
            (name, {"anchor_scale": 0.05}, r"anchor_scale must leave every anchor a pixel, got 0.05: of 0.2 pixels")
            for name in DETECTORS
        ],
        ("retinanet", {"backbone": "resnet99"}, "resnet99"),
        ("retinanet", {"backbone": "acmix_resnet14_small.x"}, "acmix_resnet14_small.x"),
    ],
)
def test_what_cannot_be_built_is_refused(name, changes, rule):
    with pytest.raises(InputError, match=rule):
        create_detector(name, 2, DetectorArguments(**(vars(SMALL) | changes)))


def test_losses_of_an_image_are_those_of_training_and_leave_no_trace(detector):
    images, targets = examples()
    detector.eval()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    drawn = torch.get_rng_state()
    found = [detector.losses(image, target) for image, target in zip(images, targets, strict=True)]
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not any(module.training for module in detector.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())
    assert not detector([images[0]])[0].keys() & {"classification"}
    assert [each.keys() for each in found] == [found[0].keys()] * 3
    detector.train()
    detector.backbone.eval()
    for image, target, own in zip(images, targets, found, strict=True):
        torch.manual_seed(0)
        for name, loss in detector([image], [target]).items():
            torch.testing.assert_close(own[name], loss.detach())
