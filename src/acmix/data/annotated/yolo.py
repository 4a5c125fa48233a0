"""Annotations as YOLO has them: a text file beside every image, and one YAML file that names folders and classes."""

import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from acmix.data.annotated.findings import Findings
from acmix.data.annotated.images import AnnotatedImages, size_if_readable
from acmix.data.annotated.objects import ObjectList
from acmix.data.annotated.sorting import sort_objects
from acmix.data.folders import NO_IMAGE, LeftOut, images_within
from acmix.data.names import Files, Names
from acmix.data.places import Ground, as_path
from acmix.data.sources import class_name, read_in_threads
from acmix.errors import InputError, in_one_line, printable

_LARGEST_YAML, _LARGEST_TEXT = 1 << 20, 64 << 20  # bytes
# Shares of an image's sides may be rounded.
_SLACK = 1e-3


@dataclass(frozen=True, kw_only=True)
class Description:
    """What data.yaml says.

    Attributes:
        file: Itself.
        classes: Names in the order of the labels.
        parts: What each split is called by "train", "val" and "test": folders, or lists of images, relative to the
            folder that holds them.
        folder: In which they lie.
    """

    file: Path
    classes: tuple[str, ...]
    parts: dict[str, tuple[str, ...]]
    folder: Path


def is_description(file: Path) -> bool:
    """Whether a YAML file has what YOLO's data.yaml has."""
    try:
        content = _load(file)
    except InputError:
        return file.stem == "data"
    return isinstance(content, dict) and "names" in content and "train" in content


def read_description(file: Path) -> Description:
    """Read YOLO's data.yaml.

    Raises:
        InputError: If it is none. The message names the file.
    """
    content = _load(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: must say names, train and val, got {reprlib.repr(content)}")
    if "kpt_shape" in content:
        raise InputError(f"{file}: kpt_shape: keypoints are not learned; give data of boxes or polygons")
    try:
        folder = _folder(file.parent, content.get("path") or "")
        return Description(file=file, classes=_classes(content), parts=_parts(content, folder), folder=folder)
    except InputError as fault:
        raise InputError(f"{file}: {fault}") from fault


def _load(file: Path) -> Any:
    text = _text(file, _LARGEST_YAML)
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (a safe loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{file}: is no YAML ({in_one_line(error, 400)})") from error


class _Loader(yaml.SafeLoader):
    """Plain values alone, each key once; a reference to another value could stand for billions of them."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("references are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            raise ValueError(f"a key is there twice among {reprlib.repr(list(found))}")
        return found


def _folder(parent: Path, path: Any) -> Path:
    """What `path` names within the folder of data.yaml, else that folder: data are seldom where they were made."""
    if not isinstance(path, str):
        raise InputError(f"path must be text, got {reprlib.repr(path)}")
    try:
        folder = parent / as_path(path, parent)
    except InputError:
        return parent
    return folder if folder.is_dir() else parent


def _classes(content: Mapping[str, Any]) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or sorted(map(repr, names)) != sorted(map(repr, range(len(names)))) or not names:
        raise InputError(f"names must be a list, or say 0: NAME, 1: NAME and so on, got {reprlib.repr(names)}")
    if wrong := [name for name in names.values() if type(name) not in (str, int)]:
        raise InputError(f"names must be text, got {wrong[0]!r}; write it in quotation marks")
    classes = tuple(class_name(str(names[label])) for label in range(len(names)))
    if not all(name.strip() for name in classes):
        raise InputError(f"names must not be empty, got {reprlib.repr(list(classes))}")
    if len(set(classes)) < len(classes):
        raise InputError("two classes have one name; join them")
    if content.get("nc", len(classes)) != len(classes):
        raise InputError(f"nc is {reprlib.repr(content['nc'])}, but there are {len(classes)} names")
    return classes


def _parts(content: Mapping[str, Any], folder: Path) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for split in ("train", "val", "test"):
        entry = content.get(split) or []
        entries = entry if isinstance(entry, list) else [entry]
        if wrong := [each for each in entries if not isinstance(each, str)]:
            raise InputError(f"{split} must be a folder or a list of them, got {reprlib.repr(wrong[0])}")
        # Roboflow writes ../train/images for train/images.
        texts = (each if each.startswith("../..") else each.removeprefix("../") for each in entries)
        paths = tuple(as_path(text, folder) for text in texts)
        if gone := [path for path in paths if not (folder / path).exists()]:
            if split == "test":
                continue
            raise InputError(f"{split}: there is no {printable(gone[0])} in {folder}; put data.yaml beside the images")
        if paths:
            found[split] = paths
    if "train" not in found:
        raise InputError("says no train; add it")
    return found


def read_yolo(description: Description, split: str, ground: Ground, findings: Findings) -> AnnotatedImages:
    """Read the images and labels of a split.

    Args:
        description: Of `read_description`.
        split: One of its parts.
        ground: The data folder, in which all files lie.
        findings: Gets what is wrong.

    Raises:
        InputError: If there are no images, or none of them has labels.
    """
    names = _image_names(description, split, ground, findings)
    files = Files(description.folder, names)
    sizes = np.array([*read_in_threads(lambda index: size_if_readable(files[index]), range(len(names)))], np.int64)
    rows = _Rows(description, findings)
    labelled = 0
    for index, (height, width) in enumerate(sizes.tolist()):
        file = _label_file(names[index])
        if ground.holds(description.folder / file):
            labelled += 1
            rows.read(index, file, height, width)
        elif os.path.lexists(description.folder / file):
            # A link that leads nowhere, for instance: its image would be taken for one without objects.
            findings.refused.add("file of labels that cannot be read", file)
    if not labelled:
        raise InputError(
            f"{description.file}: none of the images of {split} has labels; of {printable(names[0])} they would be in "
            f"{printable(_label_file(names[0]))}"
        )
    _find_orphans(description.folder, names, sum(description.parts.values(), ()), findings)
    objects = sort_objects(
        rows.objects,
        images=np.array(rows.objects.images, np.int64),
        labels=np.array(rows.objects.labels, np.int64),
        sizes=sizes,
        there=np.ones(len(names), bool),
        findings=findings,
        name=rows.name,
    )
    return AnnotatedImages(
        files,
        Names(map(printable, names)),
        sizes=sizes,
        image_ids=range(1, len(names) + 1),
        objects=objects,
        classes=description.classes,
        category_ids=range(len(description.classes)),
        left_out=findings.left_out,
    )


def _image_names(description: Description, split: str, ground: Ground, findings: Findings) -> Names:
    """Paths of the images of a split in the folder of the data."""
    found: dict[str, None] = {}
    for path in description.parts[split]:
        place = description.folder / path
        if place.is_dir():
            beside = LeftOut()
            listed = [os.path.relpath(file, description.folder) for file in images_within(place, beside)]
            if any(os.path.dirname(_label_file(name)) == os.path.dirname(name) for name in listed):
                # Labels among images; those of no image are found later.
                beside.counts.pop(NO_IMAGE.format(".txt"), None)
            findings.left_out.join(beside)
        else:
            listed = [*_listed(place, description.folder)] if ground.holds(place) else []
        for name in listed:
            if name in found:
                findings.refused.add("image listed twice", name)
            elif ground.holds(description.folder / name):
                found[name] = None
            else:
                findings.left_out.add("image not there", name)
    if not found:
        why = f" ({findings.left_out})" if findings.left_out.counts else ""
        raise InputError(f"{description.file}: {split} has no images in {', '.join(description.parts[split])}{why}")
    return Names(sorted(found))


def _listed(file: Path, folder: Path) -> Iterator[str]:
    """Paths that a text file lists, in the folder of the data."""
    within = os.path.relpath(file.parent, folder)
    for line in _text(file).splitlines():
        if path := line.strip():
            # ./ is the folder of the list.
            try:
                yield as_path(os.path.normpath(os.path.join(within, path)) if path.startswith("./") else path, folder)
            except InputError as fault:
                raise InputError(f"{file}: {fault}") from fault


def _text(file: Path, most: int = _LARGEST_TEXT) -> str:
    """What a file of at most so many bytes says."""
    try:
        if file.stat().st_size > most:
            raise InputError(f"{file}: has more than {most:,} bytes")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is not UTF-8 ({error.reason} at byte {error.start:,})") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from error


def _label_file(name: str) -> str:
    """The text file of an image: beside it, or in `labels` where the image is in `images`."""
    *folders, file = name.split("/")
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return "/".join((*folders, f"{os.path.splitext(file)[0]}.txt"))


def _find_orphans(folder: Path, names: Sequence[str], lists: Sequence[str], findings: Findings) -> None:
    known = {_label_file(name) for name in names}
    for within in sorted({os.path.dirname(file) for file in known}):
        for file in _names(folder / within):
            path = os.path.join(within, file)
            if file.lower().endswith(".txt") and file != "classes.txt" and path not in (*known, *lists):
                findings.left_out.add("file of labels without an image", path)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder)) if folder.is_dir() else []
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error


class _Rows:
    """Rows of label files as objects."""

    def __init__(self, description: Description, findings: Findings) -> None:
        self.description, self.findings = description, findings
        self.objects, self.places = ObjectList(), list[str]()

    def name(self, index: int) -> str:
        """Where an object is written."""
        return self.places[index]

    def read(self, image: int, file: str, height: int, width: int) -> None:
        """Take the rows of one file, in shares of the sides of its image."""
        sides = width, height
        try:
            lines = _text(self.description.folder / file).splitlines()
        except InputError as fault:
            self.findings.refused.add("file of labels that cannot be read", str(fault))
            return
        seen = set[tuple[float, ...]]()
        for number, line in enumerate(lines, 1):
            if not (row := line.split()):
                continue
            place = f"{file}:{number}"
            if fault := self._fault(row):
                self.findings.refused.add(fault, f"{place}: {reprlib.repr(line)}")
                continue
            label, *values = numbers = tuple(map(float, row))
            if numbers in seen:
                self.findings.left_out.add("row equal to another", place)
                continue
            seen.add(numbers)
            known = label.is_integer() and 0 <= label < len(self.description.classes)
            points = [value * sides[at % 2] for at, value in enumerate(values)]
            self.places.append(place)
            self._add(image, int(label) if known else -1, points)

    def _fault(self, row: Sequence[str]) -> str:
        try:
            values = [float(value) for value in row]
        except ValueError:
            return "row of something else than numbers"
        if len(row) < 5 or len(row) % 2 == 0:
            return "row of neither a box nor a polygon"
        if not all(-_SLACK <= value <= 1 + _SLACK for value in values[1:]):
            return "row of numbers outside of 0..1, the shares of width and height"
        return ""

    def _add(self, image: int, label: int, points: Sequence[float]) -> None:
        if len(points) > 4:
            x, y = points[::2], points[1::2]
            self.objects.add(image, label, (min(x), min(y), max(x), max(y)), rings=[points])
            return
        x, y, width, height = points
        self.objects.add(image, label, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))
