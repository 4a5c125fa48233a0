"""Classes named below a picture, each in its colour."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from acmix.pages.lettering import Words, lettered, plain

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
    lines = _lines(entries, width, size)
    whole = Image.new("RGB", (width, picture.height + row * len(lines)), DARK)
    whole.paste(picture, ((width - picture.width) // 2, 0))
    for number, line in enumerate(lines):
        middle = picture.height + row * number + row / 2
        for x, words, colour in line:
            words.draw(whole, (x, middle), colour)
    return whole


# Where words begin, they themselves and their colour.
_Placed = tuple[float, Words, str]


def _lines(entries: Sequence[Entry], width: int, size: int) -> list[list[_Placed]]:
    """Lines of entries: the words in the colour of the class, and its name; the last says how many have no room."""
    gap = size / 2
    if not entries:
        return [[(gap, plain("nothing found", size), INK)]]
    lines: list[list[_Placed]] = [[]]
    x, shown = gap, [0]
    for entry in entries:
        words = plain(f"{entry.words} ", size)
        name = lettered(entry.name, entry.instead, size, width - 2 * gap - words.length)
        end = x + words.length + name.length + gap
        if end > width and lines[-1]:
            if len(lines) == _LINES:
                more = len(entries) - sum(shown[:-1])
                lines[-1] = [(gap, plain(f"and {more} more classes", size), INK)]
                break
            lines.append([])
            shown.append(0)
            x, end = gap, end - x + gap
        lines[-1] += [(x, words, entry.colour), (x + words.length, name, INK)]
        shown[-1] += 1
        x = end + gap
    return lines
