"""Backbones of torchvision's detectors and segmenters: contract, refusals, and training on files in real formats."""

import json
import sys

import faster_coco_eval
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import nn
from torchmetrics.detection import MeanAveragePrecision
from torchmetrics.segmentation import MeanIoU
from torchvision.models import detection, segmentation
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.transforms import v2

from acmix.errors import InputError
from acmix.models.backbones import detection_backbone, segmentation_backbone

SMALL = "acmix_resnet14_small"
CLASSES = 3  # background, square, triangle
COLOURS = {1: (220, 60, 40), 2: (40, 80, 220)}
NARROW = {"channels": (16, 32, 32, 32)}  # a further argument of timm's create_model
ODD = (67, 45)


def reduced(stride):
    return tuple(-(-axis // stride) for axis in ODD)


def polygon(category, left, top, side):
    corners = (
        [(0, 0), (side, 0), (side, side), (0, side)] if category == 1 else [(side // 2, 0), (side, side), (0, side)]
    )
    return [(left + x, top + y) for x, y in corners]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Two pictures of 64 x 48 pixels with a square and a triangle each: images/, masks/, annotations.json of COCO."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    records = []
    for index, (side, top) in enumerate([(16, 4), (24, 20)]):
        picture, mask = Image.new("RGB", (64, 48), (90, 110, 90)), Image.new("L", (64, 48))
        for category in (1, 2):
            left = 4 + 32 * ((index + category) % 2)
            corners = polygon(category, left, top, side)
            ImageDraw.Draw(picture).polygon(corners, COLOURS[category])
            ImageDraw.Draw(mask).polygon(corners, category)
            records.append(
                {
                    "id": len(records) + 1,
                    "image_id": index,
                    "category_id": category,
                    "bbox": [left, top, side, side],
                    "area": side**2 // category,
                    "iscrowd": 0,
                    "segmentation": [[value for corner in corners for value in corner]],
                }
            )
        picture.save(folder / "images" / f"{index}.png")
        mask.save(folder / "masks" / f"{index}.png")
    document = {
        "images": [{"id": index, "file_name": f"{index}.png", "width": 64, "height": 48} for index in range(2)],
        "annotations": records,
        "categories": [{"id": 1, "name": "square"}, {"id": 2, "name": "triangle"}],
    }
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def objects(scenes, monkeypatch):
    """Images `(3, 48, 64)` and targets as torchvision reads them from the COCO file."""
    stand_ins = {"": faster_coco_eval, ".coco": faster_coco_eval.coco, ".mask": faster_coco_eval.mask}
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, f"pycocotools{name}", module)
    transforms = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    dataset = torchvision.datasets.CocoDetection(scenes / "images", scenes / "annotations.json", transforms=transforms)
    dataset = torchvision.datasets.wrap_dataset_for_transforms_v2(dataset, ("boxes", "labels", "masks"))
    images, targets = zip(*dataset, strict=True)
    return list(images), list(targets)


@pytest.fixture
def pixels(scenes):
    """Images `(2, 3, 48, 64)` and class maps `(2, 48, 64)` of the pairs of PNG files."""
    images = [v2.functional.pil_to_tensor(Image.open(path)) for path in sorted((scenes / "images").iterdir())]
    masks = [v2.functional.pil_to_tensor(Image.open(path))[0] for path in sorted((scenes / "masks").iterdir())]
    return torch.stack(images) / 255, torch.stack(masks).long()


def train(model, loss_of, steps, learning_rate):
    """Train on the same few images and return the share of the loss that is left."""
    optimizer = torch.optim.AdamW(model.train().parameters(), learning_rate)
    losses = []
    for _ in range(steps):
        loss = loss_of(model)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return min(losses[-3:]) / losses[0]


def anchors(sizes):
    return AnchorGenerator(tuple((size,) for size in sizes), ((1.0,),) * len(sizes))


SIZES = {"min_size": 48, "max_size": 64, "size_divisible": 1}  # as they are, not padded to whole strides
FEW_PROPOSALS = {
    "rpn_anchor_generator": anchors((8, 16, 24, 32, 48)),
    "rpn_pre_nms_top_n_train": 64,
    "rpn_post_nms_top_n_train": 16,
    "rpn_pre_nms_top_n_test": 64,
    "rpn_post_nms_top_n_test": 16,
    "rpn_batch_size_per_image": 32,
    "box_batch_size_per_image": 16,
}


def retinanet():
    backbone = detection_backbone(SMALL, out_channels=32, out_indices=(2, 3, 4), extra_levels="convolutions", **NARROW)
    return detection.RetinaNet(backbone, CLASSES, anchor_generator=anchors((8, 16, 24, 32, 48)), **SIZES)


def faster_rcnn(create=detection.FasterRCNN, **masks):
    backbone = detection_backbone(SMALL, out_channels=32, **NARROW)
    boxes = {"box_head": TwoMLPHead(32 * 7 * 7, 256), "box_predictor": FastRCNNPredictor(256, CLASSES)}
    return create(backbone, **boxes, **masks, **FEW_PROPOSALS, **SIZES)


def mask_rcnn():
    masks = {"mask_head": MaskRCNNHeads(32, (32,), 1), "mask_predictor": MaskRCNNPredictor(32, 32, CLASSES)}
    return faster_rcnn(detection.MaskRCNN, **masks)


@pytest.mark.parametrize(
    ("create", "iou_types"), [(retinanet, ("bbox",)), (faster_rcnn, ("bbox",)), (mask_rcnn, ("bbox", "segm"))]
)
def test_detector_learns_and_is_measured(create, iou_types, objects):
    images, targets = objects
    model = create()
    assert train(model, lambda model: sum(model(images, targets).values()), steps=16, learning_rate=2e-3) < 0.6
    metric = MeanAveragePrecision(iou_type=iou_types, backend="faster_coco_eval")
    with torch.inference_mode():
        predictions = model.eval()(images)
        odd = model([torch.rand(3, *ODD), torch.rand(3, 33, 51)])
    for prediction in predictions:
        if "segm" in iou_types:
            prediction["masks"] = prediction["masks"][:, 0] > 0.5
    metric.update(predictions, targets)
    scores = [score for name, score in metric.compute().items() if name.endswith("map_50")]
    assert len(scores) == len(iou_types)
    assert all(0 <= score <= 1 for score in scores)
    for prediction, (height, width) in zip(odd, (ODD, (33, 51)), strict=True):
        assert (prediction["boxes"] <= torch.tensor([width, height, width, height])).all()
        if "segm" in iou_types:
            assert prediction["masks"].shape[1:] == (1, height, width)


def fcn():
    backbone = segmentation_backbone(SMALL, auxiliary=True, **NARROW)
    return segmentation.FCN(backbone, FCNHead(backbone.out_channels, CLASSES), FCNHead(backbone.aux_channels, CLASSES))


def deeplab():
    backbone = segmentation_backbone(SMALL, **NARROW)
    return segmentation.DeepLabV3(backbone, DeepLabHead(backbone.out_channels, CLASSES, (1, 2, 3)))


def unet():
    # The small network does not halve at every stage, as smp asks.
    return smp.Unet(
        "tu-acmix_resnet26", encoder_weights=None, classes=CLASSES, decoder_channels=(32, 32, 16, 16, 16), **NARROW
    )


@pytest.mark.parametrize("create", [fcn, deeplab, unet])
def test_segmenter_learns_and_is_measured(create, pixels):
    images, masks = pixels
    model = create()

    def loss_of(model):
        outputs = model(images)
        outputs = outputs.values() if isinstance(outputs, dict) else [outputs]
        return sum(nn.functional.cross_entropy(output, masks) for output in outputs)

    assert train(model, loss_of, steps=8, learning_rate=5e-3) < 0.6
    metric = MeanIoU(CLASSES, input_format="index")
    with torch.inference_mode():
        outputs = [model.eval()(batch) for batch in (images, torch.rand(1, 3, *ODD))]
    classes, odd = [output["out"] if isinstance(output, dict) else output for output in outputs]
    assert 0 <= metric(classes.argmax(1), masks) <= 1
    assert odd.shape == (1, CLASSES, *ODD)


@pytest.mark.parametrize(
    ("name", "out_indices", "extra_levels", "names"),
    [
        (SMALL, (1, 2, 3, 4), "pool", ["0", "1", "2", "3", "pool"]),
        ("acmix_resnet26", (2, 3, 4), "convolutions", ["0", "1", "2", "p6", "p7"]),
        ("test_mambaout", (0, 2), "pool", ["0", "1", "pool"]),  # channels last
        ("test_efficientnet", (0, 3), "convolutions", ["0", "1", "p6", "p7"]),  # timm's own class of features
    ],
)
def test_levels(name, out_indices, extra_levels, names):
    backbone = detection_backbone(name, out_channels=8, out_indices=out_indices, extra_levels=extra_levels).eval()
    with torch.inference_mode():
        levels = backbone(torch.rand(1, 3, *ODD))
    assert list(levels) == names
    strides = backbone.body.feature_info.reduction()
    strides += [strides[-1] * 2**level for level in range(1, len(names) - len(strides) + 1)]
    assert [level.shape for level in levels.values()] == [(1, 8, *reduced(stride)) for stride in strides]
    assert backbone.out_channels == 8


FAMILY = {
    "acmix_swin_tiny": {"depths": (2, 1, 1, 1), "num_heads": (1, 2, 2, 4), "embed_dim": 16},
    "acmix_pvt_tiny": {"channels": (16, 32, 32, 64), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
    "acmix_san10": {"channels": (32, 32, 64, 64, 64), "depths": (1, 1, 1, 1, 1)},
}


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("size", [ODD, (30, 210), (1, 1)])
def test_the_family_at_every_size(name, size):
    """Detectors have the last four features by default; a Swin's maps, whose channels come last, are turned."""
    detector = detection_backbone(name, out_channels=8, **FAMILY[name])
    segmenter = segmentation_backbone(name, output_stride=32, auxiliary=True, **FAMILY[name])
    image = torch.rand(2, 3, *size)

    def shape(stride):
        return tuple(-(-axis // stride) for axis in size)

    for training in (True, False):
        levels = detector.train(training)(image)
        assert [tuple(level.shape[2:]) for level in levels.values()][:4] == [shape(2**power) for power in (2, 3, 4, 5)]
        assert list(levels) == ["0", "1", "2", "3", "pool"]
        outputs = segmenter.train(training)(image)
        assert outputs["out"].shape == (2, segmenter.out_channels, *shape(32))
        assert outputs["aux"].shape == (2, segmenter.aux_channels, *shape(16))
    (sum(level.square().mean() for level in levels.values()) + outputs["out"].square().mean()).backward()
    blocks = [
        parameter for part in (detector, segmenter) for key, parameter in part.named_parameters() if "attn" in key
    ]
    assert sum(parameter.grad is not None for parameter in blocks) > len(blocks) / 2


def test_pyramid_is_torchvisions_own():
    """Names and values, so that weights of torchvision's detectors fit."""
    layers = (1, 1, 1, 1)
    stages = {f"layer{stage + 1}": str(stage) for stage in range(4)}
    theirs = BackboneWithFPN(torchvision.models.ResNet(BasicBlock, layers), stages, [64, 128, 256, 512], 16).eval()
    ours = detection_backbone("resnet18", out_channels=16, layers=layers).eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.rand(1, 3, *ODD)
    with torch.inference_mode():
        expected, actual = theirs(image), ours(image)
    assert list(actual) == list(expected)
    for name, level in actual.items():
        torch.testing.assert_close(level, expected[name])


def test_dilation_is_torchvisions_own():
    layers = (1, 1, 1, 1)
    dilation = [False, True, True]
    theirs = torchvision.models.ResNet(Bottleneck, layers, width_per_group=8, replace_stride_with_dilation=dilation)
    theirs = IntermediateLayerGetter(theirs, {"layer3": "aux", "layer4": "out"}).eval()
    ours = segmentation_backbone("resnet26", layers=layers, base_width=8, auxiliary=True).eval()
    ours.body.load_state_dict(theirs.state_dict())
    image = torch.rand(1, 3, *ODD)
    with torch.inference_mode():
        expected, actual = theirs(image), ours(image)
    assert (ours.aux_channels, ours.out_channels) == (1024, 2048)
    for name in ("out", "aux"):
        torch.testing.assert_close(actual[name], expected[name])


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_output_stride(output_stride):
    backbone = segmentation_backbone(SMALL, output_stride=output_stride, auxiliary=True).eval()
    with torch.inference_mode():
        outputs = backbone(torch.rand(1, 3, *ODD))
    last = min(output_stride, 16)
    assert (backbone.aux_channels, backbone.out_channels) == (256, 512)
    assert outputs["out"].shape == (1, 512, *reduced(last))
    assert outputs["aux"].shape == (1, 256, *reduced(8))


def test_networks_that_cannot_dilate():
    backbone = segmentation_backbone("test_mambaout", output_stride=32).eval()
    with torch.inference_mode():
        outputs = backbone(torch.rand(1, 3, *ODD))
    assert list(outputs) == ["out"]
    assert outputs["out"].shape == (1, backbone.out_channels, *reduced(32))
    assert backbone.aux_channels is None
    for name in ("test_mambaout", "vgg11"):
        with pytest.raises(InputError, match=f"output_stride must be 32 for '{name}', which cannot dilate, got 8"):
            segmentation_backbone(name)


@pytest.mark.parametrize("create", [detection_backbone, segmentation_backbone])
def test_state_dict_round_trip(create, tmp_path):
    """Of the whole backbone, and of a classifier by timm's own way."""
    classifier = timm.create_model(SMALL)
    save_file(classifier.state_dict(), tmp_path / "classifier.safetensors")
    source = create(SMALL, pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / "classifier.safetensors")})
    for key, weight in source.body.state_dict().items():
        assert torch.equal(weight, classifier.state_dict()[key]), key
    other = create(SMALL).eval()
    other.load_state_dict(source.state_dict())
    image = torch.rand(1, 3, *ODD)
    with torch.inference_mode():
        expected, actual = source.eval()(image), other(image)
    for name, level in actual.items():
        assert torch.equal(level, expected[name])


@pytest.mark.parametrize("create", [detection_backbone, segmentation_backbone])
def test_unknown_networks_are_refused(create):
    with pytest.raises(InputError, match="unknown model 'acmix_resnet27'; the nearest are acmix_resnet26"):
        create("acmix_resnet27")


@pytest.mark.parametrize("indices", [(), (1, 1), (2, 1), (-1,), (3, 4)])
def test_indices_are_refused(indices):
    with pytest.raises(InputError, match=r"out_indices must increase and lie in 0 to 3, .*'test_convnext', got \("):
        detection_backbone("test_convnext", out_indices=indices)


def test_other_values_are_refused():
    with pytest.raises(ValueError, match="out_channels must be at least 1, got 0"):
        detection_backbone(SMALL, out_channels=0)
    with pytest.raises(InputError, match=r"extra_levels must be one of \('pool', 'convolutions'\), got 'p6'"):
        detection_backbone(SMALL, extra_levels="p6")
    with pytest.raises(InputError, match=r"output_stride must be one of \(8, 16, 32\), got 4"):
        segmentation_backbone(SMALL, output_stride=4)
