"""What a figure shows: its words where they are drawn, those of ticks that are out of view left out."""

import itertools
import xml.etree.ElementTree as ElementTree
from unittest import mock

from matplotlib.text import Text


def check_texts(figure):
    """No words of a figure lie on others."""
    found, draw = [], Text.draw

    def record(text, renderer):
        draw(text, renderer)
        if text.get_visible() and text.get_text().strip():
            found.append(text)

    with mock.patch.object(Text, "draw", record):
        figure.draw_without_rendering()
    assert found
    boxes = [(text.get_text(), text.get_window_extent()) for text in found]
    for (first, one), (second, other) in itertools.combinations(boxes, 2):
        # A pixel of rounding.
        assert not one.padded(-1).overlaps(other.padded(-1)), f"{first!r} lies on {second!r}"


def words(svg):
    """Every text of a drawing, in its order."""
    return ["".join(text.itertext()).strip() for text in ElementTree.fromstring(svg).findall(".//{*}text")]  # noqa: S314
