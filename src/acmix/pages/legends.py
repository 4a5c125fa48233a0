"""Classes named below a picture, each in its colour."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from acmix.pages.lettering import Font, fitting, lettered

# Bright lines between dark ones are seen on pictures of any colour, and so are bright words on dark.
DARK, INK = "#111827", "#ffffff"
_NARROWEST = 160  # of the words below the picture, in pixels
_LINES = 4


@dataclass(frozen=True)
class Entry:
    """A class below a picture.

    Attributes:
        colour: Of the class, bright.
        words: Before its name, in its colour: how many there are.
        name: Any text.
        instead: To write where no font has the name's letters; ASCII.
    """

    colour: str
    words: str
    name: str
    instead: str


def with_legend(picture: Image.Image, entries: Sequence[Entry], size: int) -> Image.Image:
    """A picture with the classes in it below.

    Args:
        picture: In RGB.
        entries: The most important first: four lines are written.
        size: Of letters, in pixels.
    """
    width, row = max(picture.width, _NARROWEST), size * 8 // 5
    lines = _lines(ImageDraw.Draw(picture), entries, width, size)
    whole = Image.new("RGB", (width, picture.height + row * len(lines)), DARK)
    whole.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(whole)
    for number, line in enumerate(lines):
        middle = picture.height + row * number + row / 2
        for x, text, font, colour in line:
            draw.text((x, middle), text, fill=colour, font=font, anchor="lm")
    return whole


# Where words begin, they themselves, their font and their colour.
_Words = tuple[float, str, Font, str]


def _lines(draw: ImageDraw.ImageDraw, entries: Sequence[Entry], width: int, size: int) -> list[list[_Words]]:
    """Lines of entries: the words in the colour of the class, and its name; the last says how many have no room."""
    gap, (none, plain) = size / 2, lettered("nothing found", "", size)
    if not entries:
        return [[(gap, none, plain, INK)]]
    lines: list[list[_Words]] = [[]]
    x, shown = gap, [0]
    for entry in entries:
        text, font = lettered(entry.name, entry.instead, size)
        before = draw.textlength(f"{entry.words} ", font=plain)
        text = fitting(draw, font, text, width - 2 * gap - before)
        end = x + before + draw.textlength(text, font=font) + gap
        if end > width and lines[-1]:
            if len(lines) == _LINES:
                more = len(entries) - sum(shown[:-1])
                lines[-1] = [(gap, f"and {more} more classes", plain, INK)]
                break
            lines.append([])
            shown.append(0)
            x, end = gap, end - x + gap
        lines[-1] += [(x, entry.words, plain, entry.colour), (x + before, text, font, INK)]
        shown[-1] += 1
        x = end + gap
    return lines
