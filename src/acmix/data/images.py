"""Images of any mode as 8-bit RGB, and the check that a file can be read."""

import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os.path import splitext
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from acmix.data.pixels import lies, to_rgb, upright
from acmix.errors import InputError, first_line

# What Pillow opens that is no picture to learn from: video and data of which it knows the size at most (MPEG, BUFR,
# GRIB, HDF5), drawings that another program would have to run (EPS, WMF), measurements whose offset and scale it does
# not apply (FITS), and a format of old scanners whose suffix .pcd point clouds bear today (PCD).
_NO_PICTURES = frozenset(("BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "PCD", "WMF"))
# What systems leave beside files without a dot before it: macOS' archives, Windows, Synology's disks, ext4.
_SYSTEM = frozenset(("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "lost+found")) | frozenset(
    ("system volume information", "@eadir", "#recycle")
)
# JPEG's longest side; a strip any thinner would be huge once its short side has the size of a network's input.
_LONGEST_SIDE, _MOST_ELONGATED = 65_535, 200


class _Decoding:
    """While any thread decodes, what decoders warn of is dropped, and too many pixels are an error.

    Python's warning filters belong to the process: the first thread in sets them, the last one out puts them back.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._kept = Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._kept = warnings.catch_warnings(action="ignore")
                self._kept.__enter__()
                warnings.simplefilter("error", Image.DecompressionBombWarning)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._kept.__exit__(None, None, None)


_decoding = _Decoding()


def is_hidden(name: str) -> bool:
    """Whether a file or folder is for a system or a program by its name, and no data: `.cache`, `Thumbs.db`."""
    return name.startswith(".") or name.casefold() in _SYSTEM


def is_image(name: str) -> bool:
    """Whether a file is an image by its name: its suffix, in any case, is one of `suffixes`."""
    return _is_picture(Image.registered_extensions().get(splitext(name)[1].lower()))


def suffixes() -> frozenset[str]:
    """The suffixes of image files, lower case with their dots: of all pictures that the installed Pillow reads."""
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if _is_picture(kind))


def suffix_of(image: Image.Image) -> str:
    """A suffix that files of the format of an image bear, see `open_image`."""
    kind = image.format or ""
    known = sorted(suffix for suffix, other in Image.registered_extensions().items() if other == kind)
    return f".{kind.lower()}" if f".{kind.lower()}" in known else known[0]


def _is_picture(kind: str | None) -> bool:
    # The JPEG plugin reads MPO, the JPEG files of some cameras.
    return kind not in _NO_PICTURES and ("JPEG" if kind == "MPO" else kind) in Image.OPEN


def read_image(path: str | Path) -> Image.Image:
    """Read an image file as 8-bit RGB, the way a viewer shows it.

    The EXIF orientation is applied where it can be read, transparency is laid on white, other depths are scaled to 8
    bits as `acmix.data.pixels.to_rgb` says. Of an animation or of several pages the first picture is read.

    Raises:
        InputError: If the file is missing, is not an image that Pillow can decode, or is refused by `open_image`.
    """
    return decode_image(read_bytes(path), path)


def read_images(files: Iterable[Path], faults: list[str]) -> Iterator[tuple[Path, Image.Image]]:
    """Read image files one after another as `read_image` does.

    Args:
        files: Image files.
        faults: Gets one line for every file that cannot be read.
    """
    for file in files:
        try:
            image = read_image(file)
        except InputError as error:
            faults.append(str(error))
        else:
            yield file, image


def read_bytes(path: str | Path) -> bytes:
    """The content of an image file.

    Raises:
        InputError: If the file is missing or cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, expected an image file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def file_size(path: Path) -> int:
    """Bytes of a file.

    Raises:
        InputError: If it cannot be looked at.
    """
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def decode_image(content: bytes, name: str | Path) -> Image.Image:
    """Decode the bytes of an image file as `read_image` does.

    Args:
        content: The bytes of the file.
        name: What to call the image in an error.

    Raises:
        InputError: If it is not an image that Pillow can decode, or is refused by `open_image`.
    """
    with open_image(content, name) as image:
        image.load()
        return upright(to_rgb(image), image)


def encode_png(image: Image.Image) -> bytes:
    """The content of a PNG file of an image, in a mode that PNG has."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@contextmanager
def open_image(content: bytes | BinaryIO, name: str | Path) -> Iterator[Image.Image]:
    """Read the header of an image, whose pixels may then be decoded within the context.

    Refused before any pixel is decoded: more pixels than Pillow warns of (`PIL.Image.MAX_IMAGE_PIXELS`, 89 million as
    Pillow comes), a side of 0 or of more than 65,535 pixels, a side more than 200 times as long as the other.

    Args:
        content: The bytes of the file, or the file.
        name: What to call the image in an error.

    Raises:
        InputError: If it is refused or cannot be decoded, here or within the context.
    """
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    try:
        with _decoding, _header(file) as image:
            check_sides(image.size, name)
            yield image
    except InputError:
        raise
    except UnidentifiedImageError:
        file.seek(0)
        raise InputError(f"{name}: not a readable image ({_unidentified(file.read(16))})") from None
    except Exception as error:  # decoders of 40 formats raise whatever they meet in damaged bytes
        raise InputError(f"{name}: not a readable image ({first_line(error)})") from error


def check_sides(size: tuple[int, int], name: str | Path) -> None:
    """Refuse a picture without pixels, or of sides that no picture has.

    Args:
        size: Width and height in pixels.
        name: What to call it in an error.

    Raises:
        InputError: If a side is 0, has more than 65,535 pixels, or is more than 200 times as long as the other.
    """
    short, long = sorted(size)
    if long > _LONGEST_SIDE or long > _MOST_ELONGATED * short or short == 0:
        raise InputError(
            f"{name}: {size[0]} x {size[1]} pixels are refused: a side may have {_LONGEST_SIDE:,} "
            f"pixels and be {_MOST_ELONGATED} times as long as the other; cut the image or remove it"
        )


def _header(file: BinaryIO) -> Image.Image:
    image = Image.open(file, formats=_kinds())
    # Of PNG's 16 bits Pillow reads the high byte, but compares it with the low byte of the transparent colour.
    if image.format == "PNG" and image.tile and image.tile[0][3] == "RGB;16B" and "transparency" in image.info:
        image.info["transparency"] = tuple(value >> 8 for value in image.info["transparency"])
    return image


def _kinds() -> list[str]:
    """Pillow's names of the formats of pictures, in its order of trying them."""
    kinds = {kind for kind in Image.registered_extensions().values() if _is_picture(kind)}
    return [kind for kind in Image.ID if kind in kinds]


def _unidentified(content: bytes) -> str:
    """Why no plugin took a file that begins with these bytes."""
    # Plugins look at 16 bytes, and some fail if there are fewer.
    for kind in _kinds() if len(content) >= 16 else ():
        accept = Image.OPEN[kind][1]
        if accept is not None and accept(content) is True:
            return f"damaged, or of a kind of {kind} that Pillow does not read; convert it to PNG"
    return "of no format that Pillow knows"


@dataclass(frozen=True)
class ImageFacts:
    """What the header of an image says.

    Attributes:
        width: In pixels, as stored.
        height: In pixels, as stored.
        mode: Pillow's name.
        format: Pillow's name.
        size: Width and height as `decode_image` gives the image.
    """

    width: int
    height: int
    mode: str
    format: str
    size: tuple[int, int]


def check_image(content: bytes, name: str | Path) -> ImageFacts:
    """Read a whole image once, as fast as its format allows.

    Args:
        content: The bytes of the file.
        name: What to call the image in an error.

    Raises:
        InputError: If `decode_image` would raise it.
    """
    with open_image(content, name) as image:
        (width, height), mode, kind = image.size, image.mode, image.format or "unknown"
        # JPEG decodes at an eighth of its size and still reads the whole file.
        image.draft(None, (1, 1))
        image.load()
        to_rgb(image)
        size = (height, width) if lies(image) else (width, height)
    return ImageFacts(width, height, mode, kind, size)


def size_of(path: str | Path) -> tuple[int, int]:
    """Height and width of an image file as `read_image` gives it, by its header alone.

    Raises:
        InputError: If the file cannot be read, or is refused by `open_image`.
    """
    try:
        with Path(path).open("rb") as file, open_image(file, path) as image:
            # Pillow turns TIFF's pictures itself, and gives the size turned before it has.
            if image.format == "TIFF":
                image.load()
            return image.size if lies(image) else image.size[::-1]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
