"""Preprocessing as timm describes it: one dictionary that a checkpoint can carry, and the transforms made from it."""

from typing import Any

from timm.data import create_transform, resolve_data_config
from torch import nn

from acmix.errors import InputError

# 8x8 digits fill their image and have a handedness: no flip, no colour, small shifts and stretches.
_DIGITS_AUGMENTATION: dict[str, Any] = {"scale": (0.7, 1.0), "ratio": (0.85, 1.18), "hflip": 0.0, "color_jitter": None}


def preprocessing_for(
    model: nn.Module, *, image_size: int | None = None, crop_share: float | None = None, digits: bool = False
) -> dict[str, Any]:
    """What a network expects of its images: timm's data configuration.

    Args:
        model: A timm model; its `pretrained_cfg` gives size, mean, std, interpolation and crop.
        image_size: Side of the square input in pixels, in place of the model's own.
        crop_share: Side of the centre crop that is evaluated, a share of the image's, in place of the model's own.
        digits: Show the whole image (digits fill theirs) instead of timm's centre crop.

    Returns:
        input_size `(C, H, W)`, interpolation, mean, std, crop_pct and crop_mode.

    Raises:
        InputError: If image_size is not positive.
    """
    arguments: dict[str, Any] = {"crop_pct": 1.0} if digits else {}
    if crop_share is not None:
        arguments["crop_pct"] = crop_share
    if image_size is not None:
        if image_size < 1:
            raise InputError(f"image_size must be at least 1 pixel, got {image_size}")
        arguments["img_size"] = image_size
    return resolve_data_config(arguments, model=model)


def training_transform(
    preprocessing: dict[str, Any],
    *,
    digits: bool = False,
    random_augment: str | None = None,
    random_erase: float = 0.0,
    smallest_crop: float | None = None,
    flip: float | None = None,
    color_jitter: float | None = None,
) -> Any:
    """timm's training transform: random crops, flips and colours, or gentle crops alone for digits.

    Args:
        preprocessing: Of `preprocessing_for`.
        digits: Keep the handedness of digits.
        random_augment: timm's policy in place of random colours, "rand-m7-mstd0.5-inc1" for instance.
        random_erase: Probability that a rectangle is erased.
        smallest_crop: Least share of an image's area that a crop shows; None is 0.08, of digits 0.7.
        flip: Probability that an image is mirrored; None is 0.5, of digits 0.
        color_jitter: Strength of random brightness, contrast and saturation; None is 0.4, of digits 0.

    Raises:
        InputError: If timm does not know the policy.
    """
    augmentation: dict[str, Any] = dict(_DIGITS_AUGMENTATION) if digits else {}
    if smallest_crop is not None:
        augmentation["scale"] = (smallest_crop, 1.0)
    if flip is not None:
        augmentation["hflip"] = flip
    if color_jitter is not None:
        # timm wants nothing where there is nothing to do.
        augmentation["color_jitter"] = color_jitter or None
    try:
        return create_transform(
            **preprocessing,
            is_training=True,
            auto_augment=random_augment,
            re_prob=random_erase,
            re_mode="pixel",
            **augmentation,
        )
    except (AssertionError, ValueError) as error:
        raise InputError(
            f"timm does not know the policy random_augment {random_augment!r}; rand-m7-mstd0.5-inc1 is one"
        ) from error
