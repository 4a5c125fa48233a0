"""What training makes of images and masks, and what a network sees of images."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from acmix.data.masks.coding import IGNORED

# Crops that are tried for one of which no class fills too much.
_ATTEMPTS = 10
# A side may be so many times the other before it bounds the scale: 2048 x 512 of ADE20K's protocol.
_LONGEST = 4


def _scaled(size: Sequence[int], factor: float, short_side: int | None) -> list[int]:
    """Height and width times a factor, once the shorter side, or a quarter of the longer one, is as wanted."""
    if short_side is not None:
        factor *= short_side / max(min(size), max(size) / _LONGEST)
    return [max(1, round(cells * factor)) for cells in size]


def resized_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Masks `(..., H, W)` in the pixels of an image that was scaled to a height and width."""
    # torchvision's own nearest pixels lie half a pixel right of and below the image's, in the mean over scales.
    found = v2.functional.resize_image(mask[None], [*size], interpolation=v2.InterpolationMode.NEAREST_EXACT)
    return tv_tensors.Mask(found[0])


class Seen:
    """An image as a network sees it.

    Args:
        preprocessing: mean and std of each channel, and short_side.
    """

    def __init__(self, preprocessing: Mapping[str, Any]) -> None:
        self._short_side = preprocessing["short_side"]
        self._normalise = v2.Compose(
            [v2.ToDtype(torch.float32, scale=True), v2.Normalize(preprocessing["mean"], preprocessing["std"])]
        )

    def __call__(self, picture: Image.Image) -> Tensor:
        """From RGB to `(C, H, W)`."""
        image = v2.functional.pil_to_tensor(picture)
        size = _scaled(image.shape[-2:], 1.0, self._short_side)
        if size != list(image.shape[-2:]):
            image = v2.functional.resize(image, size, antialias=True)
        return self._normalise(image)


class Augmentation:
    """Random scale, turn, crop, mirror and colours of an image and its mask.

    Args:
        preprocessing: As in `Seen`.
        side: Of crops, in pixels.
        scales: Least and greatest factor.
        turn: Greatest angle in degrees, either way; of what comes in from outside, the mask says nothing.
        most_of_a_class: Share of the known pixels of a crop that one class may fill; of ten tries that fail, the
            best one is taken.
        flip: Probability of a mirror image.
        color_jitter: Strength of random brightness, contrast and saturation.
    """

    def __init__(
        self,
        preprocessing: Mapping[str, Any],
        *,
        side: int,
        scales: tuple[float, float],
        turn: float,
        most_of_a_class: float,
        flip: float,
        color_jitter: float,
    ) -> None:
        self._short_side, self._scales, self._most = preprocessing["short_side"], scales, most_of_a_class
        mean, std = preprocessing["mean"], preprocessing["std"]
        fill: Any = {tv_tensors.Image: [round(255 * value) for value in mean], tv_tensors.Mask: IGNORED}
        # No turn draws no angle: an older run goes on as it began.
        turned = [v2.RandomRotation([-turn, turn], v2.InterpolationMode.BILINEAR, fill=fill)] if turn else []
        self._turn = v2.Compose(turned) if turned else v2.Identity()
        self._crop = v2.RandomCrop(side, pad_if_needed=True, fill=fill)
        self._rest = v2.Compose(
            [
                v2.RandomHorizontalFlip(flip),
                v2.ColorJitter(color_jitter, color_jitter, color_jitter),
                v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
                v2.Normalize(mean, std),
            ]
        )

    def __call__(self, example: tuple[Image.Image, NDArray[np.int16]]) -> tuple[Tensor, Tensor]:
        """From an RGB image and its labels to `(C, side, side)` and `(side, side)`, int16."""
        image: Tensor = tv_tensors.Image(v2.functional.pil_to_tensor(example[0]))
        mask: Tensor = tv_tensors.Mask(torch.from_numpy(example[1].copy()))
        low, high = map(math.log, self._scales)
        # As much smaller as larger.
        factor = math.exp(low + (high - low) * torch.rand(()).item())
        size = _scaled(image.shape[-2:], factor, self._short_side)
        image, mask = v2.functional.resize(image, size, antialias=True), resized_mask(mask, size)
        image, mask = self._rest(*self._cropped(*self._turn(image, mask)))
        return image.as_subclass(Tensor), mask.as_subclass(Tensor)

    def _cropped(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The first crop of which no class fills too much, else the best of those tried."""
        found: list[tuple[float, tuple[Tensor, Tensor]]] = []
        for _ in range(_ATTEMPTS):
            crop: tuple[Tensor, Tensor] = self._crop(image, mask)
            found.append((_largest_share(crop[1]), crop))
            if found[-1][0] <= self._most:
                break
        return min(found, key=lambda each: each[0])[1]


def _largest_share(mask: Tensor) -> float:
    """The share of the known pixels that the largest class has; 1 where none is known."""
    known = mask[mask != IGNORED].long()
    return float(known.bincount().max()) / len(known) if len(known) else 1.0
