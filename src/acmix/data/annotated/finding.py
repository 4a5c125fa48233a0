"""Find annotations in what a person calls DATA, before any of them is read."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

from acmix.data.annotated.coco import read_coco
from acmix.data.annotated.findings import Findings
from acmix.data.annotated.images import AnnotatedImages
from acmix.data.annotated.yolo import is_description, read_description, read_yolo
from acmix.data.finding import FoundOf, PartOf, by_split, existing
from acmix.data.folders import part_of, part_within
from acmix.data.images import is_hidden
from acmix.data.places import Ground, is_named, words_of
from acmix.errors import InputError

Reader: TypeAlias = Callable[[Findings], AnnotatedImages]
# What COCO's files begin with, maybe after something short; named so they are COCO's, whatever is in them.
_COCO = re.compile(
    rb'(?:\xef\xbb\xbf)?\s*\{\s*(?:"(?:info|licenses)"\s*:|(?:"[^"]*"\s*:\s*[^\s\[{]+\s*,\s*)*"(?:images|annotations|categories)"\s*:)'
)
_NAMED = "instances_"
_EXPECTED = "expected annotations/instances_*.json beside images, or data.yaml"
_YAML, _JSON = (".yaml", ".yml"), ".json"
# What annotations are that are not read, and what to do.
_UNREAD = {
    ".txt": "YOLO's labels; add data.yaml, which says train, val and names",
    ".xml": "PASCAL VOC's annotations; convert them to COCO's JSON",
    ".gz": "packed; unpack them",
    ".zip": "packed; unpack them",
    ".json": "none of them COCO's; expected images, annotations and categories in one file",
}
_ANNOTATIONS, _ROBOFLOW = re.compile("annotation|label", re.IGNORECASE), "_annotations.coco.json"


def descriptions(data: str) -> list[Path]:
    """The files that say what is in the images of DATA: YOLO's YAML files and COCO's JSON files.

    Args:
        data: A folder, or one of these files.
    """
    root = existing(data, _EXPECTED)
    if root.is_file():
        return [root] if root.suffix.lower() in (*_YAML, _JSON) or _is_coco(root) else []
    yolo = [file for file in _files(root, *_YAML) if is_description(file)]
    folders = [path for path in _entries(root) if path.is_dir()]
    files = _files(root, _JSON)
    for folder in folders:
        # Other folders may hold a million images.
        files += _files(folder, _JSON) if _ANNOTATIONS.match(folder.name) else [folder / _ROBOFLOW]
    coco = [file for file in files if _is_coco(file)]
    named = [file for file in coco if file.name.startswith(_NAMED)]
    return [*yolo, *(named or coco)]


def why_not(root: Path) -> str:
    """What is missing where a folder holds annotations that are not read, for a person; empty where it holds none.

    Raises:
        InputError: If a folder cannot be read.
    """
    for folder in (path for path in _entries(root) if path.is_dir() and _ANNOTATIONS.match(path.name)):
        for path in folder.rglob("*"):
            if path.suffix.lower() in _UNREAD and path.name != "classes.txt":
                return f"{folder.name}/ holds {path.suffix} files, {_UNREAD[path.suffix.lower()]}"
    return ""


def find_annotated(data: str) -> FoundOf[Reader]:
    """Find the parts of annotated images; the content of each is what reads it.

    Args:
        data: A folder with COCO's or YOLO's files, or one of these files.

    Raises:
        InputError: If there are none, or they may be read in two ways.
    """
    found = descriptions(data)
    root = existing(data, _EXPECTED)
    if not found:
        reason = why_not(root) if root.is_dir() else ""
        raise InputError(f"{root} has no annotations of objects; {reason or _EXPECTED}")
    yolo = [file for file in found if file.suffix.lower() in _YAML]
    if len(yolo) > 1 or (yolo and len(found) > 1):
        other = next(file for file in found if file != yolo[0])
        raise InputError(
            f"{root} has both {yolo[0].name} and {other.relative_to(root)}; give one of these files as DATA"
        )
    return _find_yolo(str(root), yolo[0]) if yolo else _find_coco(root, found)


def _find_yolo(location: str, file: Path) -> FoundOf[Reader]:
    description = read_description(file)
    ground = Ground(file.parent)
    ground.holds(file)
    if (parts := description.parts).get("val") == parts["train"]:
        raise InputError(f"{file}: val is train, whose images are learned from; give others, or remove val")
    found: dict[str, PartOf[Reader]] = {
        {"val": "validation"}.get(split, split): PartOf(
            name=split,
            words=", ".join(str(description.folder / path) for path in paths),
            content=partial(read_yolo, description, split, ground),
        )
        for split, paths in parts.items()
    }
    if "validation" not in found and "test" not in found:
        found = {"": found["train"]}
    return by_split(location, found)


def _find_coco(root: Path, files: list[Path]) -> FoundOf[Reader]:
    folder = root.parent if root.is_file() else root
    # Images lie beside the folder of annotations.
    ground = Ground(folder.parent if folder.name.casefold() == "annotations" else folder)
    parts: dict[str, PartOf[Reader]] = {}
    for file in files:
        ground.holds(file)
        word = words_of(file)
        split = part_of(word) or part_within(word) or word
        if split in parts:
            raise InputError(
                f"{root} has both {parts[split].words} and {file}, two files of one split; keep one of them"
            )
        parts[split] = PartOf(name=word, words=str(file), content=partial(read_coco, file, ground))
    if root.is_file() or {*parts} == {"train"} or not {"train", "validation", "test"} & {*parts}:
        if len(parts) > 1:
            names = " and ".join(part.words for part in parts.values())
            raise InputError(f"{root} has {names}, none of them called train; give one of these files as DATA")
        parts = {"": next(iter(parts.values()))}
    return by_split(str(root), parts)


def _is_coco(file: Path) -> bool:
    # One that cannot be read is no other file: that is said where it is read.
    if file.name.startswith(_NAMED):
        return True
    try:
        with file.open("rb") as content:
            return _COCO.match(content.read(4096)) is not None
    except OSError:
        return False


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path.name))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error


def _files(folder: Path, *suffixes: str) -> list[Path]:
    return [path for path in _entries(folder) if path.suffix.lower() in suffixes and is_named(path)]
