"""The class of every pixel, drawn over the picture and as a file of numbers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from acmix.data.images import encode_png
from acmix.pages.colours import class_colour
from acmix.pages.legends import DARK, Entry, with_legend
from acmix.pages.lettering import sized

_VEIL = 0.55  # of a class's colour over the picture
_MOST_VALUES = 256


def overlaid(image: Image.Image, labels: NDArray[np.integer]) -> Image.Image:
    """A picture in grey with every pixel in the colour of its class, and dark lines where classes meet.

    Args:
        image: In RGB; small ones are enlarged and large ones shrunk.
        labels: Indices of classes, `(H, W)` of the image; pixels of negative ones stay as they are.
    """
    scene = sized(image)
    picture = np.asarray(scene, np.float32)
    # A picture's own colours would make a class's colour that of another.
    grey = np.asarray(scene.convert("L"), np.float32)[..., None]
    rows, columns = (np.arange(there) * here // there for there, here in zip(picture.shape, labels.shape, strict=False))
    shown = labels[np.ix_(rows, columns)]
    colours = np.array([_rgb(class_colour(label)) for label in range(int(labels.max(initial=0)) + 1)], np.float32)
    known = (shown >= 0)[..., None]
    mixed = np.where(known, (1 - _VEIL) * grey + _VEIL * colours[shown.clip(min=0)], picture)
    edges = np.zeros(shown.shape, bool)
    edges[:, 1:] |= shown[:, 1:] != shown[:, :-1]
    edges[1:] |= shown[1:] != shown[:-1]
    mixed[edges] = _rgb(DARK)
    return Image.fromarray(mixed.round().astype(np.uint8))


def _rgb(colour: str) -> tuple[int, int, int]:
    number = int(colour[1:], 16)
    return number >> 16, number >> 8 & 255, number & 255


def segmented(image: Image.Image, labels: NDArray[np.integer], classes: Sequence[str]) -> bytes:
    """A PNG of a picture in the colours of its classes, with their names and shares below.

    Args:
        image: In RGB.
        labels: Indices into classes, `(H, W)` of the image.
        classes: Their names.
    """
    picture = overlaid(image, labels)
    counts = np.bincount(labels.ravel(), minlength=len(classes))
    entries = [
        Entry(class_colour(label), f"{counts[label] / counts.sum():.1%}", classes[label], f"class {label}")
        for label in np.argsort(-counts, kind="stable").tolist()
        if counts[label]
    ]
    return encode_png(with_legend(picture, entries, max(12, max(picture.size) // 50)))


def numbers(labels: NDArray[np.integer], values: Sequence[int] | None) -> bytes:
    """A PNG with a number a pixel, which viewers show in the colours of `segmented`.

    Args:
        labels: Indices of classes, `(H, W)`.
        values: The number of each class, 0 to 255; None, and larger ones, are the index itself. More than 256 classes
            are numbers of 16 bits, without colours.
    """
    if values is None or max(values) >= _MOST_VALUES:
        values = range(int(labels.max(initial=0)) + 1)
    found = np.asarray(values)[labels]
    if max(values) >= _MOST_VALUES:
        return encode_png(Image.fromarray(found.astype(np.uint16)))
    picture = Image.fromarray(found.astype(np.uint8)).convert("P")
    palette = np.zeros((_MOST_VALUES, 3), np.uint8)
    for label, value in enumerate(values):
        palette[value] = _rgb(class_colour(label))
    picture.putpalette(palette.tobytes())
    return encode_png(picture)
