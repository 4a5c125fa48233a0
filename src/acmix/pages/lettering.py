"""Words on pictures of any size, in fonts that have their letters."""

import itertools
import math
import re
import unicodedata
from collections.abc import Sequence
from functools import cache

from PIL import Image, features

from acmix.errors import counted, printable
from acmix.pages.fonts import Font, fonts

# Sides in pixels: small pictures are enlarged, pixel by pixel, so that words have room; large ones are shrunk.
_SMALLEST, LONGEST = 224, 1024
_MOST = 200  # signs of a name that are looked at
# Signs that choose between two looks of the sign before them.
_CHOICES = re.compile("[\ufe00-\ufe0f]")
_JOINER, _CHANGING = "\u200d", ("Mn", "Mc", "Me", "Sk")
# Letters from right to left, and signs on others: without a library of shapes they stand apart, in wrong order.
_RIGHT, _SHAPED = ("R", "AL"), ("R", "AL", "NSM")


def sized(image: Image.Image, longest: int = LONGEST) -> Image.Image:
    """A picture of a size that people look at.

    Args:
        image: Of any size.
        longest: Pixels of the longer side to which it is shrunk, or enlarged at most.
    """
    width, height = image.size
    if max(width, height) > longest:
        image = image.copy()
        image.thumbnail((longest, longest))
        return image
    factor = min(-(-_SMALLEST // min(width, height)), longest // max(width, height))
    return image.resize((factor * width, factor * height), Image.Resampling.NEAREST) if factor > 1 else image


class Words:
    """A line of text in the fonts that have its letters.

    Args:
        parts: Pieces of text with the font of each, from left to right.
    """

    def __init__(self, parts: Sequence[tuple[str, Font]]) -> None:
        self.parts = parts

    @property
    def text(self) -> str:
        """What is written, from left to right."""
        return "".join(text for text, _ in self.parts)

    @property
    def length(self) -> float:
        """In pixels."""
        return sum(font.length(text) for text, font in self.parts)

    def draw(self, picture: Image.Image, at: tuple[float, float], colour: str) -> None:
        """Write them into a picture in RGB; at is the left end of the line's middle."""
        x, middle = at
        for text, font in self.parts:
            font.draw(picture, (x, middle), text, colour)
            x += font.length(text)


def plain(text: str, size: int) -> Words:
    """Words of ASCII; size is of the letters, in pixels."""
    return Words([(text, next(fonts(size)))])


def lettered(name: str, instead: str, size: int, room: float = math.inf) -> Words:
    """A name as it can be drawn.

    Signs that no installed font has are left out; if letters or digits are among them, the name is replaced.

    Args:
        name: Any text.
        instead: To draw where no font has its letters; ASCII.
        size: Of the letters, in pixels.
        room: In pixels; what has no room becomes an ellipsis.
    """
    text = _written(name)
    if not (found := _words(text, size)):
        text, found = instead, plain(instead, size)
    while len(text) > 1 and found.length > room:
        text = text.removesuffix("…")[:-1] + "…"
        found = _words(text, size) or plain(text, size)
    return found


def unwritable(names: Sequence[str]) -> str:
    """What to say of names that pictures cannot have as they are; nothing if there are none."""
    lost = [name for name in names if name.strip() and not _words(_written(name), 12)]
    if not lost:
        return ""
    more = f" and {counted(len(lost) - 1, 'more name')}" if len(lost) > 1 else ""
    which = f"no font that is installed has the letters of {printable(lost[0])}{more}"
    return f"{which}: pictures have their numbers instead; install one that has, such as Noto Sans or Noto Sans CJK"


def _written(name: str) -> str:
    text = unicodedata.normalize("NFC", _CHOICES.sub("", printable(name)))
    return text if len(text) <= _MOST else text[:_MOST] + "…"


def _words(text: str, size: int) -> Words | None:
    """Nothing if no font has the letters, or nothing would be left to see."""
    if not _shapes() and any(unicodedata.bidirectional(sign) in _SHAPED for sign in text):
        return None
    gone = {sign for sign in set(text) - {_JOINER} if not any(font.has(sign) for font in fonts(size))}
    text = "".join(sign for sign in text if sign not in gone).strip()
    if not text or any(unicodedata.category(sign)[0] in "LMN" for sign in gone):
        return None
    for font in fonts(size):
        if all(map(font.has, text)):
            return Words([(text, font)])
    parts: list[tuple[str, Font]] = []
    for sign in text:
        # What changes the sign before it is of its font.
        if parts and (sign == _JOINER or (unicodedata.category(sign) in _CHANGING and parts[-1][1].has(sign))):
            font = parts[-1][1]
        else:
            font = next((font for font in fonts(size) if font.has(sign)), next(fonts(size)))
        if parts and parts[-1][1] is font:
            parts[-1] = parts[-1][0] + sign, font
        else:
            parts.append((sign, font))
    return Words(_ordered(parts))


def _ordered(parts: Sequence[tuple[str, Font]]) -> list[tuple[str, Font]]:
    """Pieces in the order of reading from left to right, where some of them are read from right to left."""
    strong = [_direction(text) for text, _ in parts]
    first = next(filter(None, strong), "left")
    pieces = zip((direction or first for direction in strong), parts, strict=True)
    runs = [
        [part for _, part in run][:: -1 if direction == "right" else 1]
        for direction, run in itertools.groupby(pieces, key=lambda piece: piece[0])
    ]
    return list(itertools.chain.from_iterable(runs[:: -1 if first == "right" else 1]))


def _direction(text: str) -> str:
    """Of the first letter that has one."""
    kinds = map(unicodedata.bidirectional, text)
    kind = next((kind for kind in kinds if kind in ("L", *_RIGHT)), "")
    return "right" if kind in _RIGHT else "left" if kind else ""


@cache
def _shapes() -> bool:
    return bool(features.check_feature("raqm") and features.check_feature("fribidi"))
