"""What is changed in the parts of torchvision's detectors.

Losses are means over images, so that the gradient of a batch is the mean of those of its parts. Heads answer and
anchors lie in float32, as boxes of 16 bits are pixels off. Levels of a pyramid are pooled at their strides, which
torchvision guesses, for good, from the first images that it is given. Masks are resized without moving on their image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper


class Resizing(GeneralizedRCNNTransform):
    """Resizes and normalises images, with their boxes and masks."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """An image, and its targets at the same scale."""
        if target is None or "masks" not in target:
            return super().resize(image, target)
        image, own = super().resize(image, {name: each for name, each in target.items() if name != "masks"})
        # Without "exact" masks would lie half a pixel right of and below the image, in the mean.
        masks = nn.functional.interpolate(target["masks"][:, None].float(), image.shape[-2:], mode="nearest-exact")
        return image, {**(own or {}), "masks": masks[:, 0].byte()}


def _mean(losses: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in losses]).mean() for name in losses[0]}


class Anchors(AnchorGenerator):
    """Anchors in float32, whatever features are in."""

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        """Those of one cell."""
        # torchvision's are in the features' dtype: whole numbers of more than 8 bits would be rounded in bfloat16.
        super().set_cell_anchors(torch.promote_types(dtype, torch.float32), device)


class RegionPool(MultiScaleRoIAlign):
    """Regions of a pyramid in `size` x `size` cells, computed in float32.

    Args:
        strides: Pixels between cells of each level, the finest first.
        size: Cells a side.
    """

    def __init__(self, strides: Sequence[int], size: int) -> None:
        super().__init__([str(level) for level in range(len(strides))], size, 2)
        # Left open, they follow from the size of the first images before these are continued: 40 pixels, continued to
        # 64, would be read at half of each stride, and so would be all images after them.
        self.scales = [1 / stride for stride in strides]
        first, last = (stride.bit_length() - 1 for stride in (strides[0], strides[-1]))
        self.map_levels = LevelMapper(first, last)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Levels by name, and boxes of each image, to `(boxes, C, size, size)`."""
        dtype = next(iter(x.values())).dtype
        exact = torch.promote_types(dtype, torch.float32)
        levels = {name: level.to(exact) for name, level in x.items()}
        return super().forward(levels, [each.to(exact) for each in boxes], image_shapes).to(dtype)


class BoxHead(RetinaNetHead):
    """RetinaNet's; answers in float32."""

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        """Levels to answers."""
        return {name: answer.float() for name, answer in super().forward(x).items()}


class GroupNorm(nn.GroupNorm):
    """Also of groups of one value; by its name it is counted as what it is."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Without torch's refusal of groups of one value, which a small image's coarsest level may have."""
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class CentreHead(FCOSHead):
    """That of FCOS; answers in float32."""

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        """Levels to answers."""
        return {name: answer.float() for name, answer in super().forward(x).items()}

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """Means over images."""
        # torchvision's divides by the objects of all images.
        losses = []
        for at, target in enumerate(targets):
            own = {name: answer[at : at + 1] for name, answer in head_outputs.items()}
            losses.append(super().compute_loss([target], own, anchors[at : at + 1], matched_idxs[at : at + 1]))
        return _mean(losses)


class ProposalHead(RPNHead):
    """What proposals are made of; answers in float32."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Levels to logits and boxes."""
        logits, boxes = super().forward(x)
        return [each.float() for each in logits], [each.float() for each in boxes]


class BoxPredictor(FastRCNNPredictor):
    """The class and box of a proposal; answers in float32."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features to logits and boxes."""
        logits, boxes = super().forward(x)
        return logits.float(), boxes.float()


class MaskPredictor(MaskRCNNPredictor):
    """The mask of a proposal; answers in float32."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  Sequential's name
        """Features to logits."""
        return super().forward(input).float()


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's."""

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Means over images."""
        # torchvision's divides by the anchors drawn of all images.
        counts = [len(each) for each in labels]
        parts = zip(objectness.split(counts), pred_bbox_deltas.split(counts), labels, regression_targets, strict=True)
        losses = [super(ProposalNetwork, self).compute_loss(o, b, [own], [boxes]) for o, b, own, boxes in parts]
        objects, boxes = zip(*losses, strict=True)
        return torch.stack(objects).mean(), torch.stack(boxes).mean()


class RegionHeads(RoIHeads):
    """torchvision's."""

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections, or losses, which are means over images."""
        if not self.training or targets is None:
            return super().forward(features, proposals, image_shapes, targets)
        # torchvision's divides by the proposals drawn of all images.
        losses = []
        for at, target in enumerate(targets):
            own = {name: level[at : at + 1] for name, level in features.items()}
            losses.append(super().forward(own, proposals[at : at + 1], image_shapes[at : at + 1], [target])[1])
        return [], _mean(losses)
