import io

import numpy as np
import pytest
import torch
from PIL import Image

from acmix import InputError
from acmix.data.given import as_picture, one_by_one, stacked

ARRAY = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


def test_one_image_or_several(tmp_path):
    picture, tensor = Image.fromarray(ARRAY), torch.zeros(3, 2, 3)
    for image in (picture, ARRAY, tensor, "a.png", tmp_path / "a.png"):
        ((name, found),) = one_by_one(image)
        assert (name, found is image) == ("images", True)
        assert [name for name, _ in one_by_one([image, image])] == ["images[0]", "images[1]"]
    assert len([*one_by_one(ARRAY[None].repeat(4, 0))]) == len([*one_by_one(tensor.expand(4, 3, 2, 3))]) == 4
    assert [*one_by_one(iter(()))] == []
    for other in (3, None, {"a.png": 1}, b"a.png"):
        with pytest.raises(InputError, match="images must be a path, .* or several of them, got "):
            next(one_by_one(other))


def test_pictures(tmp_path):
    assert np.array_equal(np.asarray(as_picture(ARRAY, "x")), ARRAY)
    assert np.array_equal(np.asarray(as_picture(ARRAY[::-1, ::-1], "x")), ARRAY[::-1, ::-1])
    Image.fromarray(ARRAY).save(tmp_path / "a.png")
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert np.array_equal(np.asarray(as_picture(path, "x")), ARRAY)
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert as_picture(clear, "x").getpixel((0, 0)) == (255, 255, 255)
    assert as_picture(Image.new("I;16", (2, 2), 65535), "x").getpixel((0, 0)) == (255, 255, 255)
    turned = Image.fromarray(ARRAY)
    turned.getexif()[0x0112] = 6
    assert as_picture(turned, "x").size == (2, 3)


@pytest.mark.parametrize(
    ("image", "rule"),
    [
        (ARRAY.astype(np.float32), r"x: an array must be uint8 of shape \(H, W, 3\), RGB, got float32 of shape"),
        (ARRAY[..., 0], "an array must be uint8"),
        (np.zeros((2, 2, 4), np.uint8), "an array must be uint8"),
        (np.zeros((0, 2, 3), np.uint8), "x: 2 x 0 pixels are refused"),
        (np.zeros((1, 300, 3), np.uint8), "x: 300 x 1 pixels are refused"),
        (Image.new("RGB", (0, 5)), "x: 0 x 5 pixels are refused"),
        (torch.zeros(3, 2, 2, dtype=torch.uint8), "x: a tensor must be preprocessed"),
        (torch.zeros(2, 2), "x: a tensor must be preprocessed"),
        (7, "x: must be a path, .* got int"),
        ("absent.png", "absent.png: there is no such file"),
        (".", "is a folder, expected an image file"),
    ],
)
def test_refusals(image, rule):
    with pytest.raises(InputError, match=rule):
        as_picture(image, "x")


def test_pictures_that_cannot_be_read():
    file = io.BytesIO()
    Image.fromarray(ARRAY).save(file, "PNG")
    lazy = Image.open(io.BytesIO(file.getvalue()[:50]))
    with pytest.raises(InputError, match=r"images\[3\]: the picture cannot be read"):
        as_picture(lazy, "images[3]")


def test_batches_are_of_one_shape():
    assert stacked([("a", torch.zeros(3, 2, 2)), ("b", torch.ones(3, 2, 2))]).shape == (2, 3, 2, 2)
    with pytest.raises(InputError, match=r"b: must be of the shape of a, \(3, 2, 2\), got \(3, 2, 4\)"):
        stacked([("a", torch.zeros(3, 2, 2)), ("b", torch.ones(3, 2, 4))])
