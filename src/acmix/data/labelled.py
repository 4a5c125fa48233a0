"""Images in class folders or in memory."""

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torchvision.datasets import ImageFolder

from acmix.data.images import read_bytes, read_image
from acmix.data.sources import EncodedImage, SplittableImages, label_map
from acmix.errors import InputError


class LabelledImages(SplittableImages):
    """Images in files or in memory, with their labels in lists.

    Args:
        names: What to call each image, unique and stable: a path relative to its data folder.
        images: Files, or images already in memory.
        labels: Index into classes, one an image.
        classes: Class names in the order of the labels.
        transform: Applied to the RGB image by indexing; None leaves the PIL image.
    """

    def __init__(
        self,
        names: Sequence[str],
        images: Sequence[Path | Image.Image],
        labels: Sequence[int],
        classes: Sequence[str],
        transform: Callable[[Image.Image], Any] | None = None,
    ) -> None:
        self.names, self.images, self.labels = list(names), list(images), list(labels)
        self.classes, self.transform = tuple(classes), transform

    def __len__(self) -> int:
        """Count the images."""
        return len(self.images)

    def name(self, index: int) -> str:
        """The image's path relative to its data folder."""
        return self.names[index]

    def encoded(self, index: int) -> EncodedImage:
        """The bytes of the image's file; an image in memory becomes a PNG file.

        Raises:
            InputError: If the file cannot be read.
        """
        image, label = self.images[index], self.labels[index]
        if isinstance(image, Path):
            return EncodedImage(read_bytes(image), image.suffix.lower(), label)
        file = io.BytesIO()
        image.save(file, "PNG")
        return EncodedImage(file.getvalue(), ".png", label)

    def read(self, index: int) -> tuple[Image.Image, int]:
        """One image as 8-bit RGB, and its label.

        Raises:
            InputError: If the file cannot be read or decoded.
        """
        image = self.images[index]
        return (read_image(image) if isinstance(image, Path) else image), self.labels[index]

    def subset(self, indices: Sequence[int]) -> "LabelledImages":
        """Return the images at these indices, in this order."""
        return LabelledImages(
            [self.names[i] for i in indices],
            [self.images[i] for i in indices],
            [self.labels[i] for i in indices],
            self.classes,
            self.transform,
        )

    def with_classes(self, classes: tuple[str, ...]) -> "LabelledImages":
        """Return the same images, labelled in the order of other classes.

        Raises:
            InputError: If a class of these images is not among them.
        """
        labels = label_map(self.classes, classes)
        return LabelledImages(
            self.names, self.images, [labels[label] for label in self.labels], classes, self.transform
        )

    def fingerprint(self) -> str:
        """SHA-256 of all names with their file sizes: equal for an unchanged folder, wherever it lies."""
        sizes = [image.stat().st_size if isinstance(image, Path) else 0 for image in self.images]
        lines = sorted(f"{name}\t{size}" for name, size in zip(self.names, sizes, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class _ClassFolders(ImageFolder):
    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Sorted names of the sub-folders, hidden ones left out."""
        names = sorted(
            entry.name for entry in Path(directory).iterdir() if entry.is_dir() and not entry.name.startswith(".")
        )
        if not names:
            raise InputError(f"{directory} holds no class folders; expected one sub-folder of images a class")
        return names, {name: label for label, name in enumerate(names)}


def open_folder(root: Path) -> LabelledImages:
    """Open one folder of class folders.

    Raises:
        InputError: If there are fewer than two class folders, or some hold no image.
    """
    folder = _ClassFolders(root, allow_empty=True)
    paths = [Path(path) for path, _ in folder.samples]
    labels = [label for _, label in folder.samples]
    if empty := [name for label, name in enumerate(folder.classes) if label not in set(labels)]:
        raise InputError(f"{root} has class folders without images: {', '.join(empty)}; fill or remove them")
    if len(folder.classes) < 2:
        raise InputError(f"{root} holds one class, {folder.classes[0]!r}; at least two are needed")
    return LabelledImages([path.relative_to(root).as_posix() for path in paths], paths, labels, folder.classes)
