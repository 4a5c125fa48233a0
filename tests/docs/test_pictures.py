"""Pictures of the documents are what their programs draw."""

import base64
import importlib.util
import io
import re

import numpy as np
import pytest
from PIL import Image

from tests.docs.blocks import ROOT

PICTURES = ROOT / "docs/pictures"
_IMAGE = re.compile(r'"data:image/png;base64,([^"]*)"')
_DERIVED = re.compile(r"\b(p|image)[0-9a-f]{8,}\b")
_NUMBER = re.compile(r"-?\d+\.\d+|-?\d+")


def load(name):
    specification = importlib.util.spec_from_file_location(name, PICTURES / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def parts(content):
    """What an SVG consists of: its words with places for the rest, its numbers, the pixels of its images.

    Names that are made from numbers are left out: layouts are solved in floating point, and another processor's last
    digit is another.
    """
    text = content.decode()
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), dtype=int) for data in _IMAGE.findall(text)]
    text = " ".join(_DERIVED.sub("", _IMAGE.sub("", text)).split())
    return _NUMBER.sub("#", text), [float(number) for number in _NUMBER.findall(text)], images


def assert_same_drawing(found, expected):
    (words, numbers, images), (same_words, same_numbers, same_images) = parts(found), parts(expected)
    assert words == same_words
    assert numbers == pytest.approx(same_numbers, abs=0.01)
    assert [image.shape for image in images] == [image.shape for image in same_images]
    for image, same in zip(images, same_images, strict=True):
        assert np.abs(image - same).max() <= 1


@pytest.mark.parametrize("name", ["shifts.svg", "windows.svg", "stages.svg"])
def test_pictures_of_the_derivation(name):
    derivation = load("derivation")
    assert sorted(derivation.DRAWINGS) == ["shifts.svg", "stages.svg", "windows.svg"]
    assert_same_drawing(derivation.DRAWINGS[name]().alone(), (PICTURES / name).read_bytes())


def test_another_drawing_is_told_apart():
    """Words, a moved line and another pixel; a last digit is none."""
    drawn = (PICTURES / "shifts.svg").read_bytes()
    assert_same_drawing(drawn.replace(b"83.200309", b"83.200308"), drawn)
    image = _IMAGE.search(drawn.decode())[1]
    pixels = Image.new("RGBA", Image.open(io.BytesIO(base64.b64decode(image))).size, "red")
    file = io.BytesIO()
    pixels.save(file, "PNG")
    red = base64.b64encode(file.getvalue())
    for other in (
        drawn.replace(b"a digit", b"a letter"),
        drawn.replace(b"83.200309", b"83.300309"),
        drawn.replace(image.encode(), red, 1),
    ):
        with pytest.raises(AssertionError):
            assert_same_drawing(other, drawn)
