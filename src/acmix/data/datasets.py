"""Open what a person calls DATA: class folders, webdataset shards, a saved dataset, IDX files, or bundled digits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from acmix.data.bundled import Digits
from acmix.data.finding import Found, Part, find
from acmix.data.folders import LeftOut
from acmix.data.labelled import open_folder
from acmix.data.labels import labels_of
from acmix.data.shards import open_shards
from acmix.data.shards.urls import Listing
from acmix.data.sources import ImageSource, NamedImages, SplittableImages, unknown_classes
from acmix.data.tables import TabledImages, TableFile, open_tables, unnamed_images
from acmix.data.trained import check_apart, examine, refuse_unreadable
from acmix.errors import InputError, counted, few
from acmix.progress import Progress, silent

Images = TypeVar("Images", bound=NamedImages)


@dataclass(frozen=True)
class OpenedData(Generic[Images]):
    """Training and validation images with one list of classes.

    Attributes:
        location: What DATA names, see `acmix.data.finding.Found`.
        train: Images to learn from, without a transform.
        validation: Images held out, without a transform.
        was_split: Whether validation was split off by seed, rather than having a place of its own.
        fingerprint: Of all images before a split; of the training images otherwise.
        validation_location: As location, where the validation images are not part of that data.
        validation_fingerprint: Of the validation images, where they were not split off.
        measured: What the validation images are, in words.
        taken: What was taken for what, in words: "training", "validation", and "left aside", "left out" where
            something was.
    """

    location: str
    train: Images
    validation: Images
    was_split: bool
    fingerprint: str
    validation_location: str | None = None
    validation_fingerprint: str | None = None
    measured: str = ""
    taken: dict[str, str] = field(default_factory=dict)


class ImageData(OpenedData[ImageSource]):
    """Training and validation images of classes: opened class folders, shards, saved datasets, IDX files or digits."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What DATA holds, before anything is split.

    Attributes:
        location: As in `ImageData`.
        train: The training images, or all there are.
        learned: What they are, in words.
        validation: Images that have a place of their own, with the classes of train; None where there are none.
        measured: What they are, in words; empty where there are none.
        validation_location: As location, where the validation images are not part of that data.
        test: Images that are neither learned from nor chosen on; None where there are none, or none were asked for.
        left_aside: What test images lie there, in words; empty where there are none.
        left_out: What lies there and is no data.
    """

    location: str
    train: ImageSource
    learned: str
    validation: ImageSource | None
    measured: str
    validation_location: str | None
    test: ImageSource | None
    left_aside: str
    left_out: LeftOut


def open_dataset(
    data: str,
    *,
    validation: str | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    multi_label: bool = False,
    check_images: bool = True,
    progress: Progress = silent,
) -> ImageData:
    """Open training and validation images and check them before any work starts.

    Test images are neither trained on nor chosen on: where data has train/ and test/ but no val/, validation images are
    split off train/. Names of splits are those of `acmix.data.folders.part_of`, `Training` and `valid` among them.

    Args:
        data: `digits` or `mnist5k`; a folder with train/ and val/, or train/ and test/, each of class folders or
            webdataset shards; one folder of class folders, which is split; a folder or URL of shards with timm's
            `_info.json` or named by their split; a pattern of shards as in `s3://bucket/train-{000..127}.tar`, see
            `acmix.data.shards.urls.expand`; a folder of IDX files, see `acmix.data.idx.open_idx`; one written by
            `save_to_disk` of Hugging Face's datasets; or a CSV file of image names and labels, or a folder with
            labels.csv, or with train.csv and val.csv, see `acmix.data.tables`. Where the table that is trained on gives
            an image several labels, or none, all images are multi-label.
        validation: Validation images, any of these, in place of those in data; shards without any need it.
        val_fraction: Share of each class held out where there are no validation images, between 0 and 1.
        seed: Seed of that split.
        multi_label: Images of tables have any number of labels even where none has several.
        check_images: Decode every file of class folders once. Shards and saved datasets are larger: `check_data`
            reads them.
        progress: Shows how far it is while checking, and while counting the images of shards.

    Raises:
        InputError: If the path is missing or holds no images, if there are no classes, empty class folders, classes
            in validation alone, too few images to split, no validation images, unreadable files, two folders of one
            split, or folders that may be splits or classes; if multi_label is asked of anything but a table.
    """
    parts = open_parts(data, validation=validation, multi_label=multi_label, progress=progress)
    train, held_out = parts.train, parts.validation
    was_split = held_out is None
    fingerprint = train.fingerprint()
    if held_out is None:
        if not isinstance(train, SplittableImages):
            raise InputError(
                f"{data} has no validation images, and shards are not split; give validation (--validation), "
                "the pattern or folder of the validation images"
            )
        train, held_out = train.split(val_fraction, seed)
    if train.multi_label and not any(getattr(held_out, "labels", ())):
        raise InputError(
            f"no image of {parts.measured or held_out_of(parts.learned)} has a label, so nothing is measured on them"
        )
    check_apart(train, held_out)
    if check_images:
        check_files(train, held_out, progress=progress)
    return ImageData(
        location=parts.location,
        train=train,
        validation=held_out,
        was_split=was_split,
        fingerprint=fingerprint,
        validation_location=parts.validation_location,
        validation_fingerprint=None if was_split else held_out.fingerprint(),
        measured=held_out_of(parts.learned) if was_split else parts.measured,
        taken=_taken(parts, train, held_out, f"{val_fraction:.3g} of each class by seed {seed}"),
    )


def _taken(parts: Parts, train: ImageSource, held_out: ImageSource, split: str) -> dict[str, str]:
    """See `ImageData`; split says how images were held out where none had a place of their own."""
    classes = f"{counted(len(train.classes), 'class')} ({few(train.classes)})"
    read = f", {train.reading}" if train.reading else ""
    several = ", any number an image" if train.multi_label else ""
    taken = {"training": f"{parts.learned}: {counted(len(train), 'image')} of {classes}{several}{read}"}
    if parts.validation is None:
        taken["validation"] = f"{held_out_of(parts.learned)}: {counted(len(held_out), 'image')}, {split}"
    else:
        taken["validation"] = f"{parts.measured}: {counted(len(held_out), 'image')}"
    for images, part in ((train, "training"), (held_out, "validation")):
        if missing := _without_images(images):
            taken[part] += f", none of {counted(len(missing), 'class')} ({few(missing)})"
    if parts.left_aside:
        taken["left aside"] = parts.left_aside
    if parts.left_out.counts:
        taken["left out"] = str(parts.left_out)
    return taken


def held_out_of(name: str) -> str:
    """What was split off for validation, in words."""
    return f"the images of {name} that training held out"


def _without_images(images: ImageSource) -> list[str]:
    """The classes without images, where that is known without reading them."""
    if not isinstance(images, SplittableImages):
        return []
    present = {each for label in images.labels for each in labels_of(label)}
    return [name for label, name in enumerate(images.classes) if label not in present]


def open_parts(
    data: str,
    *,
    validation: str | None = None,
    test: bool = False,
    multi_label: bool = False,
    progress: Progress = silent,
) -> Parts:
    """Open images without splitting or checking them.

    Args:
        data: As in `open_dataset`.
        validation: As in `open_dataset`.
        test: Open the test images, too.
        multi_label: As in `open_dataset`.
        progress: Shows how far it is while counting the images of shards.

    Raises:
        InputError: As in `open_dataset`.
    """
    found = find(data)
    learned = found.train or found.whole
    if learned is None:
        names = " and ".join(f"{name}/" for name in found.names)
        raise InputError(f"{found.location} has {names} but no train/; add it, or give one folder of class folders")
    elsewhere = None if validation is None else find(validation)
    # Images of other data have no name in this.
    measured = found.validation if elsewhere is None else replace(elsewhere.held_out(), name="")
    if measured is None:
        _check_that_train_is_all(found)
    asked = found.test if test else None
    opened = open_together(
        [part for part in (learned, measured, asked) if part],
        train=learned,
        multi_label=multi_label or None,
        progress=progress,
    )
    if multi_label and not opened[learned].multi_label:
        raise InputError(
            f"multi_label is of tables of names and labels, and {learned.words} gives every image one class; leave it "
            "out, or write such a table"
        )
    left_out = LeftOut()
    left_out.join(found.left_out)
    for part, images in opened.items():
        left_out.join(images.left_out, part.name)
    aside = found.test or found.unlabelled
    if not aside or asked:
        # Else images of that table would count as nobody's.
        left_out.join(unnamed_images([images for images in opened.values() if isinstance(images, TabledImages)]))
    return Parts(
        location=found.location,
        train=opened[learned],
        learned=learned.words,
        validation=_aligned(opened, measured, learned, "validation"),
        measured=measured.words if measured else "",
        validation_location=elsewhere.location if elsewhere else None,
        test=_aligned(opened, asked, learned, "test"),
        left_aside=f"{aside.words}, test images: not trained on, not chosen on" if aside else "",
        left_out=left_out,
    )


def _check_that_train_is_all(found: Found) -> None:
    """Refuse data without validation images where some may have been meant."""
    if found.train is not None and len(found.names) == 1 and isinstance(found.train.content, Path):
        raise InputError(
            f"{found.location} has {found.train.name}/ but none of val/, validation/, test/; add one, "
            f"or give {found.train.content} to have it split"
        )
    if found.others:
        raise InputError(
            f"{found.location} has the parts {', '.join(found.names)}, none of them called val or validation; "
            f"rename {' or '.join(sorted(part.name for part in found.others))}, or give validation (--validation)"
        )


def _aligned(opened: Mapping[Part, ImageSource], part: Part | None, learned: Part, split: str) -> ImageSource | None:
    """The images of a part, labelled in the order of the training images' classes."""
    if part is None:
        return None
    if opened[part].multi_label != opened[learned].multi_label:
        kinds = ("any number of labels", "one label")
        mine, theirs = kinds if opened[learned].multi_label else kinds[::-1]
        raise InputError(
            f"the training images have {mine} each, the {split} images ({part.words}) {theirs}; make them one kind"
        )
    classes, known = opened[part].classes, opened[learned].classes
    if unknown := unknown_classes(classes, known):
        missing, sides = unknown_classes(known, classes), ""
        if missing:
            mine, theirs = learned.name or "train", part.name or split
            sides = f" (only in {mine}/: {', '.join(missing)}; only in {theirs}/: {', '.join(unknown)})"
        raise InputError(
            f"the {split} images have classes that the training images have not: {', '.join(unknown)}{sides}; "
            "rename or remove them"
        )
    return opened[part].with_classes(known)


def open_together(
    parts: Sequence[Part],
    *,
    train: Part | None = None,
    classes: Sequence[str] | None = None,
    multi_label: bool | None = None,
    progress: Progress = silent,
) -> dict[Part, ImageSource]:
    """Open parts of one data set; those that are shards share their classes where these are not written beside them.

    Args:
        parts: Of `find`.
        train: The one among them that is trained on: its class folders must all hold images, and its table tells
            whether images have one label or any number.
        classes: That tables may name, where they are known beforehand.
        multi_label: Whether images of tables have any number of labels, where that is known beforehand.
        progress: Shows how far it is while counting the images of shards.

    Raises:
        InputError: As in `open_dataset`.
    """
    listings = {part: part.content for part in parts if isinstance(part.content, Listing)}
    shards = open_shards(listings, progress=progress)
    files = {part: part.content.path for part in parts if isinstance(part.content, TableFile)}
    tables = open_tables(files, train=train, classes=classes, multi_label=multi_label)
    opened: dict[Part, ImageSource] = {}
    for part in parts:
        content = part.content
        if isinstance(content, Listing):
            opened[part] = shards[part]
        elif isinstance(content, TableFile):
            opened[part] = tables[part]
        else:
            opened[part] = open_folder(content, held_out=part is not train) if isinstance(content, Path) else content
    return opened


def check_files(*sources: NamedImages, progress: Progress = silent) -> None:
    """Decode every image that is a file of its own once; other sources are left to `check_data`.

    Args:
        *sources: Any images.
        progress: Shows how far it is.

    Raises:
        InputError: If files cannot be read.
    """
    faults: list[str] = []
    count = 0
    for source in sources:
        files = source.files()
        faults += examine(source, files, progress=progress).faults
        count += len(files)
    refuse_unreadable(faults, count)


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
    _, held_out = Digits().split(val_fraction, seed)
    if not 1 <= count <= len(held_out):
        raise InputError(f"count must lie between 1 and {len(held_out)}, the held-out digits, got {count}")
    turns: Counter[int] = Counter()
    rank: list[tuple[int, int, int]] = []
    for index, (label,) in enumerate(map(labels_of, held_out.labels)):
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
