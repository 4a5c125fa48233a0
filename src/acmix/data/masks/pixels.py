"""Values out of mask files, exactly as they were written, and turned as their images are."""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from acmix.data.images import open_image
from acmix.data.pixels import BITS, PHOTOMETRIC, SAMPLE_FORMAT, SIDEWAYS, orientation, to_rgb, turned
from acmix.errors import InputError

# What keeps every value; of the others some change them (JPEG), and some are scaled when they are read (PGM).
_FORMATS = ("PNG", "BMP", "GIF", "TIFF")
# PNG's greys of so many bits are spread over 0 to 255 by Pillow, with so much between two.
_SPREAD = {2: 85, 4: 17}
_UPRIGHT = 1  # of EXIF


class MaskError(InputError):
    """A mask that cannot be used with its image.

    Args:
        kind: What is wrong with it, as one of several.
        reason: What is wrong with this one.
        image: What to call its image.
    """

    def __init__(self, kind: str, reason: str, image: str) -> None:
        super().__init__(f"{image}: {reason}")
        self.kind, self.reason = kind, reason

    def __reduce__(self) -> tuple[type["MaskError"], tuple[str, str, str]]:
        """Come whole from a process that reads images."""
        return type(self), (self.kind, self.reason, str(self).removesuffix(f": {self.reason}"))


def mask_values(content: bytes, name: str, *, colours: bool) -> tuple[NDArray[np.int32], int]:
    """The values of a mask as its file has them, and the orientation of EXIF that it has.

    Args:
        content: The bytes of the file.
        name: What to call it in an error.
        colours: Whether colours are wanted, as 0xRRGGBB; else palettes give their indices.

    Returns:
        `(H, W)`, not turned; 1 is upright.

    Raises:
        InputError: If it cannot be read, is of a format that does not keep values, or has colours where numbers are
            wanted or the other way round.
    """
    with open_image(content, name) as image:
        if image.format not in _FORMATS:
            raise InputError(f"{name}: masks must be {', '.join(_FORMATS)}, which keep values, got {image.format}")
        image.load()
        turn = orientation(image)
        fault = _fault(image, colours)
        values = np.zeros(0) if fault else _colours(image) if colours else _numbers(image, content)
    if fault:
        raise InputError(f"{name}: {fault}")
    return values.astype(np.int32), turn


def _fault(image: Image.Image, colours: bool) -> str | None:
    """Why the values of a mask are not known."""
    if image.format == "TIFF":
        tags: Any = cast("Any", image).tag_v2
        if {*tags.get(BITS, (1,))} - {8, 16} or tags.get(PHOTOMETRIC) == 0 or {*tags.get(SAMPLE_FORMAT, (1,))} != {1}:
            return "masks in TIFF must be plain numbers of 8 or 16 bits, 0 for black; save it as PNG"
    if colours:
        if image.mode not in ("RGB", "RGBA", "P"):
            return f"the file of classes gives colours, this mask has none (mode {image.mode})"
        if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
            return "the mask is transparent in places, whose class is not known"
        return None
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        return (
            f"its mask is a picture in colours or with transparency (mode {image.mode}), whose classes are not known; "
            "save one number a pixel, or add class_dict.csv with the columns name, r, g, b"
        )
    return None


def _colours(image: Image.Image) -> NDArray[np.int32]:
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), np.int32), 2, 0)
    return red << 16 | green << 8 | blue


def _numbers(image: Image.Image, content: bytes) -> NDArray[np.generic]:
    values = np.asarray(image)
    if image.format == "PNG" and image.mode == "L":
        # The header comes first; the depth is its 9th byte.
        return values // _SPREAD.get(content[24], 1)
    return values


def picture_and_values(
    image: bytes, mask: bytes, names: tuple[str, str], *, colours: bool
) -> tuple[Image.Image, NDArray[np.int32]]:
    """An image in 8-bit RGB, upright, and the values of its mask, pixel by pixel.

    The orientation of EXIF turns both: a mask that has none of its own was drawn on the image as it is shown or as it
    is stored, whichever its size says.

    Args:
        image: The bytes of the image.
        mask: The bytes of its mask.
        names: What to call each in an error.
        colours: As in `mask_values`.

    Raises:
        InputError: If the image cannot be read.
        MaskError: If the mask cannot be read, they differ in size, or it is not known how the mask lies on the image.
    """
    with open_image(image, names[0]) as opened:
        opened.load()
        turn, stored, picture = orientation(opened), opened.size, to_rgb(opened)
    try:
        values, own = mask_values(mask, names[1], colours=colours)
    except InputError as fault:
        raise MaskError("mask that cannot be read", str(fault), names[0]) from fault
    shown = stored[::-1] if turn in SIDEWAYS else stored
    if own != turn and (own != _UPRIGHT or shown == stored):
        raise MaskError(
            "mask that EXIF turns otherwise",
            f"EXIF turns the image (orientation {turn}), and whether its mask (orientation {own}) is turned is not "
            "known; save both upright",
            names[0],
        )
    size = (values.shape[1], values.shape[0])
    if own == turn or size != shown:
        expected, lies = stored, turn
    else:
        expected, lies = shown, _UPRIGHT
    if size != expected:
        raise MaskError(
            "mask of another size",
            f"has {stored[0]} x {stored[1]} pixels, its mask {size[0]} x {size[1]}; they must be equal ({names[1]})",
            names[0],
        )
    return turned(picture, turn), np.asarray(turned(Image.fromarray(values), lies))
