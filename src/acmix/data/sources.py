"""The interface between data and training: labelled images, read one by one, wherever they lie."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from PIL import Image
from torch.utils.data import Dataset

from acmix.data.images import decode_image


@dataclass(frozen=True)
class EncodedImage:
    """An image as it is stored.

    Attributes:
        content: The bytes of the image file.
        suffix: Of the file's name, lower case with its dot; empty where the image has no name.
        label: Index into the source's classes.
    """

    content: bytes
    suffix: str
    label: int


class ImageSource(Dataset[tuple[Any, int]], ABC):
    """Labelled images with an exact count; every one can be read at any time.

    A source can be pickled and forked; files are opened when they are needed, in each process by itself. Item i is
    `(transform(RGB image), label)`.

    Attributes:
        classes: Class names in the order of the labels.
        shard_lengths: Images of each shard, which lie together in the order of indices and are best read together;
            None where any image costs the same as any other.
        transform: Applied to the RGB image by indexing; None leaves the PIL image.
    """

    classes: tuple[str, ...]
    shard_lengths: tuple[int, ...] | None = None
    transform: Callable[[Image.Image], Any] | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Count the images."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What a person would look up: unique in the source, the same every time.

        Raises:
            InputError: If the file that holds the name cannot be read.
        """

    @abstractmethod
    def encoded(self, index: int) -> EncodedImage:
        """The image as it is stored, without decoding it.

        Raises:
            InputError: If it cannot be read; names the image or the file that holds it.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of what is cheap to know of all images: equal for unchanged data, wherever it lies."""

    def read(self, index: int) -> tuple[Image.Image, int]:
        """One image as 8-bit RGB (see `acmix.data.read_image`), and its label.

        Raises:
            InputError: If it cannot be read or decoded; names the image or the file that holds it.
        """
        stored = self.encoded(index)
        return decode_image(stored.content, self.name(index)), stored.label

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Read and transform one image."""
        image, label = self.read(index)
        return (image if self.transform is None else self.transform(image)), label

    def with_transform(self, transform: Callable[[Image.Image], Any]) -> Self:
        """Return the same images under another transform."""
        twin = copy.copy(self)
        twin.transform = transform
        return twin
