"""Images as Python programs have them: files, pictures of Pillow, arrays, tensors."""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from acmix.data.images import check_sides, read_image
from acmix.data.pixels import to_rgb, upright
from acmix.errors import InputError

# One image.
Given: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[np.uint8] | Tensor
_KINDS = "a path, a picture of Pillow, a uint8 array (H, W, 3), or a preprocessed tensor (C, H, W)"


def one_by_one(images: Given | Iterable[Given]) -> Iterator[tuple[str, Given]]:
    """One image, or many, each with what to call it in an error.

    Args:
        images: An image, or several: an iterable of them, an array `(N, H, W, 3)`, a tensor `(N, C, H, W)`.

    Raises:
        InputError: If it is neither.
    """
    found: Any = images
    alone = isinstance(found, (str, os.PathLike, Image.Image))
    if alone or (isinstance(found, (np.ndarray, Tensor)) and found.ndim < 4):
        yield "images", found
        return
    # A dictionary would give its keys, bytes their numbers.
    if not isinstance(found, Iterable) or isinstance(found, (Mapping, bytes, bytearray)):
        raise InputError(f"images must be {_KINDS}; or several of them, got {type(found).__name__}")
    for index, image in enumerate(found):
        yield f"images[{index}]", image


def as_picture(image: Given, name: str) -> Image.Image | Tensor:
    """An image in 8-bit RGB, as a viewer shows it; a tensor, which is preprocessed, as it is.

    Args:
        image: One image.
        name: What to call it in an error.

    Raises:
        InputError: If it cannot be read, or is none of what an image may be.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(os.fsdecode(image))
    if isinstance(image, Image.Image):
        check_sides(image.size, name)
        return _converted(image, name)
    if isinstance(image, Tensor):
        if image.ndim != 3 or not image.is_floating_point():
            kind = f"{image.dtype} of shape {tuple(image.shape)}"
            raise InputError(
                f"{name}: a tensor must be preprocessed, (C, H, W) in floating point, got {kind}; pixels of 0 to 255 "
                "are taken as a uint8 array (H, W, 3)"
            )
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            kind = f"{image.dtype} of shape {image.shape}"
            raise InputError(f"{name}: an array must be uint8 of shape (H, W, 3), RGB, got {kind}")
        check_sides((image.shape[1], image.shape[0]), name)
        return Image.fromarray(np.ascontiguousarray(image))
    raise InputError(f"{name}: must be {_KINDS}, got {type(image).__name__}")


def _converted(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
        return upright(to_rgb(image), image)
    except Exception as error:  # decoders of 40 formats raise whatever they meet in damaged bytes
        raise InputError(f"{name}: the picture cannot be read: {error}") from error


def stacked(images: list[tuple[str, Tensor]]) -> Tensor:
    """Preprocessed images `(C, H, W)` as one batch `(B, C, H, W)`.

    Args:
        images: Each with what to call it in an error.

    Raises:
        InputError: If they are of several shapes.
    """
    first, expected = images[0]
    for name, image in images:
        if image.shape != expected.shape:
            raise InputError(
                f"{name}: must be of the shape of {first}, {tuple(expected.shape)}, got {tuple(image.shape)}; predict "
                "them one by one"
            )
    return torch.stack([image for _, image in images])
