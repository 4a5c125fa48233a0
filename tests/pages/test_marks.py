import io

import numpy as np
import pytest
from PIL import Image

from acmix.pages.marks import Mark, marked

NAMES = ["circle", "三角形", "عربي", "😀", "\udce9\n", "long " * 40, ""]


def drawn(image, marks):
    with Image.open(io.BytesIO(marked(image, marks))) as found:
        found.load()
        return found


def mark(box, label=0, **changes):
    return Mark(box=box, label=label, name=NAMES[label % len(NAMES)], **changes)


@pytest.mark.parametrize("colour", ["white", "black", "grey", "#f87171"])
def test_boxes_are_seen_on_every_colour(colour):
    image = Image.new("RGB", (400, 300), colour)
    found = np.asarray(drawn(image, [mark((50, 60, 350, 250), score=0.5)]).convert("L"), np.int32)
    # Lines across the middle of the left edge: some differ much from the picture.
    edge = found[150, 45:60]
    assert np.abs(edge - np.asarray(image.convert("L"), np.int32)[0, 0]).max() > 90


@pytest.mark.parametrize("size", [(16, 16), (300, 200), (4000, 3000), (16, 1600), (1600, 16), (1, 1)])
def test_pictures_of_any_size_are_drawn(size):
    marks = [mark((0, 0, size[0], size[1]), 1), mark((-50, -50, 2 * size[0], 0.4)), mark((0.2, 0.2, 0.3, 0.3), 2)]
    mask = np.ones(size[::-1], bool)
    found = drawn(Image.new("RGB", size, "red"), [*marks, mark((0, 0, 1, 1), mask=mask)])
    assert max(found.size) <= 1200
    assert found.width >= 160


def test_names_in_any_letters_are_drawn():
    found = drawn(
        Image.new("RGB", (500, 400), "white"), [mark((60 * i, 40 * i, 60 * i + 50, 40 * i + 50), i) for i in range(7)]
    )
    assert found.height > 400


def test_a_mask_covers_its_pixels_alone():
    mask = np.zeros((300, 400), bool)
    mask[100:200, 150:250] = True
    plain = drawn(Image.new("RGB", (400, 300), "white"), [mark((0, 0, 400, 300))])
    found = drawn(Image.new("RGB", (400, 300), "white"), [mark((0, 0, 400, 300), mask=mask)])
    changed = (np.asarray(plain) != np.asarray(found)).any(2)[:300]
    assert np.array_equal(changed, mask)


def test_many_objects_keep_their_names_apart():
    generator = np.random.default_rng(0)
    places = generator.uniform(0, 500, (300, 2)).tolist()
    marks = [mark((x, y, x + 40, y + 40), index % 60, score=index / 300) for index, (x, y) in enumerate(places)]
    found = drawn(Image.new("RGB", (540, 540), "white"), marks)
    assert found.width == 540
    assert found.height < 700


def test_nothing_found_is_said():
    empty = drawn(Image.new("RGB", (300, 300), "white"), [])
    assert empty.height > 300
    assert len(empty.crop((0, 300, *empty.size)).getcolors()) > 2
