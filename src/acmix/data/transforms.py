"""Preprocessing as timm describes it: one dictionary that a checkpoint can carry, and the transforms made from it."""

from typing import Any

from timm.data import create_transform, resolve_data_config
from torch import nn

from acmix.errors import InputError

# 8x8 digits fill their image and have a handedness: no flip, no colour, small shifts and stretches.
_DIGITS_AUGMENTATION: dict[str, Any] = {"scale": (0.7, 1.0), "ratio": (0.85, 1.18), "hflip": 0.0, "color_jitter": None}


def preprocessing_for(model: nn.Module, *, image_size: int | None = None, digits: bool = False) -> dict[str, Any]:
    """What a network expects of its images: timm's data configuration.

    Args:
        model: A timm model; its `pretrained_cfg` gives size, mean, std, interpolation and crop.
        image_size: Side of the square input in pixels, in place of the model's own.
        digits: Show the whole image (digits fill theirs) instead of timm's centre crop.

    Returns:
        input_size `(C, H, W)`, interpolation, mean, std, crop_pct and crop_mode.

    Raises:
        InputError: If image_size is not positive.
    """
    arguments: dict[str, Any] = {"crop_pct": 1.0} if digits else {}
    if image_size is not None:
        if image_size < 1:
            raise InputError(f"image_size must be at least 1 pixel, got {image_size}")
        arguments["img_size"] = image_size
    return resolve_data_config(arguments, model=model)


def training_transform(preprocessing: dict[str, Any], *, digits: bool = False) -> Any:
    """timm's training transform: random crops, flips and colours, or gentle crops alone for digits."""
    augmentation: dict[str, Any] = _DIGITS_AUGMENTATION if digits else {}
    return create_transform(**preprocessing, is_training=True, **augmentation)
