"""Classes of pixels on pictures and as numbers."""

import io

import numpy as np
import pytest
from PIL import Image

from acmix.pages.colours import class_colour
from acmix.pages.overlays import numbers, overlaid, segmented

LABELS = np.array([[0, 0, 1], [0, 2, 2]])
NAMES = ("sky", "猫 قطة 🐈", "<b>" * 80)


def opened(content):
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize("size", [(3, 2), (300, 200), (3000, 20)])
@pytest.mark.parametrize("ground", ["black", "white"])
def test_every_size_has_a_picture_with_names_below_it(size, ground):
    labels = np.resize(LABELS, size[::-1])
    picture = opened(segmented(Image.new("RGB", size, ground), labels, NAMES))
    plain = overlaid(Image.new("RGB", size, ground), labels)
    assert picture.height > plain.height
    assert picture.width >= plain.width
    below = np.asarray(picture)[plain.height :]
    # Words in bright on dark, whatever the picture.
    assert (below.max(2) > 200).any()
    assert (below.max(2) < 60).any()


def test_pixels_that_are_not_known_stay_as_they_are():
    image = Image.new("RGB", (300, 300), "#123456")
    shown = np.asarray(overlaid(image, np.full((300, 300), -1)))
    assert (shown == (0x12, 0x34, 0x56)).all()


def test_classes_differ_in_colour():
    colours = {class_colour(label) for label in range(200)}
    assert len(colours) > 190


@pytest.mark.parametrize("values", [(0, 1, 2), (7, 255, 1)])
def test_numbers_are_those_of_the_masks_of_training(values):
    mask = opened(numbers(LABELS, values))
    assert mask.mode == "P"
    np.testing.assert_array_equal(np.asarray(mask), np.array(values)[LABELS])
    shown = np.asarray(mask.convert("RGB"))
    assert "#" + bytes(shown[0, 0]).hex() == class_colour(0)


@pytest.mark.parametrize("values", [None, (0, 1, 1000)])
def test_numbers_without_room_are_indices(values):
    np.testing.assert_array_equal(np.asarray(opened(numbers(LABELS, values))), LABELS)


def test_more_classes_than_colours_are_numbers_of_sixteen_bits():
    labels = np.arange(600).reshape(20, 30)
    np.testing.assert_array_equal(np.asarray(opened(numbers(labels, None))), labels)


def test_a_class_has_one_hue_whatever_the_picture():
    hues = []
    for ground in ("yellow", "blue", "grey"):
        shown = overlaid(Image.new("RGB", (300, 300), ground), np.zeros((300, 300), int))
        hues.append(shown.convert("HSV").getpixel((150, 150))[0])
    assert max(hues) - min(hues) <= 3
