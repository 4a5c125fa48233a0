"""Files that name the classes of masks, as people have them."""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from acmix.data.sources import class_name
from acmix.errors import InputError, in_one_line

# Names of such files, in any case; hyphens and underscores do not count.
_NAME = re.compile(
    r"(?:mask|segmentation)?(?:classes|class|classnames|classdict|names|labels|labelmap|labelnames|id2label|categories"
    r"|objectinfo\d*|palette|colou?rs|colou?rmap)\.(?:txt|csv|tsv|json|ya?ml)"
)
_LARGEST = 1_000_000
_MOST_CLASSES, _HIGHEST = 32_000, 65_535
_NUMBERED = re.compile(r"(\d+)\s*[:,;=\s]\s*(\S.*)")
_COLOURED = re.compile(r"([^:]+):\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(?::.*)?")
_HEXADECIMAL = re.compile(r"#([0-9a-fA-F]{6})")
_HOLDERS = ("names", "classes", "labels", "categories", "id2label")
_VALUES, _COLOURS = ("value", "id", "index", "idx", "label_id", "pixel"), ("color", "colour", "rgb")
# What ADE20K's own list leaves out.
_OTHER_OBJECTS = 0


@dataclass(frozen=True)
class Legend:
    """What a file says of classes.

    Attributes:
        file: Its name.
        names: Of the classes.
        values: Of masks, one a class, colours as 0xRRGGBB; None where the file has names alone.
        colours: Whether values are colours.
        ignored: Values that say nothing, where the kind of the file tells.
    """

    file: str
    names: tuple[str, ...]
    values: tuple[int, ...] | None = None
    colours: bool = False
    ignored: tuple[int, ...] = ()


def find_legend(folders: Sequence[Path]) -> Legend | None:
    """Read the file that names the classes of masks, in the first of the folders that has one.

    Raises:
        InputError: If a folder has two, or the file cannot be used.
    """
    for folder in folders:
        found = [path for path in sorted(folder.iterdir()) if _is_legend(path)]
        if len(found) > 1:
            names = " and ".join(path.name for path in found)
            raise InputError(f"{folder} has {names}, which may all name the classes of masks; keep one of them")
        if found:
            return read_legend(found[0])
    return None


def _is_legend(path: Path) -> bool:
    return bool(_NAME.fullmatch(re.sub(r"[-_ ]", "", path.name.casefold()))) and path.is_file()


def read_legend(path: Path) -> Legend:
    """Read a file that names the classes of masks.

    - .txt: a name a line; VALUE NAME a line; NAME:R,G,B a line (CVAT's labelmap.txt); ADE20K's objectInfo150.txt.
    - .csv, .tsv: columns name and value (or id), or name, r, g, b.
    - .json, .yaml: a list of names; values by names, names by values, colours by names ([r, g, b] or "#rrggbb"); a list
      of objects with name and id or color; any of these under names, classes, labels, categories or id2label.

    Raises:
        InputError: If it cannot be read or says nothing of the kind, or two classes have one name or value.
    """
    text = _text(path)
    try:
        entries = _entries(text, path.suffix.lower())
    except (ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError) as error:
        raise _nameless(path, error) from error
    legend = _legend(path, entries)
    if re.match(r"(?i)objectinfo", path.name) and legend.values and _OTHER_OBJECTS not in legend.values:
        return Legend(legend.file, legend.names, legend.values, ignored=(_OTHER_OBJECTS,))
    return legend


def _text(path: Path) -> str:
    try:
        if (size := path.stat().st_size) > _LARGEST:
            raise InputError(f"{path} is larger than a file of class names: {size:,} bytes")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _nameless(path, error) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _nameless(path: Path, fault: Exception) -> InputError:
    return InputError(f"{path} names no classes of masks: {in_one_line(fault)}")


# A name, and the value or the colour that the file gives it.
_Entry = tuple[str, int | tuple[int, int, int] | None]


def _entries(text: str, suffix: str) -> list[_Entry]:
    if suffix in (".json", ".yaml", ".yml"):
        return _from_structure(yaml.safe_load(text))
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    heading = [cell.strip().casefold() for cell in re.split(r"[,;\t]", lines[0])] if lines else []
    if "name" in heading and len(heading) > 1:
        return _from_table(lines, heading)
    if suffix in (".csv", ".tsv"):
        raise ValueError("its first line has no column name")
    stripped = [line.strip() for line in lines]
    if all(found := [_COLOURED.fullmatch(line) for line in stripped]):
        return [(each[1], (int(each[2]), int(each[3]), int(each[4]))) for each in found if each]
    if all(found := [_NUMBERED.fullmatch(line) for line in stripped]):
        return [(each[2], int(each[1])) for each in found if each]
    return [(line, None) for line in stripped]


def _from_table(lines: Sequence[str], heading: Sequence[str]) -> list[_Entry]:
    delimiter = next(mark for mark in "\t;," if mark in lines[0])
    rows = list(csv.reader(lines[1:], delimiter=delimiter))
    value = next((heading.index(name) for name in _VALUES if name in heading), None)
    if {"r", "g", "b"} <= {*heading}:
        places = [heading.index(channel) for channel in "rgb"]
        colours = [(int(row[places[0]]), int(row[places[1]]), int(row[places[2]])) for row in rows]
        return [(row[heading.index("name")], colour) for row, colour in zip(rows, colours, strict=True)]
    if value is None:
        raise ValueError("it has no column value, and none of r, g, b")
    return [(row[heading.index("name")], int(row[value])) for row in rows]


def _from_structure(content: Any) -> list[_Entry]:
    if isinstance(content, dict):
        if inner := [content[key] for key in _HOLDERS if isinstance(content.get(key), (list, dict))]:
            return _from_structure(inner[0])
        return [_pair(key, value) for key, value in content.items()]
    if not isinstance(content, list):
        raise ValueError(f"expected a list or an object, got {type(content).__name__}")
    return [_from_object(each) if isinstance(each, dict) else (str(each), None) for each in content]


def _pair(key: Any, value: Any) -> _Entry:
    """Names by values, values by names, or colours by names."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(key), value
    if isinstance(value, list) or _HEXADECIMAL.fullmatch(str(value)):
        return str(key), _colour(value)
    if isinstance(value, str):
        return value, int(key)
    raise ValueError(f"{key}: {value!r} is no value, name or colour")


def _from_object(content: Mapping[str, Any]) -> _Entry:
    name = str(content["name"])
    for key in (*_COLOURS, *_VALUES):
        if key in content:
            return name, _colour(content[key]) if key in _COLOURS else int(content[key])
    raise ValueError(f"{name} has neither {' nor '.join((*_VALUES[:2], *_COLOURS[:1]))}")


def _colour(value: Any) -> tuple[int, int, int]:
    if found := _HEXADECIMAL.fullmatch(value) if isinstance(value, str) else None:
        number = int(found[1], 16)
        return number >> 16, number >> 8 & 255, number & 255
    red, green, blue = value
    return int(red), int(green), int(blue)


def _legend(path: Path, entries: Sequence[_Entry]) -> Legend:
    names = tuple(class_name(name.strip()) for name, _ in entries)
    if not names or not all(names):
        raise InputError(f"{path} names no classes of masks: it is empty or has an empty name")
    if len(names) > _MOST_CLASSES:
        raise InputError(f"{path} names {len(names):,} classes, more than {_MOST_CLASSES:,}")
    kinds = {type(value) for _, value in entries}
    if len(kinds) > 1:
        raise InputError(f"{path} must give every class a value, every class a colour, or none any")
    coloured = kinds == {tuple}
    values = [_number(value, path) for _, value in entries if value is not None]
    for what, given in (("name", names), ("value", values)):
        for each, count in Counter(given).most_common(1):
            if count > 1:
                raise InputError(f"{path} has the {what} {each} twice; every class must have its own")
    return Legend(path.name, names, tuple(values) or None, colours=coloured)


def _number(value: int | tuple[int, int, int], path: Path) -> int:
    parts = value if isinstance(value, tuple) else (value,)
    highest = 255 if isinstance(value, tuple) else _HIGHEST
    if any(not 0 <= part <= highest for part in parts):
        raise InputError(f"{path} must have numbers of 0 to {highest}, got {value}")
    return value[0] << 16 | value[1] << 8 | value[2] if isinstance(value, tuple) else value
