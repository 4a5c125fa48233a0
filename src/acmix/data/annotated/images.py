"""Images with the objects in them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from acmix.data.annotated.objects import Annotations, Objects
from acmix.data.folders import LeftOut
from acmix.data.images import ImageFacts, check_image, file_size, read_bytes, read_image, size_of
from acmix.data.names import Files, Names
from acmix.data.sources import NamedImages, hashed_order, label_map
from acmix.data.splitting import check_count, check_fraction, held_out
from acmix.errors import InputError


class AnnotatedImages(NamedImages, Dataset[tuple[Image.Image, Annotations]]):
    """Image files with boxes, and segments where every object has one.

    A source can be pickled and forked; files are opened when they are needed, in each process by itself. Item i is
    `read(i)`.

    Args:
        files: The images.
        names: What to call each, unique and printable.
        sizes: Height and width in pixels of each as it is read, `(N, 2)`.
        image_ids: What COCO's results call each.
        objects: Of all images.
        classes: Class names in the order of the labels.
        category_ids: What COCO's results call each class.
        left_out: What lies there and is no data.

    Attributes:
        sizes: As given; batches of like shapes are made by it.
        image_ids: As given.
        category_ids: As given.
        has_masks: Whether every object has a segment.
    """

    checked = True

    def __init__(
        self,
        files: Files,
        names: Sequence[str],
        *,
        sizes: NDArray[np.int64],
        image_ids: Sequence[int],
        objects: Objects,
        classes: Sequence[str],
        category_ids: Sequence[int],
        left_out: LeftOut,
    ) -> None:
        self.images, self.names = files, names if isinstance(names, Names) else Names(names)
        self.sizes, self.image_ids = sizes, np.asarray(image_ids, np.int64)
        self.objects, self.left_out = objects, left_out
        self.classes, self.category_ids = tuple(classes), tuple(category_ids)
        self.has_masks = bool(len(objects.labels)) and bool(objects.segmented.all())

    def __len__(self) -> int:
        """Count the images."""
        return len(self.names)

    def name(self, index: int) -> str:
        """The image's path relative to its data folder."""
        return self.names[index]

    def place(self, index: int) -> str:
        """The image's file."""
        return str(self.images[index])

    def files(self) -> Sequence[int]:
        """The indices of all images."""
        return range(len(self))

    def content(self, index: int) -> bytes:
        """The bytes of the image's file.

        Raises:
            InputError: If the file cannot be read.
        """
        return read_bytes(self.images[index])

    def check(self, index: int, content: bytes) -> ImageFacts:
        """Decode an image once and compare its size with that which the annotations count in.

        Raises:
            InputError: If `read` would raise it.
        """
        facts = check_image(content, self.place(index))
        self._check_size(index, facts.size)
        return facts

    def annotations(self, index: int) -> Annotations:
        """The objects of one image."""
        return self.objects.annotations(index, masks=self.has_masks)

    def read(self, index: int) -> tuple[Image.Image, Annotations]:
        """One image as 8-bit RGB (see `acmix.data.read_image`), and its objects.

        Raises:
            InputError: If it cannot be read or decoded, or has not the size that its annotations count in.
        """
        image = read_image(self.images[index])
        self._check_size(index, image.size)
        return image, self.annotations(index)

    def __getitem__(self, index: int) -> tuple[Image.Image, Annotations]:
        """Read one image."""
        return self.read(index)

    def _check_size(self, index: int, size: tuple[int, int]) -> None:
        height, width = self.sizes[index]
        if size != (width, height):
            raise InputError(
                f"{self.place(index)}: has {size[0]} x {size[1]} pixels as it is shown, its annotations count in "
                f"{width} x {height}; give it those that belong to it (EXIF's orientation is applied)"
            )

    def subset(self, indices: Sequence[int]) -> Self:
        """Return the images at these indices, in this order."""
        chosen = np.asarray(indices, np.int64)
        return self._with(
            files=self.images.take(indices),
            names=self.names.take(indices),
            sizes=self.sizes[chosen],
            image_ids=self.image_ids[chosen],
            objects=self.objects.take(chosen),
        )

    def choose(self, indices: Sequence[int]) -> Self:
        """Return the images at these indices, in this order."""
        return self.subset(indices)

    def with_classes(self, classes: Sequence[str]) -> Self:
        """Return the same images, labelled in the order of other classes; of those that are new here ids are made up.

        Raises:
            InputError: If a class of these images is not among them.
        """
        if tuple(classes) == self.classes:
            return self
        labels = np.asarray(label_map(self.classes, classes), np.int64)
        known = dict(zip(labels.tolist(), self.category_ids, strict=True))
        free = max(self.category_ids, default=0) + 1
        return self._with(
            classes=classes,
            category_ids=[known.get(label, free + label) for label in range(len(classes))],
            objects=self.objects.relabelled(labels),
        )

    def _with(self, **changes: Any) -> Self:
        kept = ("names", "sizes", "image_ids", "objects", "classes", "category_ids", "left_out")
        arguments: dict[str, Any] = {"files": self.images} | {name: getattr(self, name) for name in kept} | changes
        return type(self)(**arguments)

    def split(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """Split into training and validation images, so that every class is on both sides where it can be.

        The order is that of a hash of seed and name, so the split depends on names and labels alone.

        Args:
            fraction: Share of the images for validation, between 0 and 1; at least one image stays on each side.
            seed: Another seed, another split.

        Raises:
            InputError: If the fraction is out of range or there are fewer than two images.
        """
        check_fraction(fraction)
        check_count(len(self))
        shown = [np.unique(self.objects.labels[self.objects.of(index)]).tolist() for index in range(len(self))]
        chosen = held_out(hashed_order(self, seed), shown, fraction)
        return self.subset(np.flatnonzero(~chosen).tolist()), self.subset(np.flatnonzero(chosen).tolist())

    def fingerprint(self) -> str:
        """SHA-256 of all names with their file sizes and of all objects: equal for unchanged data, wherever it lies."""
        order = np.argsort(np.array(list(self.names), object), kind="stable")
        lines = (f"{self.names[index]}\t{file_size(self.images[index])}\n" for index in order)
        return hashlib.sha256("".join(lines).encode() + self.objects.take(order).digest()).hexdigest()


def size_if_readable(file: Path) -> tuple[int, int]:
    """Height and width of an image file; 1, 1 where it cannot be read, which whoever reads it is told."""
    try:
        return size_of(file)
    except InputError:
        return 1, 1
