"""What a table of labels says: the images that it names, and the labels of each."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from acmix.data.labels import LabelSets
from acmix.data.names import Names
from acmix.data.places import as_path
from acmix.data.sources import class_name
from acmix.data.tables.columns import BITS, Columns, checked_rows, find_columns
from acmix.errors import InputError, printable

# What people write between labels of one cell: what no name of a class holds, and what it may.
_CLEAR, _UNCLEAR = ";|", ", "


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that was read.

    Attributes:
        file: The table.
        names: Of the images as it has them, with slashes.
        classes: All that it names, sorted; in the order of the columns where each has its own.
        labels: Of each image.
        several: Whether images have any number of labels; None where every image has one, or none, and nothing says
            that they may have more.
        words: How it is read, for a person.
        left_out: Headings of columns that are neither.
    """

    file: Path
    names: Names
    classes: tuple[str, ...]
    labels: LabelSets
    several: bool | None
    words: str
    left_out: tuple[str, ...] = ()


def read_table(file: Path, known: Sequence[str] | None = None) -> Table:
    """Read a table of labels.

    Args:
        file: CSV: image names in one column; their labels in another, or 0 and 1 in a column of each class.
        known: Classes of the images that are trained on, or were; they tell what blanks in a cell mean.

    Raises:
        InputError: If it cannot be read, may be read in several ways, or names an image twice or outside of its folder.
    """
    columns = find_columns(file)
    return _of_bits(file, columns) if columns.label is None else _of_cells(file, columns, known)


@dataclass
class _Read:
    """Names of images as they are read, each once."""

    file: Path
    names: list[str] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)

    def add(self, line: int, cell: str) -> None:
        if not cell:
            raise InputError(f"{printable(self.file)}, line {line}: no image is named")
        try:
            name = as_path(cell)
        except InputError as fault:
            raise InputError(f"{printable(self.file)}, line {line}: {fault}") from fault
        if self.lines.setdefault(name, line) != line:
            raise InputError(
                f"{printable(self.file)} names {printable(name)} in lines {self.lines[name]} and {line}; join "
                "these rows, their labels separated by ;"
            )
        self.names.append(name)


def _of_bits(file: Path, columns: Columns) -> Table:
    """A table with a column of 0 and 1 for each class."""
    read, rows = _Read(file), checked_rows(file)
    # The heading, without which there are no such columns.
    next(rows)

    def labels(line: int, cells: list[str]) -> list[int]:
        read.add(line, cells[columns.image])
        return [label for label, (column, _) in enumerate(columns.classes) if BITS[cells[column].casefold()]]

    sets = LabelSets(labels(line, cells) for line, cells in rows)
    return Table(
        file=file,
        names=Names(read.names),
        classes=_distinct(file, [heading for _, heading in columns.classes]),
        labels=sets,
        several=True if any(len(each) != 1 for each in sets) else None,
        words="a column of 0 and 1 for each class",
    )


def _of_cells(file: Path, columns: Columns, known: Sequence[str] | None) -> Table:
    """A table with a column of labels."""
    read, cells, places = _Read(file), array("q"), dict[str, int]()
    rows = checked_rows(file)
    if columns.headed:
        next(rows)
    for line, row in rows:
        read.add(line, row[columns.image])
        cells.append(places.setdefault(row[columns.label or 0], len(places)))
    separator = _separator(file, list(places), columns, known)
    split = [_labels(cell, separator) for cell in places]
    written = sorted({label for labels in split for label in labels})
    classes = sorted({class_name(label) for label in written})
    places_of = {name: place for place, name in enumerate(classes)}
    label_of = {label: places_of[class_name(label)] for label in written}
    sets = [[label_of[label] for label in labels] for labels in split]
    more = any(len(labels) > 1 for labels in split)
    blank = any(not labels for labels in split)
    several = True if more or (blank and columns.several) else None
    between = {" ": "blanks", None: ""}.get(separator, separator)
    return Table(
        file=file,
        names=Names(read.names),
        classes=tuple(classes),
        labels=LabelSets(sets[cell] for cell in cells),
        several=several,
        words=f"labels separated by {between}" if separator else "a label an image",
        left_out=columns.left_out,
    )


def _labels(cell: str, separator: str | None) -> list[str]:
    parts = cell.split() if separator == " " else [cell] if separator is None else cell.split(separator)
    return [part.strip() for part in parts if part.strip()]


def _separator(file: Path, cells: list[str], columns: Columns, known: Sequence[str] | None) -> str | None:
    """What stands between the labels of a cell; None where a cell is one label."""
    names = None if known is None else {class_name(name) for name in known}
    if names is not None and all(not cell or class_name(cell) in names for cell in cells):
        return None
    if found := [each for each in _CLEAR if any(each in cell for cell in cells)]:
        if len(found) > 1:
            raise InputError(
                f"{printable(file)} has both {found[0]} and {found[1]} in its labels; separate them by one of them"
            )
        return found[0]
    for separator in _UNCLEAR:
        if spread := [cell for cell in cells if separator in cell]:
            return _if_meant(file, separator, cells, spread, columns, names)
    return None


def _if_meant(
    file: Path, separator: str, cells: list[str], spread: list[str], columns: Columns, known: set[str] | None
) -> str | None:
    """A separator that names of classes may hold, too; None where it does not separate."""
    parts = Counter(part for cell in cells for part in {*_labels(cell, separator)})
    if known is not None and all(class_name(part) in known for part in parts):
        return separator
    whole = set(cells)
    alone = any(whole.issuperset(_labels(cell, separator)) for cell in spread)
    # Words come again in names of classes, golden retriever and tibetan terrier and so on; what commas divide does not.
    again = alone or (max(parts.values()) > 1 if separator == "," else len(parts) < len(whole) and columns.several)
    if columns.several == again:
        return separator if again else None
    raise InputError(
        f"{printable(file)}: {printable(repr(spread[0]))} may be one label or {len(_labels(spread[0], separator))}; "
        "separate labels by ; where an image has several, else call their column label"
    )


def _distinct(file: Path, headings: Sequence[str]) -> tuple[str, ...]:
    names = [class_name(heading) for heading in headings]
    if len(set(names)) < len(names):
        raise InputError(f"{printable(file)} has two columns of one name in different Unicode forms; join them")
    return tuple(names)
