"""Detectors and segmenters as explanations and counts of multiply-adds call them: on one batch of images."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.image_list import ImageList

from acmix.models.detectors import DetectionNetwork


def normalised(network: DetectionNetwork, image: Tensor) -> Tensor:
    """An image as the backbone of a detector gets it: resized, normalised, continued to what strides divide.

    Args:
        network: The detector.
        image: `(3, H, W)` in 0..1.

    Returns:
        `(3, H', W')`.
    """
    detector: Any = network.detector
    images, _ = detector.transform([network.widened(image)])
    return images.tensors[0]


class ObjectScores(nn.Module):
    """The score of the surest object of each class, as a detector in evaluation mode gives it.

    Boxes may reach into what continues an image, which those of a detector with proposals else do not.

    Args:
        network: The detector.

    Shape:
        Images `(B, 3, H, W)` of `normalised` to `(B, classes)` in 0..1, from which gradients flow to all layers.
    """

    def __init__(self, network: DetectionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Compute the scores."""
        detector: Any = self.network.detector
        features = detector.backbone(images)
        if isinstance(detector, RetinaNet):
            return detector.head([*features.values()])["cls_logits"].sigmoid().amax(1)
        if isinstance(detector, FCOS):
            found = detector.head([*features.values()])
            return (found["cls_logits"].sigmoid() * found["bbox_ctrness"].sigmoid()).sqrt().amax(1)
        sizes = [(images.shape[-2], images.shape[-1])] * len(images)
        proposals = [each.to(images) for each in detector.rpn(ImageList(images, sizes), features)[0]]
        heads = detector.roi_heads
        logits, _ = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, proposals, sizes)))
        # The first class is the background.
        scores = logits.softmax(-1)[:, 1:].split([len(each) for each in proposals])
        return torch.stack([each.amax(0) for each in scores])


class PixelScores(nn.Module):
    """The mean logit of each class over the pixels that are found to be of it, or over all where none is.

    Its gradient is that of Seg-Grad-CAM (Vinogradova et al., AAAI 2020, arXiv 2002.11434).

    Args:
        network: A segmenter, images `(B, C, H, W)` to logits `(B, classes, H, W)`.

    Shape:
        Images `(B, C, H, W)` to `(B, classes)`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Compute the scores."""
        logits = self.network(images).flatten(2)
        found = nn.functional.one_hot(logits.argmax(1), logits.shape[1]).transpose(1, 2).bool()
        counted = (found | ~found.any(-1, keepdim=True)).to(logits)
        return (logits * counted).sum(-1) / counted.sum(-1)


class EveryPart(nn.Module):
    """The parts of a detector, each called as often as for an image with as many objects as it can find.

    Args:
        network: The detector.

    Attributes:
        proposals: How many boxes the second stage looks at; 0 without one.
        masks: How many masks are computed.

    Shape:
        Images `(B, 3, H, W)` to answers of no use but to be counted.
    """

    def __init__(self, network: DetectionNetwork) -> None:
        super().__init__()
        detector: Any = network.detector
        heads: Any = getattr(detector, "roi_heads", None)
        self.backbone = detector.backbone
        self.head = detector.head if heads is None else detector.rpn.head
        self.proposals: int = 0 if heads is None else detector.rpn._post_nms_top_n["testing"]
        self.masks: int = heads.detections_per_img if heads is not None and heads.has_mask() else 0
        # What is called on features that were pooled, and their size.
        self.seconds = nn.ModuleList()
        self._pooled: list[tuple[int, Any]] = []
        if self.proposals:
            self._add(self.proposals, heads.box_roi_pool, heads.box_head, heads.box_predictor)
        if self.masks:
            self._add(self.masks, heads.mask_roi_pool, heads.mask_head, heads.mask_predictor)

    def _add(self, count: int, pool: Any, *parts: nn.Module) -> None:
        self.seconds.append(nn.Sequential(*parts))
        self._pooled.append((count, pool.output_size))

    def forward(self, images: Tensor) -> Any:
        """Compute the answers."""
        levels = [*self.backbone(images).values()]
        answers = [self.head(levels)]
        for part, (count, size) in zip(self.seconds, self._pooled, strict=True):
            answers.append(part(levels[0].new_zeros(count, levels[0].shape[1], *size)))
        return answers
