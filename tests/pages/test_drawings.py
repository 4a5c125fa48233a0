import io

import pytest
from PIL import Image

from acmix.pages.drawings import drawing

SCORES = [("cat", 0.9), ("dog", 0.1), ("\udce9\n" * 300, 0.0), ("fourth", 0.0)]


def drawn(image, scores=SCORES):
    with Image.open(io.BytesIO(drawing(image, scores))) as found:
        found.load()
        return found


@pytest.mark.parametrize(("size", "shown"), [((8, 8), (224, 224)), ((1, 300), (3, 900)), ((300, 500), (300, 500))])
def test_the_picture_stays_and_words_stand_below(size, shown):
    found = drawn(Image.new("RGB", size, "red"))
    assert found.width == shown[0]
    assert found.height > shown[1]
    assert found.crop((0, 0, *shown)).getcolors() == [(shown[0] * shown[1], (255, 0, 0))]
    below = found.crop((0, shown[1], *found.size))
    assert len(below.getcolors(100_000)) > 2 or shown[0] < 10


def test_large_pictures_are_shrunk():
    assert drawn(Image.new("RGB", (4000, 3000), "red")).width == 1024


def test_a_bar_is_as_long_as_the_probability():
    found = drawn(Image.new("RGB", (400, 400), "red"), [("", 0.5)])
    row = [found.getpixel((x, 401)) for x in (0, 199, 201, 399)]
    assert row[0] == row[1] != row[2] == row[3]
