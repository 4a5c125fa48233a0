"""Depth and range of every mode, transparency, orientation."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from acmix import InputError
from acmix.data.images import check_image, decode_image


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def first(content):
    check_image(content, "image")
    return decode_image(content, "image").getpixel((0, 0))


def refused(content, rule):
    for use in (decode_image, check_image):
        with pytest.raises(InputError, match=f"^image: not a readable image .*{rule}"):
            use(content, "image")


def tiff(values, *, bits, sample_format=1, photometric=1, samples=1):
    """An uncompressed TIFF file of the values as they are in memory, rows first."""
    values = np.asarray(values)
    tags = ImageFileDirectory_v2()
    tags[256], tags[257] = values.shape[1], values.shape[0]
    tags[258], tags[339] = (bits,) * samples, (sample_format,) * samples
    tags[259], tags[262], tags[277], tags[278] = 1, photometric, samples, values.shape[0]
    tags[273], tags[279] = 0, values.nbytes  # the values follow the tags, as Pillow writes it down
    return b"II*\0" + struct.pack("<I", 8) + tags.tobytes(8) + values.tobytes()


def grey(value, dtype, size=(4, 4)):
    return np.full(size, value, dtype)


@pytest.mark.parametrize(
    ("mode", "value", "kind", "expected"),
    [
        ("1", 1, "PNG", (255, 255, 255)),
        ("L", 77, "PNG", (77, 77, 77)),
        ("L", 77, "TIFF", (77, 77, 77)),
        ("LA", (77, 255), "PNG", (77, 77, 77)),
        ("LA", (77, 0), "PNG", (255, 255, 255)),
        ("RGB", (10, 20, 30), "BMP", (10, 20, 30)),
        ("RGBX", (10, 20, 30, 0), "TIFF", (10, 20, 30)),
        ("RGBA", (10, 20, 30, 255), "WEBP", (10, 20, 30)),
        ("RGBA", (10, 20, 30, 51), "PNG", (206, 208, 210)),
        ("CMYK", (0, 255, 255, 0), "TIFF", (255, 0, 0)),
        ("YCbCr", (77, 128, 128), "TIFF", (77, 77, 77)),
    ],
)
def test_eight_bits_stay(mode, value, kind, expected):
    assert first(encoded(Image.new(mode, (4, 4), value), kind, **({"lossless": True} if kind == "WEBP" else {}))) == (
        pytest.approx(expected, abs=1)
    )


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (255, 0), (256, 1), (0x80FF, 0x80), (0xFFFF, 255)])
def test_sixteen_bits_are_the_high_byte_in_every_format_and_order(value, expected):
    image = Image.fromarray(grey(value, np.uint16))
    contents = [encoded(image, kind) for kind in ("PNG", "TIFF", "JPEG2000")]
    contents += [encoded(Image.fromarray(grey(value, ">u2")), kind) for kind in ("PNG", "TIFF")]
    contents += [encoded(image, "PPM"), tiff(grey(value, "<u2"), bits=16)]
    contents.append(tiff(np.tile(grey(value, "<u2")[..., None], 3), bits=16, photometric=2, samples=3))
    assert [first(content) for content in contents] == [(expected,) * 3] * len(contents)


def test_scale_is_no_matter_of_the_brightest_pixel():
    dark, bright = grey(255, np.uint16), grey(255, np.uint16)
    bright[3, 3] = 65535
    assert first(encoded(Image.fromarray(dark))) == first(encoded(Image.fromarray(bright))) == (0, 0, 0)


def test_twelve_bits_are_scaled_by_what_the_file_declares():
    # Two values in three bytes.
    packed = np.frombuffer(b"\xff\xff\xff" * 8, np.uint8).reshape(4, 6)
    content = tiff(packed, bits=12).replace(struct.pack("<HHII", 256, 4, 1, 6), struct.pack("<HHII", 256, 4, 1, 4))
    content = content.replace(struct.pack("<HHIHH", 256, 3, 1, 6, 0), struct.pack("<HHIHH", 256, 3, 1, 4, 0))
    assert first(content) == (255, 255, 255)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tiff(grey(0, "u1"), bits=8, photometric=0), 255),
        (tiff(grey(0, "<u2"), bits=16, photometric=0), 255),
        (tiff(grey(0xFFFF, "<u2"), bits=16, photometric=0), 0),
        (tiff(grey(1, "<f4"), bits=32, sample_format=3, photometric=0), 0),
    ],
)
def test_white_is_zero(content, expected):
    assert first(content) == (expected,) * 3


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0), (0.5, 128), (1.0, 255), (1 / 255, 1), (1.001, 255)])
def test_floating_point_greys_lie_within_0_and_1(value, expected):
    assert first(tiff(grey(value, "<f4"), bits=32, sample_format=3)) == (expected,) * 3
    assert first(encoded(Image.fromarray(grey(value, np.float32)), "PPM")) == (expected,) * 3


@pytest.mark.parametrize("value", [-1, 1.01, 255, 1e30, np.nan, np.inf, -np.inf])
def test_other_floating_point_greys_are_refused(value):
    values = grey(0.5, "<f4")
    values[1, 2] = value
    refused(tiff(values, bits=32, sample_format=3), "floating-point greys must lie within 0 and 1, got .*; convert")


@pytest.mark.parametrize(
    ("dtype", "sample_format"), [("<u4", 1), ("<i4", 2), ("<i2", 2), ("i1", 2)], ids=["u32", "i32", "i16", "i8"]
)
@pytest.mark.parametrize("value", [1, 100])
def test_integers_without_a_known_range_are_refused(dtype, sample_format, value):
    content = tiff(grey(value, dtype), bits=np.dtype(dtype).itemsize * 8, sample_format=sample_format)
    refused(content, "have no known .*white; convert it to 8 or 16 bits")


def test_what_pillow_does_not_read_is_named():
    refused(tiff(np.zeros((4, 4, 3), "<f4"), bits=32, sample_format=3, photometric=2, samples=3), "a kind of TIFF that")


def test_transparent_palettes_and_greys_are_laid_on_white():
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert first(encoded(palette)) == (10, 200, 30)
    assert first(encoded(palette, transparency=1)) == (255, 255, 255)
    assert first(encoded(palette, transparency=bytes([255, 51]))) == (206, 244, 210)
    assert first(encoded(palette.convert("PA"), "TIFF")) == (10, 200, 30)
    assert first(encoded(palette, "GIF", transparency=1)) == (255, 255, 255)
    assert first(encoded(Image.new("L", (2, 2), 7), transparency=7)) == (255, 255, 255)
    assert first(encoded(Image.new("RGB", (2, 2), (7, 8, 9)), transparency=(7, 8, 9))) == (255, 255, 255)
    assert first(encoded(Image.fromarray(grey(700, np.uint16)), transparency=700)) == (255, 255, 255)
    assert first(encoded(Image.fromarray(grey(700, np.uint16)), transparency=701)) == (2, 2, 2)


# The corner that is white after EXIF's orientation was undone is the upper left one.
def marked(orientation):
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:4, :4] = 255
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    return Image.fromarray(np.ascontiguousarray(stored))


def exif_block(orientation, order="<", *, kind=3, before=(), after=()):
    """An EXIF block of one directory with an orientation among other raw entries."""
    value = struct.pack(order + {1: "B3x", 3: "H2x", 4: "I"}[kind], orientation)
    entries = [*before, struct.pack(order + "HHI", ExifTags.Base.Orientation, kind, 1) + value, *after]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    return b"Exif\0\0" + head + b"".join(entries) + bytes(4)


def is_upright(image):
    return image.size == (16, 8) and image.getpixel((1, 1))[0] > 200 and image.getpixel((14, 6))[0] < 50


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_orientation_is_undone_in_every_format(kind, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    assert is_upright(decode_image(encoded(marked(orientation), kind, exif=exif), "image"))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 4])
def test_an_orientation_is_read_beside_malformed_tags(order, kind):
    huge = struct.pack(order + "HHII", ExifTags.Base.Make, 2, 1 << 31, 60_000)
    directory = struct.pack(order + "HHII", ExifTags.IFD.Exif, 4, 1, 1 << 31)
    zero = struct.pack(order + "HHII", ExifTags.Base.XResolution, 5, 1, 0)
    exif = exif_block(6, order, kind=kind, before=[huge], after=[directory, zero])
    for image_kind in ("JPEG", "PNG", "WEBP"):
        assert is_upright(decode_image(encoded(marked(6), image_kind, exif=exif), "image"))


def test_an_orientation_in_xmp_is_read():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    assert is_upright(decode_image(encoded(marked(8), "JPEG", xmp=xmp), "image"))


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_no_orientation_leaves_the_picture(orientation):
    assert is_upright(decode_image(encoded(marked(1), "JPEG", exif=exif_block(orientation)), "image"))


def random_block(random):
    """An EXIF block of random bytes, or of random entries under a plausible head."""
    if random.random() < 0.3:
        return b"Exif\0\0" + random.bytes(int(random.integers(0, 60)))
    order = "<" if random.random() < 0.5 else ">"
    entries = [
        struct.pack(
            order + "HHII",
            random.choice([*ExifTags.TAGS, *range(8)]),
            random.integers(0, 15),
            random.choice([0, 1, 2, 5, 1000, 1 << 31, (1 << 32) - 1]),
            random.integers(0, 1 << int(random.choice([8, 32]))),
        )
        for _ in range(random.integers(1, 6))
    ]
    return exif_block(int(random.integers(0, 12)), order, before=entries[1:], after=entries[:1])[
        : int(random.integers(6, 120))
    ]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_no_exif_hides_a_picture(kind):
    random = np.random.default_rng(0)
    image = Image.new("RGB", (3, 2))
    for _ in range(1000):
        content = encoded(image, kind, exif=random_block(random))
        assert sorted(decode_image(content, "image").size) == [2, 3]
        check_image(content, "image")


def test_transparent_colours_of_sixteen_bits():
    row = b"\0" + struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x3400, 0x7800, 0xBC00)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)),
        (b"tRNS", struct.pack(">HHH", 0x1234, 0x5678, 0x9ABC)),
        (b"IDAT", zlib.compress(row)),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    ]
    image = decode_image(b"\x89PNG\r\n\x1a\n" + b"".join(parts), "image")
    assert [image.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (0x34, 0x78, 0xBC)]
