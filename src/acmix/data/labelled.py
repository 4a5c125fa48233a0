"""Images in class folders or in memory."""

import hashlib
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

from PIL import Image

from acmix.data.folders import class_files
from acmix.data.images import encode_png, file_size, read_bytes, read_image
from acmix.data.labels import Label, LabelSets, relabelled_all, taken
from acmix.data.names import Files, Names
from acmix.data.sources import EncodedImage, SplittableImages, class_name, label_map
from acmix.errors import InputError, few, printable


class LabelledImages(SplittableImages):
    """Images in files or in memory.

    Args:
        names: What to call each image, unique, stable and printable: a path relative to its data folder.
        images: Files, or images already in memory.
        labels: Index into classes, one an image; sets of them for multi-label images.
        classes: Class names in the order of the labels.
        transform: Applied to the RGB image by indexing; None leaves the PIL image.
    """

    checked = True

    def __init__(
        self,
        names: Sequence[str],
        images: Sequence[Path | Image.Image] | Files,
        labels: Iterable[int] | LabelSets,
        classes: Sequence[str],
        transform: Callable[[Image.Image], Any] | None = None,
    ) -> None:
        self.names = names if isinstance(names, Names) else Names(names)
        self.images = images if isinstance(images, Files) else _kept(images)
        self.labels = labels if isinstance(labels, LabelSets) else array("i", labels)
        self.multi_label = isinstance(labels, LabelSets)
        self.classes, self.transform = tuple(classes), transform

    def __len__(self) -> int:
        """Count the images."""
        return len(self.images)

    def name(self, index: int) -> str:
        """The image's path relative to its data folder."""
        return self.names[index]

    def place(self, index: int) -> str:
        """The image's file."""
        image = self.images[index]
        return str(image) if isinstance(image, Path) else self.names[index]

    def files(self) -> Sequence[int]:
        """The indices of the images that are files."""
        if isinstance(self.images, Files):
            return range(len(self))
        return [index for index, image in enumerate(self.images) if isinstance(image, Path)]

    def encoded(self, index: int) -> EncodedImage:
        """The bytes of the image's file; an image in memory becomes a PNG file.

        Raises:
            InputError: If the file cannot be read.
        """
        image, label = self.images[index], self.labels[index]
        if isinstance(image, Path):
            return EncodedImage(read_bytes(image), image.suffix.lower(), label)
        return EncodedImage(encode_png(image), ".png", label)

    def read(self, index: int) -> tuple[Image.Image, Label]:
        """One image as 8-bit RGB, and its label or labels.

        Raises:
            InputError: If the file cannot be read or decoded.
        """
        image = self.images[index]
        return (read_image(image) if isinstance(image, Path) else image), self.labels[index]

    def subset(self, indices: Sequence[int]) -> Self:
        """Return the images at these indices, in this order."""
        twin = copy(self)
        twin.names = self.names.take(indices)
        twin.images = self.images.take(indices) if isinstance(self.images, Files) else [self.images[i] for i in indices]
        twin.labels = taken(self.labels, indices)
        return twin

    def with_classes(self, classes: tuple[str, ...]) -> Self:
        """Return the same images, labelled in the order of other classes.

        Raises:
            InputError: If a class of these images is not among them.
        """
        twin, places = copy(self), label_map(self.classes, classes)
        twin.classes = classes
        twin.labels = relabelled_all(self.labels, places)
        return twin

    def fingerprint(self) -> str:
        """SHA-256 of all names with their file sizes: equal for an unchanged folder, wherever it lies."""
        sizes = [file_size(image) if isinstance(image, Path) else 0 for image in self.images]
        lines = sorted(f"{name}\t{size}" for name, size in zip(self.names, sizes, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def open_folder(root: Path, *, held_out: bool = False) -> LabelledImages:
    """Open one folder of class folders.

    Hidden files and folders, files that are no images by their names, and links that lead nowhere or in a circle are
    left out and counted. Class names are in Unicode's composed form (NFC) and printable.

    Args:
        root: The folder.
        held_out: Images that are not learned from: classes may be missing or their folders empty.

    Raises:
        InputError: If there are no images; if two class folders have one name in two Unicode forms; or, unless held
            out, if there are fewer than two class folders or some hold no image.
    """
    found, left_out = class_files(root)
    if not found:
        raise InputError(f"{root} holds no class folders; expected one sub-folder of images a class")
    empty = [folder for folder, files in found.items() if not files]
    if len(empty) == len(found):
        raise InputError(f"{root} holds no images: its class folders are empty ({', '.join(empty)})")
    if empty and not held_out:
        raise InputError(f"{root} has class folders without images: {', '.join(empty)}; fill or remove them")
    if len(found) < 2 and not held_out:
        raise InputError(f"{root} holds one class, {next(iter(found))!r}; at least two are needed{_hint(root, found)}")
    folders = {folder: class_name(folder) for folder, files in found.items() if files}
    classes = sorted(set(folders.values()))
    if len(classes) < len(folders):
        twice = [ascii(folder) for folder, name in folders.items() if list(folders.values()).count(name) > 1]
        raise InputError(
            f"{root} has class folders of one name in several Unicode forms: {', '.join(twice)}; join them"
        )
    label = {name: index for index, name in enumerate(classes)}
    files = Names(file for folder in folders for file in found[folder])
    shown = Names(map(printable, files)) if any(printable(file) != file for file in files) else files
    labels = (label[name] for folder, name in folders.items() for _ in range(len(found[folder])))
    images = LabelledImages(shown, Files(root, files), labels, classes)
    images.left_out = left_out
    return images


def _kept(images: Sequence[Path | Image.Image]) -> Files | list[Path | Image.Image]:
    paths = [str(image) for image in images if isinstance(image, Path)]
    return Files(Path(), Names(paths)) if len(paths) == len(images) else list(images)


def _hint(root: Path, found: Mapping[str, Names]) -> str:
    """Where classes may be, if they are a folder deeper."""
    ((folder, files),) = found.items()
    inner = {Path(file).parts[1] for file in files if len(Path(file).parts) > 2}
    return f"; if they are {few(sorted(inner))}, give {root / folder}" if len(inner) > 1 else ""
