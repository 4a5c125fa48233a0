import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from acmix import InputError
from acmix.data.images import check_image, decode_image, is_image, read_image, suffixes


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
    check_image(good.read_bytes(), good)
    with pytest.raises(InputError, match=rf"cut.{suffix}: not a readable image"):
        check_image(cut.read_bytes(), cut)


def sample(kind):
    """A file of any format that Pillow writes."""
    random, file = np.random.default_rng(0), io.BytesIO()
    image = Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8))
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        image.convert({"BLP": "P", "MSP": "1", "XBM": "1"}.get(kind, "RGB")).save(file, kind)
    return file.getvalue()


def written_kinds():
    known = {kind for suffix, kind in Image.registered_extensions().items() if suffix in suffixes()}
    return sorted(known & Image.SAVE.keys())


def outcome(use, content):
    try:
        use(content, "damaged")
    except InputError:
        return "refused"
    return "read"


@pytest.mark.parametrize("kind", written_kinds())
def test_damaged_content_of_every_format_is_an_input_error(kind):
    random = np.random.default_rng(0)
    content = np.frombuffer(sample(kind), np.uint8)
    refused = 0
    for _ in range(30):
        damaged = content.copy()
        places = random.integers(0, min(len(content), random.choice([64, len(content)])), 3)
        damaged[places] = random.choice([0, 1, 127, 255], 3)
        damaged = damaged.tobytes()[: random.integers(1, len(content) + 1) if random.random() < 0.2 else None]
        outcomes = [outcome(use, damaged) for use in (decode_image, check_image)]
        assert outcomes[0] == outcomes[1]
        refused += outcomes[0] == "refused"
    assert refused


@pytest.mark.parametrize(
    "error",
    [AssertionError(), IndexError("a"), KeyError("a"), MemoryError(), OverflowError("a\nb"), RecursionError("a")],
)
@pytest.mark.parametrize("use", [decode_image, check_image])
def test_whatever_a_decoder_raises_is_an_input_error(monkeypatch, use, error):
    def fail(_):
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(InputError, match=r"^damaged: not a readable image \(.+\)$"):
        use(sample("PNG"), "damaged")


def test_what_decoders_warn_of_is_dropped_and_filters_are_put_back(monkeypatch):
    def load(image):
        warnings.warn("a decoder's", stacklevel=1)
        return kept(image)

    kept = Image.Image.load
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    bomb, cut = png_header(10_000, 10_000), sample("PNG")[:-40]
    before = list(warnings.filters)

    def use(number):
        if number % 2:
            with pytest.raises(InputError, match="exceeds limit"):
                decode_image(bomb, "bomb")
        else:
            with pytest.raises(InputError, match="not a readable image"):
                check_image(cut, "warns")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(200)))
    assert warnings.filters == before
    with pytest.raises(UserWarning, match="own"):
        warnings.warn("own", stacklevel=1)


def png_header(width, height):
    """A PNG file whose header claims a size and which holds next to no pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("size", "rule"),
    [
        ((100_000, 100_000), "exceeds limit"),
        ((10_000, 10_000), "exceeds limit"),  # where Pillow itself only warns
        ((65_536, 1_000), "65536 x 1000 pixels are refused"),
        ((3, 601), "3 x 601 pixels are refused"),
        ((0, 5), "not a readable image"),
    ],
)
@pytest.mark.parametrize("use", [decode_image, check_image])
def test_absurd_sizes_are_refused_before_pixels_are_decoded(monkeypatch, use, size, rule):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("pixels were decoded"))
    with pytest.raises(InputError, match=f"^bomb: .*{rule}"):
        use(png_header(*size), "bomb")


def test_header_facts(tmp_path):
    facts = check_image(saved(tmp_path, Image.new("L", (60, 30)), "image.jpg").read_bytes(), "image")
    assert (facts.width, facts.height, facts.mode, facts.format) == (60, 30, "L", "JPEG")


@pytest.mark.parametrize(
    "suffix",
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".apng",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".bmp",
        ".ico",
        ".jp2",
        ".j2k",
        ".avif",
        ".ppm",
        ".pgm",
    ],
)
def test_what_pillow_reads_is_an_image(suffix):
    assert is_image(f"a.b{suffix}")
    assert is_image(f"A{suffix.upper()}")
    assert suffix in suffixes()


@pytest.mark.parametrize(
    "name", ["a.txt", "a.pdf", "a.eps", "a.ps", "a.mpg", "a.h5", "a.fits", "a.pcd", "a.palm", ".png", "png", "a.", ""]
)
def test_what_is_no_image_by_its_name(name):
    assert not is_image(name)


def test_every_suffix_belongs_to_a_format_that_is_read():
    kinds = {kind for suffix, kind in Image.registered_extensions().items() if suffix in suffixes()}
    assert kinds - {"MPO"} <= set(Image.OPEN)
    for kind in written_kinds():
        assert decode_image(sample(kind), kind).mode == "RGB"


def test_what_is_no_picture_is_not_opened_under_another_name():
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "EPS")
    with pytest.raises(InputError, match=r"a\.jpg: not a readable image"):
        decode_image(file.getvalue(), "a.jpg")


def test_formats_of_plugins_are_images(monkeypatch):
    monkeypatch.setitem(Image.EXTENSION, ".new", "NEW")
    assert not is_image("a.new")
    monkeypatch.setitem(Image.OPEN, "NEW", (None, None))
    assert is_image("a.new")
