"""Images that a table names, with the labels that it gives them."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from acmix.data.folders import LeftOut
from acmix.data.images import file_size, is_hidden, is_image, suffixes
from acmix.data.labelled import LabelledImages
from acmix.data.labels import labels_of
from acmix.data.names import Files, Names
from acmix.data.places import Ground
from acmix.data.tables.reading import Table, read_table
from acmix.errors import InputError, counted, few, printable

_Part = TypeVar("_Part")


class TabledImages(LabelledImages):
    """Images whose labels are not in their names, so that a change of labels is a change of the data."""

    def fingerprint(self) -> str:
        """SHA-256 of all names with file sizes and labels: equal for unchanged data, wherever they lie."""
        sizes = (file_size(image) for image in self.images if isinstance(image, Path))
        # In the order of their names, whatever the order of the classes.
        words = ("\t".join(sorted(self.classes[each] for each in labels_of(label))) for label in self.labels)
        lines = sorted(f"{name}\t{size}\t{each}" for name, size, each in zip(self.names, sizes, words, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def open_tables(
    files: Mapping[_Part, Path],
    *,
    train: _Part | None = None,
    classes: Sequence[str] | None = None,
    multi_label: bool | None = None,
) -> dict[_Part, TabledImages]:
    """Open tables of one data set.

    Args:
        files: The table of each part, by whatever the caller knows it by.
        train: The one among them that is trained on, which tells of all whether images have one label or any number.
        classes: That are known beforehand, of a checkpoint for instance.
        multi_label: Whether images have any number of labels, where that is known beforehand.

    Raises:
        InputError: If a table cannot be read or may be read in several ways, an image is missing or named twice, images
            have no label where each has one, or there are fewer than two classes or, of those that are trained on, one
            without images.
    """
    opened: dict[_Part, TabledImages] = {}
    for part in sorted(files, key=lambda part: part != train):
        table = read_table(files[part], classes)
        kind = bool(table.several) if multi_label is None else multi_label or bool(table.several)
        opened[part] = _open(table, multi_label=kind, held_out=part != train)
        if part == train:
            classes, multi_label = table.classes, kind
    return opened


def unnamed_images(opened: Sequence[TabledImages]) -> LeftOut:
    """Images beside those that tables name, which no row names.

    Args:
        opened: All tables of one data set.
    """
    named: dict[str, set[str]] = {}
    for images in opened:
        for path in images.images:
            folder, name = os.path.split(str(path))
            named.setdefault(folder, set()).add(name)
    left_out = LeftOut()
    for folder, names in sorted(named.items()):
        with os.scandir(folder) as entries:
            others = sorted({entry.name for entry in entries if not is_hidden(entry.name)} - names)
        for name in filter(is_image, others):
            left_out.add("image that no row names", name)
    return left_out


def _open(table: Table, *, multi_label: bool, held_out: bool) -> TabledImages:
    file, counts = printable(table.file), [0] * len(table.classes)
    for labels in table.labels:
        for label in labels:
            counts[label] += 1
    if not multi_label and (
        blank := [name for name, labels in zip(table.names, table.labels, strict=True) if not labels]
    ):
        raise InputError(
            f"{file}: {counted(len(blank), 'image')} without a label ({few(blank)}), and none with several: give each "
            "one, or call the column labels if they may have any number"
        )
    if len(table.classes) < 2 and not held_out:
        raise InputError(f"{file} names {counted(len(table.classes), 'class')}; at least two are needed")
    if not held_out and (empty := [name for name, count in zip(table.classes, counts, strict=True) if not count]):
        raise InputError(f"{file} has classes without images: {few(empty)}; fill or remove them")
    folder, names = _find(table)
    labels = table.labels if multi_label else (labels[0] for labels in table.labels)
    left_out = LeftOut()
    for heading in table.left_out:
        left_out.add("column of neither names nor labels", heading)
    images = TabledImages(Names(map(printable, names)), Files(folder, names), labels, table.classes)
    images.left_out, images.reading = left_out, table.words
    return images


def _find(table: Table) -> tuple[Path, Names]:
    """The folder in which the images of a table lie, and their names there."""
    ground = Ground(table.file.parent)
    names = table.names
    try:
        if is_image(names[0]):
            folder = ground.folder_of(table.file, names)
        else:
            folder, names = _with_suffix(ground, table)
        missing = [name for name in names if not ground.holds(folder / name)]
    except InputError as error:
        raise InputError(f"{printable(table.file)}: {error}") from error
    if missing:
        raise InputError(
            f"{printable(table.file)}: {counted(len(missing), 'image')} of {len(names):,} not in {printable(folder)}: "
            f"{few(missing)}; add them, or remove their rows"
        )
    return folder, names


def _with_suffix(ground: Ground, table: Table) -> tuple[Path, Names]:
    """As `_find`, of images that are named without the suffix that all their files have."""
    faults: list[InputError] = []
    usual = dict.fromkeys((".jpg", ".png", ".jpeg", *sorted(suffixes())))
    for suffix in (*usual, *(each.upper() for each in usual)):
        names = Names(f"{name}{suffix}" for name in table.names)
        try:
            return ground.folder_of(table.file, names), names
        except InputError as fault:
            faults.append(fault)
    raise faults[0]
