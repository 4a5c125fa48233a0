"""Words on pictures of any size, in a font that has their letters."""

import importlib.util
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from acmix.errors import printable

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
# Sides in pixels: small pictures are enlarged, pixel by pixel, so that words have room; large ones are shrunk.
_SMALLEST, LONGEST = 224, 1024
# Fonts of many letters by the names of their files, as systems have them; Pillow knows where to look.
_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "SourceHanSans-Regular.ttc",
    "wqy-microhei.ttc",
    "DroidSansFallback.ttf",
    "DroidSansFallbackFull.ttf",
    "NotoSansArabic-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "malgun.ttf",
    "meiryo.ttc",
    "segoeui.ttf",
)
# No font has a letter for it, so that what is drawn is what a font draws in place of letters that it has not.
_MISSING = "\U0010fffe"
# Signs that choose between two looks of the sign before them.
_CHOICES = re.compile("[\ufe00-\ufe0f]")


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


def fitting(draw: ImageDraw.ImageDraw, font: Font, text: str, room: float) -> str:
    """Text that fits into so many pixels."""
    while len(text) > 1 and draw.textlength(text, font=font) > room:
        text = text.removesuffix("…")[:-1] + "…"
    return text


def lettered(name: str, instead: str, size: int) -> tuple[str, Font]:
    """A name as it can be drawn, and a font that has its letters.

    Signs that no installed font has are left out; if letters or digits are among them, the name is replaced.

    Args:
        name: Any text.
        instead: To draw where no font has its letters; ASCII.
        size: Of the letters, in pixels.
    """
    text = _CHOICES.sub("", printable(name))
    found: tuple[str, Font] | None = None
    for font in _fonts(size):
        if not (gone := [sign for sign in text if not _has(font, sign)]):
            return text, font
        if found is None and not any(unicodedata.category(sign)[0] in "LMN" for sign in gone):
            found = "".join(sign for sign in text if sign not in gone).strip() or instead, font
    return found or (instead, next(_fonts(size)))


def _fonts(size: int) -> Iterator[Font]:
    yield _font("", size)
    for name in _files():
        yield _font(name, size)


@cache
def _font(name: str, size: int) -> Font:
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


@cache
def _files() -> tuple[str, ...]:
    """Fonts that are there."""
    found = importlib.util.find_spec("matplotlib")
    bundled = [Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"] if found and found.origin else []
    return tuple(name for name in map(str, (*bundled, *_FONTS)) if _opens(name))


def _opens(name: str) -> bool:
    try:
        ImageFont.truetype(name, 12)
    except OSError:
        return False
    return True


@cache
def _has(font: Font, sign: str) -> bool:
    look, missing = (np.asarray(font.getmask(each)) for each in (sign, _MISSING))
    return sign.isspace() or not np.array_equal(look, missing)
