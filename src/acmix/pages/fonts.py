"""Fonts that are installed here, and which of them has a letter."""

import importlib.util
from collections.abc import Iterator
from functools import cache
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Fonts of many letters by the names of their files, as systems have them; Pillow knows where to look.
_FILES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "SourceHanSans-Regular.ttc",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallback.ttf",
    "DroidSansFallbackFull.ttf",
    "NotoSansArabic-Regular.ttf",
    "NotoSansHebrew-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "malgun.ttf",
    "meiryo.ttc",
    "segoeui.ttf",
    "NotoColorEmoji.ttf",
    "NotoEmoji-Regular.ttf",
    "Apple Color Emoji.ttc",
    "seguiemj.ttf",
    "Symbola_hint.ttf",
    "unifont.otf",
)
# Faces of these collections are Japanese, Korean, Chinese; signs that the three share have the look of the third.
_FACES = {"NotoSansCJK-Regular.ttc": 2, "SourceHanSans-Regular.ttc": 2}
# Fonts of pictures, of one size in pixels.
_PICTURES = {"NotoColorEmoji.ttf": 109, "Apple Color Emoji.ttc": 160}
# No font has a letter for it, so that what is drawn is what a font draws in place of letters that it has not.
_MISSING = "\U0010fffe"
_BELOW = 0.36  # of the letters' size: from the middle of a line down to where they stand


class Font:
    """A font at a size in pixels.

    Args:
        file: Its name; the one that Pillow brings, without letters beyond Latin, if empty.
        size: Of its letters, in pixels.

    Raises:
        OSError: If there is none of this name.
    """

    def __init__(self, file: str, size: int) -> None:
        drawn = _PICTURES.get(file, size)
        self._size, self._scale = size, size / drawn
        self._font = (
            ImageFont.truetype(file, drawn, index=_FACES.get(file, 0)) if file else ImageFont.load_default(drawn)
        )
        self._missing = self._look(_MISSING)
        self._known: dict[str, bool] = {}

    def has(self, sign: str) -> bool:
        """Whether it has a letter of its own for a sign."""
        if sign not in self._known:
            self._known[sign] = sign.isspace() or not np.array_equal(self._look(sign), self._missing)
        return self._known[sign]

    def length(self, text: str) -> float:
        """Of a text, in pixels."""
        return self._scale * self._font.getlength(text)

    def draw(self, picture: Image.Image, at: tuple[float, float], text: str, colour: str) -> None:
        """Write a text into a picture in RGB; at is the left end of the line's middle."""
        # All fonts stand on one line, wherever the middle of their letters is.
        x, y = at[0], at[1] + _BELOW * self._size
        if self._scale == 1:
            ImageDraw.Draw(picture).text((x, y), text, fill=colour, font=self._font, anchor="ls")
            return
        _, top, right, bottom = self._font.getbbox(text, anchor="ls")
        sheet = Image.new("RGBA", (max(1, ceil(right)), max(1, ceil(bottom - top))))
        ImageDraw.Draw(sheet).text((0, -top), text, fill=colour, font=self._font, anchor="ls", embedded_color=True)
        small = sheet.resize([max(1, round(self._scale * side)) for side in sheet.size], Image.Resampling.LANCZOS)
        picture.paste(small, (round(x), round(y + self._scale * top)), small)

    def _look(self, sign: str) -> NDArray[np.uint8]:
        return np.asarray(self._font.getmask(sign))


def fonts(size: int) -> Iterator[Font]:
    """What is here, from the most usual on; never none."""
    for file in ("", *files()):
        yield _opened(file, size)


@cache
def files() -> tuple[str, ...]:
    """Names of fonts that are here; matplotlib brings one."""
    found = importlib.util.find_spec("matplotlib")
    bundled = [Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"] if found and found.origin else []
    return tuple(file for file in map(str, (*bundled, *_FILES)) if _opens(file))


def _opens(file: str) -> bool:
    try:
        _opened(file, 12)
    except OSError:
        return False
    return True


@cache
def _opened(file: str, size: int) -> Font:
    return Font(file, size)
