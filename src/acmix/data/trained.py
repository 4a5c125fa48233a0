"""Which images a network was trained on: a few bytes an image, by which its copies are recognised wherever they lie."""

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acmix import records
from acmix.data.sources import NamedImages, read_in_threads
from acmix.errors import InputError, counted, printable
from acmix.progress import Progress, silent

# Of more images a record would fill the metadata of a checkpoint, which safetensors bounds to 100 MB.
_MOST_IMAGES = 3_000_000
# Images whose contents tell whether data are those that were trained on.
_SAMPLE = 16
# Faults that are named.
_NAMED = 3


@dataclass(frozen=True)
class Examined:
    """What reading images once told.

    Attributes:
        contents: A digest of each image's file, 0 where it was not read; uint64.
        masks: A digest of each mask's file, 0 where there is none or it was not read; uint64.
        faults: One line for every image that cannot be read.
    """

    contents: NDArray[np.uint64]
    masks: NDArray[np.uint64]
    faults: list[str]


def examine(
    images: NamedImages, indices: Sequence[int] | None = None, *, decode: bool = True, progress: Progress = silent
) -> Examined:
    """Read images once, in threads.

    Args:
        images: Any images.
        indices: Those to read; None reads all.
        decode: Decode them, too; otherwise a file that is no image is no fault.
        progress: Shows how far it is.
    """
    chosen = range(len(images)) if indices is None else indices
    contents, masks = np.zeros((2, len(images)), np.uint64)
    faults: list[str] = []

    def read(index: int) -> tuple[int, int, int, str | None]:
        try:
            content, mask = images.content(index), images.mask(index)
            if decode:
                images.check(index, content)
        except InputError as error:
            return index, 0, 0, str(error)
        return index, _digest(content), _digest(mask) if mask else 0, None

    outcomes = read_in_threads(read, chosen)
    for index, content, mask, fault in progress(outcomes, "checking images", len(chosen)):
        contents[index], masks[index] = content, mask
        faults += [] if fault is None else [fault]
    return Examined(contents, masks, faults)


def check_apart(train: NamedImages, held_out: NamedImages) -> None:
    """Refuse images that are learned from and validated with: one file under any name of its folder.

    Args:
        train: Any images.
        held_out: Any others; those that are no files of their own are left to `check_data`.

    Raises:
        InputError: If they have a file in common.
    """
    folder = cache(os.path.realpath)

    def files(images: NamedImages) -> Iterator[tuple[str, str]]:
        for index in images.files():
            above, name = os.path.split(images.place(index))
            yield folder(above), name

    # Those to validate with are the fewer.
    if both := {*files(held_out)}.intersection(files(train)):
        raise InputError(
            f"{counted(len(both), 'image')} to validate with, such as {printable(os.path.join(*min(both)))}, "
            f"{'is' if len(both) == 1 else 'are'} learned from, too; list every image once"
        )


def refuse_unreadable(faults: Sequence[str], count: int) -> None:
    """Refuse images of which some cannot be read.

    Raises:
        InputError: If there are faults; names the first few and says how many there are.
    """
    if faults:
        named = "; ".join(faults[:_NAMED]) + ("; ..." if len(faults) > _NAMED else "")
        raise InputError(
            f"{len(faults)} of {count} images cannot be read: {named}; repair or remove them, "
            "or skip this check with --check-images false"
        )


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


@dataclass(frozen=True)
class _Stored:
    """Base64 of little-endian numbers, see `TrainedImages`."""

    names: str = ""
    contents: str = ""


@dataclass(frozen=True)
class TrainedImages:
    """The images that a network was trained on, as sorted digests of 64 bits; uint64.

    Among a million of them one other image in ten trillion is taken for one of them.

    Attributes:
        names: Of their names; empty where they are not known.
        contents: Of their files; empty where training did not read them all beforehand.
    """

    names: NDArray[np.uint64]
    contents: NDArray[np.uint64]

    @classmethod
    def of(cls, images: NamedImages, contents: NDArray[np.uint64]) -> "TrainedImages":
        """Make the record of images that are trained on.

        Args:
            images: The images.
            contents: Of `examine`; those that could not be read are 0.
        """
        if len(images) > _MOST_IMAGES:
            return cls.nothing()
        return cls(np.unique(_names(images)), np.unique(contents[contents > 0]))

    @classmethod
    def nothing(cls) -> "TrainedImages":
        """Make the record of images of which nothing is known."""
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.uint64))

    def to_record(self) -> dict[str, str]:
        """Text that a checkpoint keeps."""
        names, contents = (
            base64.b64encode(values.astype("<u8").tobytes()).decode() for values in (self.names, self.contents)
        )
        return vars(_Stored(names, contents))

    @classmethod
    def from_record(cls, training: Mapping[str, Any]) -> "TrainedImages":
        """Read what `to_record` wrote into a checkpoint's record of its training; nothing where it is not there.

        Raises:
            InputError: If it is damaged.
        """
        try:
            record = records.read(_Stored, training.get("trained_images", {}), others=True)
            names, contents = (
                np.frombuffer(base64.b64decode(text, validate=True), "<u8").astype(np.uint64)
                for text in (record.names, record.contents)
            )
        except ValueError as error:
            raise InputError(
                f"the checkpoint's record of the images that it learned from is damaged: {error}"
            ) from error
        return cls(names, contents)

    def may_hold(self, images: NamedImages) -> bool:
        """Whether some of a sample of images were trained on, or nothing is known of any."""
        if not len(self.contents):
            return True
        step = max(1, len(images) // _SAMPLE)
        sample = examine(images, range(0, len(images), step), decode=False).contents
        return bool(np.isin(sample[sample > 0], self.contents).any())

    def recognise(self, images: NamedImages, contents: NDArray[np.uint64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Find images that were trained on.

        Args:
            images: Any images.
            contents: Of `examine`.

        Returns:
            Masks over the images: those whose files, and those whose names are those of images that were trained on.
        """
        return np.isin(contents, self.contents) & (contents > 0), np.isin(_names(images), self.names)


def _names(images: NamedImages) -> NDArray[np.uint64]:
    # Those of shards may not be UTF-8, and have lone surrogates.
    names = (images.name(index).encode(errors="surrogatepass") for index in range(len(images)))
    return np.fromiter(map(_digest, names), np.uint64, len(images))
