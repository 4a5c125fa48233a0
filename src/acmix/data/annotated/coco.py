"""Annotations as COCO writes them: one JSON file of images, categories and objects."""

import reprlib
from array import array
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from acmix import records
from acmix.data.annotated.findings import Findings
from acmix.data.annotated.images import AnnotatedImages, size_if_readable
from acmix.data.annotated.objects import ObjectList
from acmix.data.annotated.segments import MOST_CHARACTERS, check_runs, run_lengths
from acmix.data.annotated.sorting import sort_objects
from acmix.data.images import check_sides
from acmix.data.names import Files, Names
from acmix.data.places import Ground, as_path, words_of
from acmix.data.sources import class_name
from acmix.errors import InputError, counted, printable

_LARGEST = 4 << 30  # bytes of a file: four times the largest of LVIS and COCO
_CORNERS = 3
_MOST_RUNS = 2_000_000  # of one object
_MOST_CLASSES = 50_000


def read_coco(file: Path, ground: Ground, findings: Findings) -> AnnotatedImages:
    """Read a file of annotations and find its images.

    Args:
        file: JSON with "images", "annotations" and "categories".
        ground: The data folder, in which all images lie.
        findings: Gets what is wrong.

    Raises:
        InputError: If it is no such file, or none of its images is there. The message names the file.
    """
    entries = _Entries(findings, ground.root)
    try:
        for key, entry in records.entries(_text(file)):
            entries.take(key, entry)
        return _images(entries, file, ground, findings)
    except InputError as fault:
        raise InputError(f"{file}: {fault}") from fault


def image_names(file: Path) -> list[tuple[str, int]]:
    """Name and id of every image that a file of annotations lists.

    Raises:
        InputError: If it is no such file. The message names it.
    """
    entries = _Entries(Findings())
    try:
        for key, entry in records.entries(_text(file)):
            if key == "images":
                entries.take(key, entry)
        if not entries.ids:
            raise InputError('expected COCO\'s "images", got none')
    except InputError as fault:
        raise InputError(f"{file}: {fault}") from fault
    return list(zip(entries.names, entries.ids, strict=True))


def _text(file: Path) -> str:
    try:
        if (size := file.stat().st_size) > _LARGEST:
            raise InputError(f"has {size:,} bytes, more than {_LARGEST:,}; divide it")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 ({error.reason} at byte {error.start:,})") from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from error


def _get(entry: Any, key: str, kind: type, name: str, default: Any = None) -> Any:
    """A value of an entry of a list, of a type that JSON has."""
    if type(entry) is not dict:
        raise InputError(f"{name} must be an object, got {reprlib.repr(entry)}")
    value = entry.get(key, default)
    if type(value) is not kind or (kind is int and abs(value) >= 1 << 63):
        raise InputError(f"{name}.{key} must be {records.in_words(kind)}, got {reprlib.repr(value)}")
    return value


class _Entries:
    """What the lists of a file hold.

    Args:
        findings: Gets what is wrong with single entries.
        root: The data folder; None where no image is read.
    """

    def __init__(self, findings: Findings, root: Path | None = None) -> None:
        self.findings, self.root = findings, root
        self.ids, self.sizes, self.names = array("q"), array("q"), list[str]()
        self.categories: dict[int, str] = {}
        self.classes = set[str]()
        self.objects, self.object_ids = ObjectList(), array("q")
        self.run_sizes: dict[int, tuple[int, int]] = {}
        self.broken: list[int] = []

    def take(self, key: str, entry: Any) -> None:
        """Take an entry of one of the lists.

        Raises:
            InputError: If it is none. The message is the fault alone.
        """
        if key == "images":
            self._take_image(entry)
        elif key == "categories":
            self._take_category(entry)
        elif key == "annotations":
            self._take_object(entry)

    def _take_image(self, entry: Any) -> None:
        name = f"images[{len(self.ids)}]"
        identity = _get(entry, "id", int, name)
        file = as_path(_get(entry, "file_name", str, name), self.root)
        size = [_get(entry, side, int, name, default=0) for side in ("height", "width")]
        if not all(size):
            # The file tells.
            size = [0, 0]
        else:
            check_sides((size[1], size[0]), f"{name} ({printable(file)})")
            if (limit := Image.MAX_IMAGE_PIXELS) and size[0] * size[1] > limit:
                raise InputError(f"{name} ({printable(file)}): {size[1]} x {size[0]} pixels are refused")
        self.ids.append(identity)
        self.names.append(file)
        self.sizes.extend(size)

    def _take_category(self, entry: Any) -> None:
        name = f"categories[{len(self.categories)}]"
        identity, word = _get(entry, "id", int, name), class_name(_get(entry, "name", str, name))
        if identity in self.categories:
            raise InputError(f"two categories have the id {identity}; keep one of them")
        if not word.strip():
            raise InputError(f"{name}.name must not be empty, got {word!r}")
        if word in self.classes:
            raise InputError(f"two categories are called {word}; join them")
        if len(self.classes) == _MOST_CLASSES:
            raise InputError(f"more than {_MOST_CLASSES:,} categories")
        self.categories[identity] = word
        self.classes.add(word)

    def _take_object(self, entry: Any) -> None:
        index = len(self.objects)
        name = f"annotations[{index}]"
        image, label = _get(entry, "image_id", int, name), _get(entry, "category_id", int, name)
        box = _get(entry, "bbox", list, name)
        crowd, area = entry.get("iscrowd", 0), entry.get("area")
        # To Python true is 1.
        numbers = len(box) == 4 and bool not in map(type, box)
        if not numbers:
            raise InputError(f"{name}.bbox must be four numbers, got {reprlib.repr(box)}")
        if crowd not in (0, 1):
            raise InputError(f"{name}.iscrowd must be 0 or 1, got {reprlib.repr(crowd)}")
        rings, runs = self._segment(entry.get("segmentation") or [], index)
        try:
            self.objects.add(
                image,
                label,
                box,
                area=float("nan") if area is None else area,
                crowd=bool(crowd),
                rings=rings,
                runs=runs,
            )
        except (TypeError, OverflowError) as error:
            raise InputError(f"{name} has something else where numbers must be: {error}") from error
        identity = entry.get("id", index)
        if type(identity) is not int or abs(identity) >= 1 << 63:
            raise InputError(f"{name}.id must be a whole number, got {reprlib.repr(identity)}")
        self.object_ids.append(identity)

    def _segment(self, segment: Any, index: int) -> tuple[list[Any], NDArray[np.int64] | None]:
        """Rings, or run lengths, of an annotation; neither where it has none."""
        name = f"annotations[{index}].segmentation"
        if isinstance(segment, dict):
            runs = _runs(segment, name)
            self.run_sizes[index] = tuple(segment["size"])
            if fault := check_runs(runs, *segment["size"]):
                self.findings.refused.add("mask of run lengths that do not fit", f"{name}: {fault}")
                return [], None
            return [], runs
        if type(segment) is not list or any(type(ring) is not list for ring in segment):
            raise InputError(f"{name} must be a list of polygons or run lengths, got {reprlib.repr(segment)}")
        if odd := [ring for ring in segment if len(ring) % 2]:
            self.findings.refused.add("polygon of an odd number of coordinates", f"{name}: {len(odd[0])}")
            return [], None
        rings = [ring for ring in segment if len(ring) >= 2 * _CORNERS]
        if segment and not rings:
            self.broken.append(index)
        return rings, None


def _runs(segment: Mapping[str, Any], name: str) -> NDArray[np.int64]:
    counts, size = segment.get("counts"), segment.get("size")
    if type(size) is not list or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise InputError(f"{name}.size must be height and width, got {reprlib.repr(size)}")
    check_sides((size[1], size[0]), name)
    # Runs have a pixel each, the first and the last aside.
    most = min(size[0] * size[1] + 2, _MOST_RUNS)
    if isinstance(counts, (str, list)) and len(counts) > most * (MOST_CHARACTERS if isinstance(counts, str) else 1):
        raise InputError(f"{name}.counts: more than {most:,} runs, got {len(counts):,} numbers or characters of them")
    try:
        if isinstance(counts, str):
            return run_lengths(counts)
        if type(counts) is list and all(type(count) is int for count in counts):
            return np.array(counts, np.int64)
    except (InputError, OverflowError) as fault:
        raise InputError(f"{name}.counts: {fault}") from fault
    raise InputError(f"{name}.counts must be whole numbers or COCO's text of them, got {reprlib.repr(counts)}")


def _images(entries: _Entries, file: Path, ground: Ground, findings: Findings) -> AnnotatedImages:
    """Put together what the lists hold."""
    if not entries.ids or not entries.categories:
        raise InputError('expected COCO\'s "images", "annotations" and "categories", got no images or no categories')
    _check_twice(entries, findings)
    folder = ground.folder_of(file, entries.names)
    within = folder.relative_to(ground.root)
    there = np.array([ground.holds(folder / name) for name in entries.names])
    for index in np.flatnonzero(~there):
        findings.left_out.add("image not there", str(within / entries.names[index]))
    if not there.any():
        raise InputError(f"none of its images is in {folder}, such as {printable(entries.names[0])}")
    kept = np.flatnonzero(there)
    files = Files(folder, Names(entries.names[index] for index in kept))
    sizes = np.array(entries.sizes, np.int64).reshape(-1, 2)
    for position, index in enumerate(kept):
        if not sizes[index].all():
            sizes[index] = size_if_readable(files[position])
    ids, known = np.array(entries.ids, np.int64), np.array(sorted(entries.categories), np.int64)
    corners = np.frombuffer(entries.objects.boxes).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    if len(corners) and corners.max() <= 1:
        boxes = counted(len(corners), "box")
        raise InputError(f"{boxes} within one pixel: COCO counts in pixels, not in shares of an image's sides")
    objects = sort_objects(
        entries.objects,
        images=_positions(entries.objects.images, ids),
        labels=_positions(entries.objects.labels, known),
        sizes=sizes,
        there=there,
        findings=findings,
        name=lambda index: f"{words_of(file)} annotation {entries.object_ids[index]}",
        broken=entries.broken,
        run_sizes=entries.run_sizes,
    )
    return AnnotatedImages(
        files,
        Names(printable(within / entries.names[index]) for index in kept),
        sizes=sizes[kept],
        image_ids=ids[kept].tolist(),
        objects=objects,
        classes=[entries.categories[identity] for identity in known.tolist()],
        category_ids=known.tolist(),
        left_out=findings.left_out,
    )


def _check_twice(entries: _Entries, findings: Findings) -> None:
    """Find what should be there once."""
    for what, values in (("image of another's id", entries.ids), ("image of another's name", entries.names)):
        for value, count in Counter(values).items():
            findings.refused.add(what, printable(value), count - 1)
    for value, count in Counter(entries.object_ids).items():
        findings.noted.add("annotation of another's id", str(value), count - 1)


def _positions(keys: "array[int]", known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each key is among those that are known, -1 where it is not."""
    values = np.array(keys, np.int64)
    order = np.argsort(known, kind="stable")
    at = np.minimum(np.searchsorted(known, values, sorter=order), len(known) - 1)
    return np.where(known[order[at]] == values, order[at], -1)
