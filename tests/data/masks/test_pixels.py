"""Mask values as they were written, and masks on their images whatever EXIF says."""

import io

import numpy as np
import pytest
from PIL import Image

from acmix import InputError
from acmix.data.masks.pixels import mask_values, picture_and_values

VALUES = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [0, 0, 3, 3]], np.uint8)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(content, *, colours=False):
    return mask_values(content, "mask", colours=colours)[0]


def palette(values):
    image = Image.fromarray(values).convert("P")
    image.putpalette([200, 10, 10, 5, 5, 5, 90, 90, 0, 1, 2, 3])
    return image


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_greys_of_few_bits_are_their_numbers(bits):
    """Pillow spreads them over 0 to 255."""
    plain = encoded(Image.fromarray(VALUES).convert("P"), bits=bits)
    # A palette file of so many bits, its colour type made grey and the palette taken out.
    at = plain.index(b"PLTE")
    length = int.from_bytes(plain[at - 4 : at], "big")
    grey = bytearray(plain[: at - 4] + plain[at + 8 + length :])
    grey[25] = 0
    import zlib

    grey[29:33] = zlib.crc32(grey[12:29]).to_bytes(4, "big")
    assert grey[24] == bits
    np.testing.assert_array_equal(read(bytes(grey)), VALUES)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF"])
def test_palettes_are_indices(kind):
    np.testing.assert_array_equal(read(encoded(palette(VALUES), kind)), VALUES)


def test_sixteen_bits_and_one():
    large = VALUES.astype(np.uint16) * 20_000
    np.testing.assert_array_equal(read(encoded(Image.fromarray(large))), large)
    np.testing.assert_array_equal(read(encoded(Image.fromarray(VALUES > 1))), VALUES > 1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_without_names_are_refused(mode):
    with pytest.raises(InputError, match=r"mode (RGB|RGBA|LA).*class_dict.csv"):
        read(encoded(Image.fromarray(VALUES).convert(mode)))


def test_colours_with_names_are_numbers():
    np.testing.assert_array_equal(read(encoded(Image.new("RGB", (2, 1), (1, 2, 3))), colours=True), [[0x010203] * 2])
    first = read(encoded(palette(VALUES)), colours=True)[0, 0]
    assert first == 200 << 16 | 10 << 8 | 10
    with pytest.raises(InputError, match="has none"):
        read(encoded(Image.fromarray(VALUES)), colours=True)
    with pytest.raises(InputError, match="transparent"):
        read(encoded(Image.new("RGBA", (2, 2), (1, 2, 3, 4))), colours=True)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_what_may_change_values_is_refused(kind):
    with pytest.raises(InputError, match=f"keep values, got {kind}"):
        read(encoded(Image.fromarray(VALUES), kind))


def test_what_is_no_image_is_refused():
    with pytest.raises(InputError, match="not a readable image"):
        read(b"no image at all, nowhere")


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def picture(size=(4, 3), orientation=1):
    """Red where the mask of VALUES is 3."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[..., 0] = 255 * (np.resize(VALUES, size[::-1]) == 3)
    return encoded(Image.fromarray(pixels), exif=turned(orientation)), np.resize(VALUES, size[::-1])


def together(image, mask):
    return picture_and_values(image, mask, ("image", "mask"), colours=False)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_mask_turns_with_its_image_where_both_say_so(orientation):
    image, values = picture(orientation=orientation)
    shown, labels = together(image, encoded(Image.fromarray(values), exif=turned(orientation)))
    np.testing.assert_array_equal(np.asarray(shown)[..., 0] == 255, labels == 3)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("on_shown", [False, True])
def test_the_size_tells_what_a_mask_was_drawn_on(orientation, on_shown):
    image, values = picture(orientation=orientation)
    if on_shown:
        stored = Image.open(io.BytesIO(image))
        from acmix.data.pixels import turned as upright

        values = np.asarray(upright(Image.fromarray(values), orientation))
        assert stored.size == values.shape
    shown, labels = together(image, encoded(Image.fromarray(values)))
    np.testing.assert_array_equal(np.asarray(shown)[..., 0] == 255, labels == 3)


@pytest.mark.parametrize(("size", "orientation"), [((4, 3), 3), ((4, 3), 2), ((4, 4), 6)])
def test_where_nothing_tells_it_is_refused(size, orientation):
    image, values = picture(size, orientation)
    with pytest.raises(InputError, match="is not known; save both upright"):
        together(image, encoded(Image.fromarray(values)))


def test_a_mask_of_another_size_is_refused():
    image, _ = picture()
    with pytest.raises(InputError, match=r"4 x 3 pixels, its mask 3 x 3"):
        together(image, encoded(Image.fromarray(VALUES[:, :3])))
