import numpy as np
import pytest
from PIL import Image

from acmix import InputError
from acmix.data.images import check_images, read_image


def saved(tmp_path, image, name="image.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def pixel(path, at=(0, 0)):
    image = read_image(path)
    assert image.mode == "RGB"
    return image.getpixel(at)


def test_palette(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert pixel(saved(tmp_path, image)) == (10, 200, 30)


def test_alpha_is_laid_on_white(tmp_path):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    path = saved(tmp_path, image)
    assert pixel(path) == (255, 255, 255)
    assert pixel(path, (1, 0)) == (10, 20, 30)


def test_transparent_palette_is_laid_on_white(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert pixel(saved(tmp_path, image, transparency=0)) == (255, 255, 255)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (0x80FF, 0x80), (0xFFFF, 255)])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path, value, expected):
    path = saved(tmp_path, Image.fromarray(np.full((4, 4), value, dtype=np.uint16)))
    assert pixel(path) == (expected,) * 3


def test_cmyk(tmp_path):
    red, green, blue = pixel(saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "image.jpg", quality=95))
    assert red > 200
    assert green < 60
    assert blue < 60


def test_exif_orientation(tmp_path):
    image = Image.new("RGB", (6, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert read_image(saved(tmp_path, image, "image.jpg", exif=exif)).size == (3, 6)


@pytest.mark.parametrize(("content", "rule"), [(b"no image", "not a readable image"), (b"", "not a readable image")])
def test_unreadable_file(tmp_path, content, rule):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rule):
        read_image(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_check_finds_truncated_files(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    good = saved(tmp_path, Image.fromarray(pixels), f"good.{suffix}")
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    check_images([good])
    with pytest.raises(InputError, match=rf"1 of 2 images cannot be read: .*cut.{suffix}"):
        check_images([good, cut])


def test_check_names_the_first_few(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for path in paths:
        path.write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        check_images(paths)
    assert "5 of 5" in str(caught.value)
    assert "2.png" in str(caught.value)
    assert "3.png" not in str(caught.value)
