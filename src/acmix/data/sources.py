"""The interface between data and training: labelled images, read one by one, wherever they lie."""

import copy
import hashlib
import unicodedata
from abc import ABC, abstractmethod
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from acmix.data.folders import LeftOut
from acmix.data.images import ImageFacts, check_image, decode_image, read_image
from acmix.data.labels import Label, labels_of, relabelled, target_of
from acmix.data.splitting import check_count, check_fraction, held_out
from acmix.errors import InputError, printable

# Images whose bytes may be in memory at once.
_BATCH = 256
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class EncodedImage:
    """An image as it is stored.

    Attributes:
        content: The bytes of the image file.
        suffix: Of the file's name, lower case with its dot; empty where the image has no name.
        label: Index into the source's classes, or indices where it is multi_label.
    """

    content: bytes
    suffix: str
    label: Label


class NamedImages(ABC):
    """Images with an exact count and a name each, whatever is known of what they show; every one can be read any time.

    A source can be pickled and forked; files are opened when they are needed, in each process by itself.

    Attributes:
        classes: Class names in the order of the labels.
        left_out: What lies beside the images and is no data, where it was counted.
        checked: Whether every image is read before training. Shards and saved datasets are larger: `check_data` reads
            them.
    """

    classes: tuple[str, ...]
    left_out = LeftOut()
    checked = False

    @abstractmethod
    def __len__(self) -> int:
        """Count the images."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What a person would look up: unique in the source, the same every time.

        Raises:
            InputError: If the file that holds the name cannot be read.
        """

    def place(self, index: int) -> str:
        """Where a person finds the image, for errors: its file, or its name."""
        return self.name(index)

    def files(self) -> Sequence[int]:
        """The indices of the images that are files of their own."""
        return ()

    @abstractmethod
    def content(self, index: int) -> bytes:
        """The bytes of the image's file.

        Raises:
            InputError: If it cannot be read; names the image or the file that holds it.
        """

    def mask(self, index: int) -> bytes:  # noqa: ARG002
        """The bytes of the file that tells of an image's pixels; none where there is no such file.

        Raises:
            InputError: If it cannot be read.
        """
        return b""

    def check(self, index: int, content: bytes) -> ImageFacts:
        """Decode an image once.

        Args:
            index: Of the image.
            content: Its bytes, of `content`.

        Raises:
            InputError: If `read` would raise it.
        """
        return check_image(content, self.place(index))

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of what is cheap to know of all images: equal for unchanged data, wherever it lies."""

    @abstractmethod
    def choose(self, indices: Sequence[int]) -> "NamedImages":
        """Return the images at these indices, in this order."""

    @abstractmethod
    def with_classes(self, classes: tuple[str, ...]) -> "NamedImages":
        """Return the same images, labelled in the order of other classes.

        Raises:
            InputError: If a class of this source is not among them.
        """


@runtime_checkable
class Splittable(Protocol):
    """Images of which some can be held out."""

    def split(self, fraction: float, seed: int) -> tuple[Any, Any]:
        """Split into training and validation images, by seed and names."""
        ...


class ImageSource(NamedImages, Dataset[tuple[Any, Any]]):
    """Labelled images: item i is `(transform(RGB image), target)`.

    The target is the label; of multi-label images it is `(classes,)` in float32, 1 for each label and otherwise 0.

    Attributes:
        multi_label: Whether images have any number of labels, none among them, in place of one.
        reading: How labels were read, for a person, where that is to be said.
        shard_lengths: Images of each shard, which lie together in the order of indices and are best read together;
            None where any image costs the same as any other.
        transform: Applied to the RGB image by indexing; None leaves the PIL image.
    """

    multi_label = False
    reading = ""
    shard_lengths: tuple[int, ...] | None = None
    transform: Callable[[Image.Image], Any] | None = None

    @abstractmethod
    def encoded(self, index: int) -> EncodedImage:
        """The image as it is stored, without decoding it.

        Raises:
            InputError: If it cannot be read; names the image or the file that holds it.
        """

    def content(self, index: int) -> bytes:
        """The bytes of the image's file.

        Raises:
            InputError: If it cannot be read; names the image or the file that holds it.
        """
        return self.encoded(index).content

    def read(self, index: int) -> tuple[Image.Image, Label]:
        """One image as 8-bit RGB (see `acmix.data.read_image`), and its label or labels.

        Raises:
            InputError: If it cannot be read or decoded; names the image or the file that holds it.
        """
        stored = self.encoded(index)
        return decode_image(stored.content, self.name(index)), stored.label

    def prefetch(self, shard: int) -> None:
        """Begin to bring a shard near, in the background, for any process of this machine.

        A sampler that knows which shard comes next calls it, so that nothing waits for the network. What fails shows
        when an image is read. Sources that lie on this machine do nothing.

        Args:
            shard: Index into shard_lengths.
        """

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Read and transform one image."""
        image, label = self.read(index)
        return (image if self.transform is None else self.transform(image)), target_of(label, len(self.classes))

    def with_transform(self, transform: Callable[[Image.Image], Any]) -> Self:
        """Return the same images under another transform."""
        twin = copy.copy(self)
        twin.transform = transform
        return twin

    def choose(self, indices: Sequence[int]) -> "ImageSource":
        """Return the images at these indices, in this order."""
        return _Chosen(self, indices)

    def with_classes(self, classes: tuple[str, ...]) -> "ImageSource":
        """Return the same images, labelled in the order of other classes.

        Raises:
            InputError: If a class of this source is not among them.
        """
        return self if classes == self.classes else _Relabelled(self, classes)


def class_name(name: str) -> str:
    """The name of a class as all sources and files of one class have it: in Unicode's composed form (NFC), printable.

    Systems write one name in several forms: `é` is one letter, or an `e` and an accent that follows.
    """
    return unicodedata.normalize("NFC", printable(name))


def unknown_classes(classes: Sequence[str], others: Sequence[str]) -> list[str]:
    """Those of the classes that are not among the others, sorted."""
    known = {class_name(name) for name in others}
    return sorted(name for name in classes if class_name(name) not in known)


def check_known(classes: Sequence[str], known: Sequence[str], words: str) -> None:
    """Raise InputError unless the classes of a part, which words name, are among those of the training images."""
    if unknown := unknown_classes(classes, known):
        raise InputError(
            f"{words} has classes that the training images have not: {', '.join(unknown)}; rename or remove them"
        )


def label_map(classes: Sequence[str], others: Sequence[str]) -> list[int]:
    """The label in other classes, by the label in classes.

    Raises:
        InputError: If some of the classes are not among the others, or two of them have one name.
    """
    position = {class_name(name): label for label, name in enumerate(others)}
    for names in (classes, others):
        if len({class_name(name) for name in names}) < len(names):
            raise InputError(f"two classes have one name in different Unicode forms: {', '.join(map(ascii, names))}")
    if unknown := unknown_classes(classes, others):
        raise InputError(f"unknown classes: {', '.join(unknown)}; known are {', '.join(others)}")
    return [position[class_name(name)] for name in classes]


class _Chosen(ImageSource):
    """Some of the images of a source."""

    def __init__(self, source: ImageSource, indices: Sequence[int]) -> None:
        self.source, self.indices = source, array("q", indices)
        self.classes, self.transform = source.classes, source.transform
        self.multi_label = source.multi_label

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.source.name(self.indices[index])

    def place(self, index: int) -> str:
        return self.source.place(self.indices[index])

    def encoded(self, index: int) -> EncodedImage:
        return self.source.encoded(self.indices[index])

    def read(self, index: int) -> tuple[Image.Image, Label]:
        return self.source.read(self.indices[index])

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.source.fingerprint()}{self.indices.tolist()}".encode()).hexdigest()


class _Relabelled(ImageSource):
    """A source under another list of classes."""

    def __init__(self, source: ImageSource, classes: tuple[str, ...]) -> None:
        self.source, self.classes, self.labels = source, classes, label_map(source.classes, classes)
        self.shard_lengths, self.transform = source.shard_lengths, source.transform
        self.multi_label = source.multi_label

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def encoded(self, index: int) -> EncodedImage:
        stored = self.source.encoded(index)
        return replace(stored, label=relabelled(stored.label, self.labels))

    def fingerprint(self) -> str:
        return self.source.fingerprint()

    def prefetch(self, shard: int) -> None:
        self.source.prefetch(shard)


class SplittableImages(ImageSource):
    """Images whose labels are known without reading them, so that some can be held out class by class.

    Attributes:
        labels: Index into classes, or indices where images are multi_label, one entry an image.
    """

    labels: Sequence[Label]

    @abstractmethod
    def subset(self, indices: Sequence[int]) -> Self:
        """Return the images at these indices, in this order."""

    def split(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """Split into training and validation images, class by class; multi-label images as `held_out` deals them.

        The order is that of a hash of seed and name, so the split depends on the names alone: not on the order of
        the files, the platform or a library's random generator.

        Args:
            fraction: Share of each class for validation, between 0 and 1; at least one image stays on each side.
            seed: Another seed, another split.

        Raises:
            InputError: If the fraction is out of range, there are fewer than two images, or a class has fewer where
                images have one label.
        """
        check_fraction(fraction)
        if self.multi_label:
            return self._split_sets(fraction, seed)
        labels = [label for each in self.labels for label in labels_of(each)]
        counts = Counter(labels)
        if small := [name for label, name in enumerate(self.classes) if counts[label] < 2]:
            raise InputError(f"too few images to split: classes with fewer than 2 images: {', '.join(small)}")
        members: list[list[int]] = [[] for _ in self.classes]
        for index in hashed_order(self, seed):
            members[labels[index]].append(index)
        cuts = [min(len(group) - 1, max(1, round(len(group) * fraction))) for group in members]
        train = [i for group, cut in zip(members, cuts, strict=True) for i in group[cut:]]
        validation = [i for group, cut in zip(members, cuts, strict=True) for i in group[:cut]]
        return self.subset(sorted(train)), self.subset(sorted(validation))

    def _split_sets(self, fraction: float, seed: int) -> tuple[Self, Self]:
        check_count(len(self))
        chosen = held_out(hashed_order(self, seed), [labels_of(label) for label in self.labels], fraction)
        return self.subset(np.flatnonzero(~chosen).tolist()), self.subset(np.flatnonzero(chosen).tolist())


def read_in_threads(read: Callable[[int], _Read], indices: Sequence[int]) -> Iterator[_Read]:
    """What a function makes of images, in the order of their indices, while few of their files are in memory."""
    with ThreadPoolExecutor() as pool:
        for begin in range(0, len(indices), _BATCH):
            yield from pool.map(read, indices[begin : begin + _BATCH])


def file_batches(
    files: Sequence[Path], transform: Callable[[Image.Image], _Read], faults: list[str], *, batch_size: int
) -> Iterator[list[tuple[int, _Read]]]:
    """What a transform makes of image files, each with its place among them, read in threads.

    Args:
        files: Image files.
        transform: Of an RGB image.
        faults: Gets one line for every file that cannot be read; the others go on.
        batch_size: Images at a time.
    """

    def read(index: int) -> tuple[int, _Read] | str:
        try:
            return index, transform(read_image(files[index]))
        except InputError as error:
            return str(error)

    def readable() -> Iterator[tuple[int, _Read]]:
        for found in read_in_threads(read, range(len(files))):
            if isinstance(found, str):
                faults.append(found)
            else:
                yield found

    images = readable()
    while batch := list(islice(images, batch_size)):
        yield batch


def hashed_order(images: NamedImages, seed: int) -> list[int]:
    """All indices in the order of SHA-256 of seed and name: the same shuffle with every version of everything."""
    # Names that are not UTF-8 have lone surrogates.
    texts = (f"{seed}/{images.name(index)}" for index in range(len(images)))
    digests = (hashlib.sha256(text.encode(errors="surrogatepass")).digest() for text in texts)
    return np.argsort(np.fromiter(digests, "S32", len(images)), kind="stable").tolist()
