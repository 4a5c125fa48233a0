"""Open what a person calls DATA: class folders on disk, or the bundled digits."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision.datasets import ImageFolder

from acmix.data.images import check_images as check_every_image
from acmix.data.images import read_bytes, read_image
from acmix.data.sources import EncodedImage, ImageSource
from acmix.errors import InputError

DIGITS = "digits"
_VALIDATION_NAMES = ("val", "validation", "test")


class LabelledImages(ImageSource):
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

    def fingerprint(self) -> str:
        """SHA-256 of all names with their file sizes: equal for an unchanged folder, wherever it lies."""
        sizes = [image.stat().st_size if isinstance(image, Path) else 0 for image in self.images]
        lines = sorted(f"{name}\t{size}" for name, size in zip(self.names, sizes, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def split(self, fraction: float, seed: int) -> tuple["LabelledImages", "LabelledImages"]:
        """Split into training and validation images, class by class.

        The order is that of a hash of seed and name, so the split depends on the names alone: not on the order of
        the files, the platform or a library's random generator.

        Args:
            fraction: Share of each class for validation, between 0 and 1; at least one image stays on each side.
            seed: Another seed, another split.

        Raises:
            InputError: If the fraction is out of range or a class has fewer than two images.
        """
        if not 0 < fraction < 1:
            raise InputError(f"val_fraction must lie between 0 and 1, got {fraction}")
        counts = Counter(self.labels)
        if small := [name for label, name in enumerate(self.classes) if counts[label] < 2]:
            raise InputError(f"too few images to split: classes with fewer than 2 images: {', '.join(small)}")
        members: list[list[int]] = [[] for _ in self.classes]
        order = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in self.names]
        for index in sorted(range(len(self)), key=order.__getitem__):
            members[self.labels[index]].append(index)
        cuts = [min(len(group) - 1, max(1, round(len(group) * fraction))) for group in members]
        train = [i for group, cut in zip(members, cuts, strict=True) for i in group[cut:]]
        validation = [i for group, cut in zip(members, cuts, strict=True) for i in group[:cut]]
        return self.subset(sorted(train)), self.subset(sorted(validation))


class Digits(LabelledImages):
    """The 1,797 handwritten digits of scikit-learn: 8x8 greys, 10 classes, as RGB images."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        values, labels = load_digits(return_X_y=True)
        pixels = (values.reshape(-1, 8, 8) * 255 / 16).round().astype(np.uint8)
        super().__init__(
            names=[f"{label}/{index:04d}.png" for index, label in enumerate(labels)],
            images=[Image.fromarray(image).convert("RGB") for image in pixels],
            labels=[int(label) for label in labels],
            classes=[str(digit) for digit in range(10)],
        )


@dataclass(frozen=True)
class ImageData:
    """Training and validation images with one list of classes.

    Attributes:
        location: `digits`, or the absolute path of the folder.
        train: Images to learn from, without a transform.
        validation: Images held out, without a transform.
        was_split: Whether validation was split off by seed, rather than being a folder of its own.
        fingerprint: Of all images before a split; of the training images otherwise.
    """

    location: str
    train: LabelledImages
    validation: LabelledImages
    was_split: bool
    fingerprint: str


def open_dataset(
    data: str, *, val_fraction: float = 0.2, seed: int = 0, check_images: bool = True, progress: bool = False
) -> ImageData:
    """Open training and validation images and check them before any work starts.

    Args:
        data: `digits`; a folder with train/ and val/ (or validation/, or test/), each holding class folders; or one
            folder of class folders, which is split.
        val_fraction: Share of each class held out where there is no validation folder, between 0 and 1.
        seed: Seed of that split.
        check_images: Decode every file once.
        progress: Show a progress bar on stderr while checking.

    Raises:
        InputError: If the path is missing or no folder, if there are no classes, empty classes, classes on one side
            only, too few images to split, or unreadable images.
    """
    if data == DIGITS:
        digits = Digits()
        return ImageData(DIGITS, *digits.split(val_fraction, seed), True, digits.fingerprint())
    root = existing_folder(data)
    if not (root / "train").is_dir():
        if found := validation_folder(root):
            raise InputError(f"{root} has {found.name}/ but no train/; add it, or give one folder of class folders")
        images = open_folder(root)
        train, validation = images.split(val_fraction, seed)
        opened = ImageData(str(root), train, validation, True, images.fingerprint())
    else:
        held_out = validation_folder(root)
        if held_out is None:
            raise InputError(
                f"{root} has train/ but none of val/, validation/, test/; add one, "
                f"or give {root / 'train'} to have it split"
            )
        train, validation = open_folder(root / "train"), open_folder(held_out)
        _check_same_classes(train, validation, held_out.name)
        opened = ImageData(str(root), train, validation, False, train.fingerprint())
    if check_images:
        check_every_image(
            [image for image in train.images + validation.images if isinstance(image, Path)], progress=progress
        )
    return opened


def existing_folder(data: str) -> Path:
    """The absolute path of an existing folder, or an InputError that says what is wrong."""
    root = Path(data).expanduser()
    if not root.exists():
        raise InputError(f"DATA {data!r} does not exist; give a folder of class folders, or digits")
    if not root.is_dir():
        raise InputError(f"DATA {data!r} is not a folder; give a folder of class folders, or digits")
    return root.resolve()


def validation_folder(root: Path) -> Path | None:
    """The folder of validation images in root: val/ or validation/, else test/; None where there is none."""
    found = [name for name in _VALIDATION_NAMES if (root / name).is_dir()]
    if {"val", "validation"} <= set(found):
        raise InputError(f"{root} has both val/ and validation/; keep one of them")
    return root / found[0] if found else None


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


def _check_same_classes(train: LabelledImages, validation: LabelledImages, name: str) -> None:
    faults = [
        f"only in {side}: {', '.join(sorted(extra))}"
        for side, extra in (
            ("train/", set(train.classes) - set(validation.classes)),
            (f"{name}/", set(validation.classes) - set(train.classes)),
        )
        if extra
    ]
    if faults:
        raise InputError(f"train/ and {name}/ must have the same classes; {'; '.join(faults)}")


def export_digits(folder: str | Path, *, count: int = 20, val_fraction: float = 0.2, seed: int = 0) -> list[Path]:
    """Write held-out digits as PNG files named `INDEX-is-LABEL.png`, the classes in turn.

    Args:
        folder: Where to write; made if missing.
        count: How many images.
        val_fraction: As in training, so that no written image was trained on.
        seed: As in training.

    Returns:
        The files written.

    Raises:
        InputError: If count is not between 1 and the number of held-out digits.
    """
    held_out = open_dataset(DIGITS, val_fraction=val_fraction, seed=seed).validation
    if not 1 <= count <= len(held_out):
        raise InputError(f"count must lie between 1 and {len(held_out)}, the held-out digits, got {count}")
    turns: Counter[int] = Counter()
    rank: list[tuple[int, int, int]] = []
    for index, label in enumerate(held_out.labels):
        rank.append((turns[label], label, index))
        turns[label] += 1
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for position, (_, label, index) in enumerate(sorted(rank)[:count]):
        image, _ = held_out[index]
        written.append(folder / f"{position:03d}-is-{label}.png")
        image.save(written[-1])
    return written
