"""IDX files, the format of MNIST and Fashion-MNIST: greys and labels as bytes behind a header, plain or in gzip.

LeCun, Cortes and Burges, The MNIST database of handwritten digits: http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import hashlib
import re
import zlib
from array import array
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from acmix.data.folders import part_within
from acmix.data.images import encode_png
from acmix.data.labels import Label
from acmix.data.rows import RowImages
from acmix.data.sources import EncodedImage
from acmix.errors import InputError, printable

# `train-images-idx3-ubyte.gz`, as MNIST, Fashion-MNIST, EMNIST and KMNIST write it, with a dot in some copies.
_IMAGES = re.compile(r"(?P<split>.+)-images[.-]idx3-ubyte(?P<gzip>\.gz)?", re.ASCII)
_LABELS = "{}-labels{}idx1-ubyte{}"
# MNIST's name for its 10,000 test images.
_TEST = "t10k"
_BYTES = 0x08
# Values that are read at most: of 60,000 images of MNIST there are 47 million.
_MOST = 2**32


class IdxImages(RowImages):
    """The images of one pair of files.

    Args:
        split: What the files call them, with which names begin.
        pixels: Greys, `(images, H, W)`, uint8.
        labels: As the files have them, one an image; classes are those that occur, by number.
    """

    checked = True

    def __init__(self, split: str, pixels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
        self.split_name, self.pixels = split, pixels
        values, positions = np.unique(labels, return_inverse=True)
        self.classes = tuple(str(value) for value in values)
        self.labels, self.rows = array("i", positions.tolist()), array("q", range(len(pixels)))

    def encoded(self, index: int) -> EncodedImage:
        """The image as a PNG file."""
        return EncodedImage(encode_png(Image.fromarray(self.pixels[self.rows[index]])), ".png", self.labels[index])

    def read(self, index: int) -> tuple[Image.Image, Label]:
        """One image as 8-bit RGB, and its label."""
        return Image.fromarray(self.pixels[self.rows[index]]).convert("RGB"), self.labels[index]

    def fingerprint(self) -> str:
        """SHA-256 of which images, their size, labels and classes."""
        known = (self.rows.tobytes(), self.pixels.shape[1:], list(self.labels), self.classes)
        return hashlib.sha256(repr(known).encode()).hexdigest()


def has_idx(folder: Path) -> bool:
    """Whether a folder holds images in IDX files."""
    return any(_IMAGES.fullmatch(path.name) for path in folder.iterdir())


def open_idx(folder: Path) -> dict[str, IdxImages]:
    """Open all pairs of images and labels of a folder, by the name of their split; `t10k` is the test images.

    Args:
        folder: Holds `train-images-idx3-ubyte` with `train-labels-idx1-ubyte`, either with `.gz` or not, and others
            of such names. Where a file lies there both ways, the plain one is read.

    Raises:
        InputError: If labels are missing, a file is damaged, holds other things than bytes, or images without pixels,
            or numbers of images and labels differ.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        # Plain files stand before those in gzip.
        if match := _IMAGES.fullmatch(path.name):
            found.setdefault(match["split"], path)
    opened: dict[str, IdxImages] = {}
    for split, path in found.items():
        name = "test" if split == _TEST else part_within(split) or printable(split)
        if name in opened:
            raise InputError(f"{path} is of the split {name}, as another file of {folder} is; keep one of them there")
        beside = _labels_beside(path, split)
        pixels, labels = _read(path, 3), _read(beside, 1)
        if len(pixels) != len(labels):
            raise InputError(f"{path} holds {len(pixels):,} images, {beside.name} {len(labels):,} labels")
        opened[name] = IdxImages(name, pixels, labels)
    return opened


def _labels_beside(images: Path, split: str) -> Path:
    names = [_LABELS.format(split, mark, end) for end in ("", ".gz") for mark in "-."]
    for name in names:
        if (images.parent / name).is_file():
            return images.parent / name
    raise InputError(f"{images} has no labels: there is no {names[0]} beside it, nor one with .gz")


def _read(path: Path, axes: int) -> NDArray[np.uint8]:
    """The values of a file of so many axes."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _values(cast("BinaryIO", file), axes)
    except InputError as fault:
        raise InputError(f"{path} is damaged: {fault}") from fault
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _values(file: BinaryIO, axes: int) -> NDArray[np.uint8]:
    """The header, four bytes and four for each axis, and what it promises; nothing more is read than that."""
    head = file.read(4 + 4 * axes)
    if head[:4] != bytes((0, 0, _BYTES, axes)):
        raise InputError(f"it begins with {head[:4].hex() or 'nothing'}, not {bytes((0, 0, _BYTES, axes)).hex()}")
    if len(head) < 4 + 4 * axes:
        raise InputError("it ends within its header")
    shape = [int.from_bytes(head[place : place + 4]) for place in range(4, len(head), 4)]
    count = int(np.prod(shape, dtype=object))
    if not 0 < count <= _MOST:
        raise InputError(f"its header promises {' x '.join(map(str, shape))} values; at most {_MOST:,} are read")
    content = bytearray()
    # Memory grows with the file, not with what the header promises.
    while part := file.read(min(2**24, count + 1 - len(content))):
        content += part
    if len(content) != count:
        held = "more" if len(content) > count else f"{len(content):,}"
        raise InputError(f"its header promises {count:,} values, it holds {held}")
    return np.frombuffer(content, np.uint8).reshape(shape)
