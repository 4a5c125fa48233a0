"""Augmented examples of detection: torchvision's transforms of images, boxes and masks together."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from acmix.data.annotated import Annotations
from acmix.data.loading import Drawn, gathered
from acmix.data.masks.augmentation import resized_mask
from acmix.tasks.detection.settings import Settings
from acmix.tasks.detection.task import Batch

# Of images that are continued: between black and white.
_GREY = 114
# Pixels a side that an object has at least after cropping.
_LEAST = 2.0


class Augmentation:
    """From an image and its annotations to a tensor and what is to be found in it; draws random numbers.

    Args:
        settings: Of the training.
        masks: Whether the network learns masks.
    """

    def __init__(self, settings: Settings, *, masks: bool) -> None:
        steps: list[Any] = [v2.RandomHorizontalFlip(settings.flip)] if settings.flip else []
        if settings.jitters:
            size = (settings.image_size, settings.image_size)
            steps.append(_Widened(settings.smallest_scale * settings.image_size))
            steps.append(_Scaled(size, (settings.smallest_scale, settings.largest_scale), antialias=True))
            steps.append(v2.RandomCrop(size, pad_if_needed=True, fill={tv_tensors.Image: _GREY, "others": 0}))
        # What reaches beyond the image cannot be found there; nothing is left of some.
        self._transform = v2.Compose(
            [*steps, v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(min_size=_LEAST, labels_getter=_labels)]
        )
        self._masks = masks

    def __call__(self, example: tuple[Image.Image, Annotations]) -> tuple[Tensor, dict[str, Tensor]]:
        """Augment one example.

        Returns:
            The image `(3, H, W)`, uint8, and boxes, labels and maybe masks of its objects, crowds left out.
        """
        picture, annotations = example
        image = tv_tensors.Image(v2.functional.pil_to_tensor(picture))
        kept, boxes = ~annotations.crowd, cast("Any", tv_tensors.BoundingBoxes)
        target: dict[str, Any] = {
            "boxes": boxes(annotations.boxes[kept], format="XYXY", canvas_size=(picture.height, picture.width)),
            "labels": annotations.labels[kept],
        }
        if self._masks:
            masks = annotations.masks(picture.height, picture.width)[kept]
            target["masks"] = tv_tensors.Mask(masks.to(torch.uint8))
        image, target = self._transform(image, target)
        return image.as_subclass(Tensor), {name: each.as_subclass(Tensor) for name, each in target.items()}


class _Scaled(v2.ScaleJitter):
    """Scale jitter that moves no mask on its image."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        masks = isinstance(inpt, tv_tensors.Mask)
        return resized_mask(inpt, params["size"]) if masks else super().transform(inpt, params)


class _Widened(v2.Transform):
    """The image, continued where nothing would be left of its short side at the smallest scale.

    Args:
        longest: Pixels of the long side then.
    """

    def __init__(self, longest: float) -> None:
        super().__init__()
        self._longest = longest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.query_size(flat_inputs)
        least = int(max(height, width) / self._longest) + 1
        return {"padding": [0, 0, max(0, least - width), max(0, least - height)]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        fill = _GREY if isinstance(inpt, tv_tensors.Image) else 0
        return v2.functional.pad(inpt, params["padding"], fill=fill) if any(params["padding"]) else inpt


def _labels(inputs: tuple[Any, dict[str, Any]]) -> Any:
    """What goes with a box, as its mask does."""
    return inputs[1]["labels"]


def collate(drawn: Sequence[Drawn]) -> Batch:
    """A batch of examples of several sizes."""
    return Batch(
        images=[each.example[0] for each in drawn],
        targets=[each.example[1] for each in drawn],
        **gathered(drawn),
    )
