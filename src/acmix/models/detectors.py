"""Detectors: torchvision's RetinaNet, FCOS, Faster R-CNN and Mask R-CNN on networks of timm's registry.

RetinaNet: Lin et al., ICCV 2017, arXiv 1708.02002. FCOS: Tian et al., ICCV 2019, arXiv 1904.01355. Faster R-CNN: Ren et
al., NeurIPS 2015, arXiv 1506.01497. Mask R-CNN: He et al., ICCV 2017, arXiv 1703.06870.

What differs from torchvision's is in `acmix.models.detector_parts`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads

from acmix.errors import InputError, meant
from acmix.models.backbones import (
    DetectionBackbone,
    backbone_groups,
    backbone_undecayed,
    detection_backbone,
    feature_strides,
)
from acmix.models.continuing import continued, cut
from acmix.models.detector_parts import (
    Anchors,
    BoxHead,
    BoxPredictor,
    CentreHead,
    GroupNorm,
    MaskPredictor,
    ProposalHead,
    ProposalNetwork,
    RegionHeads,
    RegionPool,
    Resizing,
)

DETECTORS = ("retinanet", "fcos", "faster_rcnn", "mask_rcnn")
# Of those with proposals class 0 is the background.
_WITH_PROPOSALS = ("faster_rcnn", "mask_rcnn")
# Channels of group norms must divide into so many groups.
_FCOS_GROUPS = 32
_USUAL_CHANNELS = 256
_ASPECTS = (0.5, 1.0, 2.0)
# Where the parameters of the backbone's network lie.
_BODY = "detector.backbone.body."


@dataclass(frozen=True, kw_only=True)
class DetectorArguments:
    """What makes a detector beside its name and the number of its classes.

    Attributes:
        backbone: timm's name.
        backbone_arguments: Of `timm.create_model`.
        pyramid_channels: Of every level.
        finest_stride: Pixels between cells of the finest level; None is 8 for retinanet and fcos, else 4.
        pyramid_levels: How many; None is 5.
        head_convolutions: Before each answer, 1 to 4; of the mask's head where there are proposals.
        anchor_scale: Side of the smallest anchor of a level, in cells; None is 4 for retinanet, 1 for fcos, else 8.
        anchor_octaves: Sizes of anchors a level, within an octave; of retinanet.
        image_size: Pixels of the shorter side that images are resized to.
        longest_side: Pixels that the longer side has at most.
        mean: Of each channel, taken off.
        std: Of each channel, divided by.
        score_threshold: The least score of a detection.
        overlap: Of two detections of a class that are one, intersection over union.
        most_detections: Of an image.
    """

    backbone: str
    backbone_arguments: dict[str, Any] = field(default_factory=dict)
    pyramid_channels: int = 256
    finest_stride: int | None = None
    pyramid_levels: int | None = None
    head_convolutions: int = 4
    anchor_scale: float | None = None
    anchor_octaves: int = 3
    image_size: int = 800
    longest_side: int = 1333
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    score_threshold: float = 0.05
    overlap: float = 0.5
    most_detections: int = 100


class DetectionNetwork(nn.Module):
    """A detector of torchvision, for labels that count from 0.

    Args:
        detector: torchvision's.
        first_label: Of its own; 1 where 0 is the background.

    Shape:
        Images, a list of `(3, H, W)`, of any sizes, in 0..1 or of uint8, to a list of detections: boxes `(N, 4)`, as
        x1, y1, x2, y2 in pixels of the image, labels `(N,)`, scores `(N,)`, the highest first, and of Mask R-CNN masks
        `(N, 1, H, W)` in 0..1. With targets (boxes, labels, masks of each image) it gives losses by name, means over
        images. Boxes of targets may be the bits of float32 as int32: who trains in 16 bits rounds what is a number.
    """

    def __init__(self, detector: nn.Module, first_label: int) -> None:
        super().__init__()
        self.detector, self.first_label = detector, first_label
        # Its own attributes are those of what it stands for.
        cast("Any", detector.transform).__class__ = Resizing

    @property
    def backbone(self) -> DetectionBackbone:
        """Features and pyramid."""
        return cast("DetectionBackbone", self.detector.backbone)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations of the backbone in the backward pass."""
        cast("Any", self.backbone.body).set_grad_checkpointing(enable)

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """As networks of timm have it: the backbone's own groups; what lies behind it is of the last, as a head."""
        return backbone_groups(str(self.backbone.name), _BODY, coarse=coarse)

    def no_weight_decay(self) -> set[str]:
        """Parameters that are not decayed, as networks of timm have it: the backbone's own."""
        return backbone_undecayed(str(self.backbone.name), _BODY, self)

    def losses(self, image: Tensor, target: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses of one image in evaluation mode: nothing is dropped, norms have their running statistics.

        Args:
            image: `(3, H, W)` in 0..1 or of uint8.
            target: boxes `(N, 4)`, labels `(N,)` and, of Mask R-CNN, masks `(N, H, W)`, on the same device.
        """
        # torchvision's give losses where these say that they learn; what proposals are drawn for them is fixed.
        parts = [part for part in (self.detector, *self.detector.children()) if part is not self.backbone]
        learning = [(part, part.training) for part in parts]
        try:
            for part in parts:
                part.training = True
            devices = [image.device] if image.device.type == "cuda" else []
            with torch.no_grad(), torch.random.fork_rng(devices):
                torch.manual_seed(0)
                return self([image], [target])
        finally:
            for part, before in learning:
                part.training = before

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """Compute detections, or in training mode losses."""
        pictures = [self.widened(image / 255 if image.dtype == torch.uint8 else image) for image in images]
        if targets is not None:
            own = [
                target | {"boxes": _numbers(target["boxes"]), "labels": target["labels"] + self.first_label}
                for target in targets
            ]
            for target, image, picture in zip(own, images, pictures, strict=True):
                if picture.shape != image.shape and "masks" in target:
                    target["masks"] = continued(target["masks"], picture.shape[-2:])
            return self.detector(pictures, own)
        found = self.detector(pictures)
        for each, image, picture in zip(found, images, pictures, strict=True):
            each["labels"] = each["labels"] - self.first_label
            if picture.shape != image.shape:
                cut(each, *image.shape[-2:])
        return found

    def widened(self, image: Tensor) -> Tensor:
        """An image `(3, H, W)`, continued where nothing would be left of its short side at the largest long one."""
        height, width = image.shape[-2:]
        least = max(height, width) // cast("Any", self.detector.transform).max_size + 1
        if min(height, width) >= least:
            return image
        return continued(image, (max(height, least), max(width, least)))


def _numbers(boxes: Tensor) -> Tensor:
    return boxes.view(torch.float32) if boxes.dtype == torch.int32 else boxes


def create_detector(name: str, num_classes: int, arguments: DetectorArguments) -> DetectionNetwork:
    """Create a detector with fresh weights.

    Args:
        name: One of `DETECTORS`.
        num_classes: Without the background.
        arguments: What it is made of.

    Raises:
        InputError: If there is no such detector or backbone, or an argument breaks its rule.
    """
    if name not in DETECTORS:
        raise InputError(f"model {name!r} is no detector; {meant(name, DETECTORS)}")
    proposals = name in _WITH_PROPOSALS
    if name == "fcos" and arguments.pyramid_channels % _FCOS_GROUPS:
        raise InputError(
            f"pyramid_channels must be a multiple of {_FCOS_GROUPS} for fcos, got {arguments.pyramid_channels}"
        )
    backbone, strides = _backbone(name, arguments)
    options: dict[str, Any] = {
        "min_size": arguments.image_size,
        "max_size": arguments.longest_side,
        "image_mean": list(arguments.mean),
        "image_std": list(arguments.std),
    }
    make = {"retinanet": _retinanet, "fcos": _fcos}.get(name)
    if make is not None:
        options |= {
            "score_thresh": arguments.score_threshold,
            "nms_thresh": arguments.overlap,
            "detections_per_img": arguments.most_detections,
        }
        return DetectionNetwork(make(backbone, strides, num_classes, arguments, options), 0)
    options |= {
        "box_score_thresh": arguments.score_threshold,
        "box_nms_thresh": arguments.overlap,
        "box_detections_per_img": arguments.most_detections,
    }
    detector = _with_proposals(backbone, strides, num_classes + 1, arguments, options, masks=name == "mask_rcnn")
    return DetectionNetwork(detector, int(proposals))


def _backbone(name: str, arguments: DetectorArguments) -> tuple[DetectionBackbone, list[int]]:
    """Features and pyramid, and pixels between cells of each level."""
    proposals = name in _WITH_PROPOSALS
    finest = arguments.finest_stride or (4 if proposals else 8)
    levels = arguments.pyramid_levels or 5
    own = feature_strides(arguments.backbone)
    # A stem and the stage behind it may have one stride: the deeper one sees more.
    places = [at for at, stride in enumerate(own) if stride >= finest and stride not in own[at + 1 :]]
    if finest not in own:
        raise InputError(
            f"finest_stride must be one of {', '.join(map(str, sorted({*own})))}, the strides of "
            f"{arguments.backbone!r}, got {finest}"
        )
    extra = max(0, levels - len(places))
    most = 1 if proposals else 2
    if extra > most:
        raise InputError(
            f"pyramid_levels must be 1 to {len(places) + most} for {name} on {arguments.backbone!r} from stride "
            f"{finest} on, got {levels}"
        )
    places = places[:levels]
    backbone = detection_backbone(
        arguments.backbone,
        out_channels=arguments.pyramid_channels,
        out_indices=places,
        extra_levels="pool" if proposals else "convolutions",
        extra_count=extra,
        **arguments.backbone_arguments,
    )
    strides = [own[place] for place in places]
    return backbone, strides + [strides[-1] * 2 ** (step + 1) for step in range(extra)]


def _retinanet(
    backbone: nn.Module, strides: Sequence[int], classes: int, arguments: DetectorArguments, options: dict[str, Any]
) -> RetinaNet:
    scale, octaves = arguments.anchor_scale or 4, arguments.anchor_octaves
    sizes = tuple(
        tuple(round(scale * stride * 2 ** (part / octaves), 3) for part in range(octaves)) for stride in strides
    )
    anchors = _anchors(sizes, _ASPECTS, scale)
    head = BoxHead(arguments.pyramid_channels, anchors.num_anchors_per_location()[0], classes)
    for part in (head.classification_head, head.regression_head):
        part.conv = cast("nn.Sequential", part.conv)[: arguments.head_convolutions]
        _spread(part.conv, arguments.pyramid_channels)
    return RetinaNet(backbone, classes, anchor_generator=anchors, head=head, **options)


def _anchors(sizes: tuple[tuple[float, ...], ...], aspects: tuple[float, ...], scale: float) -> Anchors:
    """Anchors of so many pixels a level, whose corners torchvision rounds to whole ones."""
    anchors = Anchors(cast("Any", sizes), (aspects,) * len(sizes))
    if any((cell[:, 2:] <= cell[:, :2]).any() for cell in anchors.cell_anchors):
        raise InputError(
            f"anchor_scale must leave every anchor a pixel, got {scale:g}: of {sizes[0][0]:g} pixels, those of the "
            "finest level, nothing is left in whole pixels; take a larger one"
        )
    return anchors


def _spread(convolutions: nn.Module, channels: int) -> None:
    """Let narrow heads start with answers as large as wide ones': torchvision's deviation is meant for 256 channels."""
    for part in convolutions.modules():
        if isinstance(part, nn.Conv2d) and channels < _USUAL_CHANNELS:
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")


def _fcos(
    backbone: nn.Module, strides: Sequence[int], classes: int, arguments: DetectorArguments, options: dict[str, Any]
) -> FCOS:
    scale = arguments.anchor_scale or 1
    anchors = _anchors(tuple((round(scale * stride, 3),) for stride in strides), (1.0,), scale)
    head = CentreHead(arguments.pyramid_channels, 1, classes, arguments.head_convolutions)
    for part in head.modules():
        if isinstance(part, nn.GroupNorm):
            part.__class__ = GroupNorm
    return FCOS(backbone, classes, anchor_generator=anchors, head=head, **options)


def _with_proposals(
    backbone: DetectionBackbone,
    strides: Sequence[int],
    classes: int,
    arguments: DetectorArguments,
    options: dict[str, Any],
    *,
    masks: bool,
) -> FasterRCNN:
    channels = arguments.pyramid_channels
    scale = arguments.anchor_scale or 8
    anchors = _anchors(tuple((round(scale * stride, 3),) for stride in strides), _ASPECTS, scale)
    # The level that is pooled has no detail of its own.
    own = strides[: len(cast("Any", backbone.body).feature_info.channels())]
    options |= {
        "rpn_anchor_generator": anchors,
        "rpn_head": ProposalHead(channels, anchors.num_anchors_per_location()[0]),
        "box_roi_pool": RegionPool(own, 7),
        "box_head": TwoMLPHead(channels * 7**2, 4 * channels),
        "box_predictor": BoxPredictor(4 * channels, classes),
    }
    if masks:
        options |= {
            "mask_roi_pool": RegionPool(own, 14),
            "mask_head": MaskRCNNHeads(channels, (channels,) * arguments.head_convolutions, 1),
            "mask_predictor": MaskPredictor(channels, channels, classes),
        }
    detector = (MaskRCNN if masks else FasterRCNN)(backbone, **options)
    # Their own attributes and parts are those of what they stand for.
    detector.rpn.__class__ = ProposalNetwork
    detector.roi_heads.__class__ = RegionHeads
    return detector


def backbone_defaults(name: str) -> dict[str, tuple[float, ...]]:
    """Mean and deviation of the images that a backbone wants."""
    configuration = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return {} if configuration is None else {"mean": tuple(configuration.mean), "std": tuple(configuration.std)}
