"""Pixels of every mode as 8-bit RGB, upright: scaled as their mode says, never by what one picture holds."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

# What is drawn to each value of EXIF's orientation; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Those that turn an image onto its side.
SIDEWAYS = (5, 6, 7, 8)
# Bytes of EXIF's whole numbers, by their type.
_WIDTHS = {1: 1, 3: 2, 4: 4}
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # of TIFF
_SIGNED, _WHITE_IS_ZERO = 2, 0
_CONVERT = "convert it to 8 or 16 bits a channel"


def upright(pixels: Image.Image, image: Image.Image) -> Image.Image:
    """Turn pixels as the orientation of the image they come from says, if it can be read.

    EXIF is seldom whole: what cannot be read of it, or is no orientation, leaves the picture as it is.

    Args:
        pixels: Of the image, in any mode.
        image: As Pillow opened it, loaded; it may have turned itself, and has no orientation then.
    """
    return turned(pixels, orientation(image))


def turned(pixels: Image.Image, orientation: int) -> Image.Image:
    """Turn pixels of an orientation of EXIF upright; of a number that is none, they stay."""
    turn = _TURNS.get(orientation)
    return pixels if turn is None else pixels.transpose(turn)


def lies(image: Image.Image) -> bool:
    """Whether `upright` turns an image onto its side.

    Args:
        image: As Pillow opened it.
    """
    return orientation(image) in SIDEWAYS


def orientation(image: Image.Image) -> int:
    """The orientation of a loaded image as EXIF counts, 1 where none can be read."""
    if found := _entry(image.info.get("exif") or b"", ExifTags.Base.Orientation):
        return found
    try:
        # Also of TIFF's own tags, of XMP and of the text in which older PNG files keep EXIF.
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow raises whatever it meets in a malformed block
        return 1
    return found if isinstance(found, int) else 1


def _entry(exif: bytes, tag: int) -> int:
    """A whole number in the first directory of an EXIF block, 0 where there is none.

    Pillow reads the directory as a whole and gives up at the first malformed entry.
    """
    block = exif.removeprefix(b"Exif\0\0")
    order: Literal["little", "big"] = "little" if block.startswith(b"II") else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(block[at : at + size], order)

    first = number(4, 4) + 2
    entries = range(first, min(first + 12 * number(first - 2, 2), len(block)), 12)
    at = next((entry for entry in entries if number(entry, 2) == tag), None)
    return 0 if at is None else number(at + 8, _WIDTHS.get(number(at + 2, 2), 0))


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image to 8-bit RGB.

    - 8 bits a channel, palettes and bitmaps: as Pillow converts them; transparency is laid on white.
    - 16 bits and other depths of greys, and of colours that Pillow reads: the 8 highest bits.
    - Floating-point greys: 0 is black and 1 is white.

    Raises:
        ValueError: If the range of the values is not known: greys of 32 bits, signed numbers, floating-point numbers
            outside of 0..1 or not finite; or if Pillow does not convert the mode (LAB).
    """
    if _SIGNED in _tag(image, SAMPLE_FORMAT, ()):
        raise ValueError(f"signed numbers have no known black and white; {_CONVERT}")
    if image.mode == "F" or image.mode.startswith("I"):
        grey = _from_reals(image) if image.mode == "F" else _from_integers(image)
        white_is_zero = _tag(image, PHOTOMETRIC, None) == _WHITE_IS_ZERO
        return Image.fromarray(255 - grey if white_is_zero else grey).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _tag(image: Image.Image, number: int, default: Any) -> Any:
    return image.tag_v2.get(number, default) if isinstance(image, TiffImageFile) else default


def _from_reals(image: Image.Image) -> NDArray[np.uint8]:
    values = np.asarray(image)
    levels = np.rint(values * 255.0)
    # A number that is none lies nowhere.
    if not ((levels >= 0) & (levels <= 255)).all():
        raise ValueError(
            f"floating-point greys must lie within 0 and 1, got {values.min():g} to {values.max():g}; {_CONVERT}"
        )
    return levels.astype(np.uint8)


def _from_integers(image: Image.Image) -> NDArray[np.uint8]:
    # Some versions of Pillow open 16-bit files of these formats as 32-bit integers.
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise ValueError(f"greys of 32 bits have no known white; {_CONVERT}")
    values = np.asarray(image)
    (bits,) = _tag(image, BITS, (16,))
    grey = (values >> (bits - 8)).astype(np.uint8)
    if (transparent := image.info.get("transparency")) is not None:
        grey[values == transparent] = 255
    return grey
