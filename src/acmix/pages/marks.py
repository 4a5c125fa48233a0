"""Objects drawn on the picture that they are in: boxes, masks, names."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from acmix.data.images import encode_png
from acmix.pages.colours import class_colour
from acmix.pages.legends import DARK, INK, Entry, with_legend
from acmix.pages.lettering import LONGEST, lettered, plain, sized

_VEIL = 0.4  # of a mask's colour over the picture
_WIDEST = 0.6  # of a name, of the picture's width
_Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Mark:
    """An object to draw.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the picture; it may reach beyond it.
        label: Index of the class, which has a colour.
        name: Of the class.
        score: Of a prediction, 0 to 1.
        mask: Its pixels, `(height, width)` of the picture.
        note: What else to say of it, in a word.
    """

    box: _Box
    label: int
    name: str
    score: float | None = None
    mask: NDArray[np.bool_] | None = None
    note: str = ""


def marked(image: Image.Image, marks: Sequence[Mark], longest: int = LONGEST) -> bytes:
    """A PNG of a picture with objects drawn on it, and below it what there is of each class.

    Small pictures are enlarged and large ones shrunk. A name stands at its box where there is room that no other name
    has taken; names of the surest objects come first.

    Args:
        image: In RGB.
        marks: The objects.
        longest: Pixels of the longer side to which larger pictures are shrunk.
    """
    # The surest are drawn last, on top.
    marks = sorted(marks, key=lambda mark: 1 if mark.score is None else mark.score)
    picture = sized(image, longest).copy()
    shares = picture.width / image.width, picture.height / image.height
    for mark in marks:
        if mark.mask is not None:
            _draw_mask(picture, mark.mask, _colour(mark))
    size = max(12, max(picture.size) // 50)
    draw = ImageDraw.Draw(picture)
    boxes = [_scaled(mark.box, shares, picture.size) for mark in marks]
    for mark, box in zip(marks, boxes, strict=True):
        _draw_box(draw, box, _colour(mark), max(2, size // 7))
    taken: list[_Box] = []
    for mark, box in zip(reversed(marks), reversed(boxes), strict=True):
        _draw_tag(picture, mark, box, size, taken)
    counts = Counter((mark.label, mark.name) for mark in marks)
    entries = [
        Entry(class_colour(label), f"{count}", name, f"class {label}") for (label, name), count in counts.most_common()
    ]
    return encode_png(with_legend(picture, entries, size))


def _colour(mark: Mark) -> str:
    return class_colour(mark.label)


def _scaled(box: _Box, shares: tuple[float, float], size: tuple[int, int]) -> _Box:
    """A box within a picture that was enlarged or shrunk; at least a pixel of it."""
    left, top, right, bottom = (min(max(value * shares[at % 2], 0), size[at % 2] - 1) for at, value in enumerate(box))
    return left, top, max(left, right), max(top, bottom)


def _draw_mask(picture: Image.Image, mask: NDArray[np.bool_], colour: str) -> None:
    """Lay a colour over the pixels of a mask, and a line along its edge."""
    rows, columns = (
        ((np.arange(drawn) + 0.5) * side / drawn).astype(np.int64)
        for drawn, side in zip(picture.size[::-1], mask.shape, strict=True)
    )
    pixels = mask[np.ix_(rows, columns)]
    inner = np.pad(pixels, 1, mode="edge")
    inside = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    strength = np.where(pixels & ~inside, 255, np.where(pixels, round(255 * _VEIL), 0))
    picture.paste(colour, mask=Image.fromarray(strength.astype(np.uint8)))


def _draw_box(draw: ImageDraw.ImageDraw, box: _Box, colour: str, width: int) -> None:
    left, top, right, bottom = box
    for grown, line, drawn in ((1, DARK, width + 2), (0, colour, width)):
        draw.rectangle((left - grown, top - grown, right + grown, bottom + grown), outline=line, width=drawn)


def _draw_tag(picture: Image.Image, mark: Mark, box: _Box, letters: int, taken: list[_Box]) -> None:
    """Write what a mark is beside or in its box, where there is room."""
    size, edge = picture.size, letters // 3
    score = "" if mark.score is None else f"{mark.score:.0%}"
    rest = plain("".join(f" {part}" for part in (mark.note, score) if part), letters)
    name = lettered(mark.name, f"class {mark.label}", letters, _WIDEST * size[0] - 3 * edge - rest.length)
    width, height = name.length + rest.length + 3 * edge, letters * 1.4
    if width > size[0] or height > size[1]:
        return
    place = _free(box, (width, height), size, taken)
    if place is None:
        return
    taken.append(place)
    left, top, _, bottom = place
    draw = ImageDraw.Draw(picture)
    draw.rectangle(place, fill=DARK)
    draw.rectangle((left, top, left + edge, bottom), fill=_colour(mark))
    # Apart, since words that are written from right to left would take numbers along.
    for x, words in ((0, name), (name.length, rest)):
        words.draw(picture, (left + 2 * edge + x, (top + bottom) / 2), INK)


def _free(box: _Box, size: tuple[float, float], within: tuple[int, int], taken: Sequence[_Box]) -> _Box | None:
    """Where a tag hides no other tag: above its box, below it, at its top or its bottom."""
    left = max(0.0, min(box[0], within[0] - size[0]))
    for top in (box[1] - size[1], box[3], box[1], box[3] - size[1]):
        place = (left, top, left + size[0], top + size[1])
        inside = top >= 0 and place[3] <= within[1]
        if inside and not any(_meet(place, other) for other in taken):
            return place
    return None


def _meet(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
