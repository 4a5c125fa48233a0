"""Which columns of a table of labels name the images, and which say what they show."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acmix.data.images import is_image
from acmix.data.tables.cells import read_rows
from acmix.errors import InputError, counted, printable

# What people call the columns, without what is no letter: images, and labels as one or as several.
_IMAGE = re.compile("(image|img|file|path|name|picture|photo)(id|name|path|file)?s?|f?name|u?id|key")
_ONE = frozenset(("label", "class", "category", "tag", "target", "y", "species", "labelname", "classname"))
_SEVERAL = frozenset(("labels", "classes", "categories", "tags", "targets"))
# A table may say which rows are for validation, which training must not overlook.
_SPLIT = frozenset(("split", "subset", "fold", "partition", "set", "isvalid", "isval"))
# Or where objects lie.
_BOX = re.compile("bbox.*|box.*|[xy](min|max|[12]|center|centre)|(min|max)[xy]")
# What stands for no and yes in a column of a class.
BITS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where a table says what.

    Attributes:
        headed: Whether the first row is a heading.
        image: The column of names.
        label: The column of labels; None where each of several columns is a class.
        classes: Column and heading of each class, where each has its own.
        several: Whether the heading of the labels' column is in the plural.
        left_out: Headings of the other columns.
    """

    headed: bool
    image: int
    label: int | None = None
    classes: tuple[tuple[int, str], ...] = ()
    several: bool = False
    left_out: tuple[str, ...] = ()


def find_columns(file: Path) -> Columns:
    """Read a table once, and tell its columns apart.

    Raises:
        InputError: If it has no rows, rows of several lengths, a heading twice, or columns that may be several things.
    """
    rows = checked_rows(file)
    _, first = next(rows)
    if len(first) < 2:
        raise InputError(f"{printable(file)} has one column; expected image names in one and labels in others")
    if any(is_image(cell) for cell in first):
        return _unnamed(file, first)
    # What is neither 0 nor 1, by its column: the first of each, and its line.
    strange: dict[int, tuple[int, str]] = {}
    numbered, count = True, 0
    for line, cells in rows:
        count += 1
        for column, cell in enumerate(cells):
            if column not in strange and cell.casefold() not in BITS:
                strange[column] = line, cell
        numbered = numbered and cells[0].isdecimal()
    if not count:
        raise InputError(f"{printable(file)} has a heading and no rows below it")
    return _of_headings(file, first, strange, numbered=numbered)


def checked_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """As `read_rows`, all rows of one length.

    Raises:
        InputError: If not, or there are none.
    """
    width = None
    for line, cells in read_rows(file):
        width = width or len(cells)
        if len(cells) != width:
            raise InputError(
                f"{printable(file)}, line {line}: {counted(len(cells), 'cell')}, the first row has {width}; a cell "
                "with the delimiter in it needs quotes around it"
            )
        yield line, cells
    if width is None:
        raise InputError(f"{printable(file)} holds no rows")


def _unnamed(file: Path, first: Sequence[str]) -> Columns:
    """Columns without a heading: a name and a label, in whichever order."""
    images = [column for column, cell in enumerate(first) if is_image(cell)]
    if len(first) != 2 or len(images) != 1:
        raise InputError(
            f"{printable(file)} has no heading, and its first row is {', '.join(first[:4])}: what are its "
            "columns? Add a heading, image,label for instance"
        )
    return Columns(headed=False, image=images[0], label=1 - images[0])


def _of_headings(
    file: Path, headings: Sequence[str], strange: Mapping[int, tuple[int, str]], *, numbered: bool
) -> Columns:
    """Columns by their headings, and by the first cell of each that is neither 0 nor 1."""
    plain = [re.sub(r"[\W_]+", "", heading.casefold()) for heading in headings]
    # Numbers of rows, as pandas writes them.
    columns = range(1 if numbered and not headings[0] else 0, len(headings))
    _check_headings(file, headings, plain, columns)
    if len(columns) < 2:
        raise InputError(
            f"{printable(file)} has {headings[-1]} alone; expected image names in one column and labels in others"
        )
    named = [column for column in columns if _IMAGE.fullmatch(plain[column]) and column in strange]
    image = named[0] if len(named) == 1 else columns[0]
    others = [column for column in columns if column != image]
    if len(others) > 1 and not any(column in strange for column in others):
        classes = tuple((column, headings[column]) for column in others)
        return Columns(headed=True, image=image, classes=classes)
    labels = [column for column in others if plain[column] in _ONE | _SEVERAL]
    if len(others) == 1 and named and others[0] in strange:
        labels = others
    if len(labels) != 1:
        shown = ", ".join(headings[column] for column in others[:6])
        wrong = next((column for column in others if column in strange), None)
        first = "" if wrong is None else " (line {}: {!r} under {})".format(*strange[wrong], headings[wrong])
        raise InputError(
            f"{printable(file)} has the columns {shown} beside {headings[image] or 'the first'}: neither are all of "
            f"them, of two or more, of 0 and 1{first}, nor is one called label or labels; name it so"
        )
    return Columns(
        headed=True,
        image=image,
        label=labels[0],
        several=plain[labels[0]] in _SEVERAL,
        left_out=tuple(headings[column] for column in others if column != labels[0]),
    )


def _check_headings(file: Path, headings: Sequence[str], plain: Sequence[str], columns: range) -> None:
    """Refuse headings that are none, that stand twice, or that tell of more than labels."""
    if all(heading.casefold() in BITS for heading in headings[1:]) and not _IMAGE.fullmatch(plain[0]):
        raise InputError(f"{printable(file)} has no heading; add one, with the names of the classes")
    twice = [name for name, count in Counter(headings).items() if count > 1]
    if twice:
        raise InputError(f"{printable(file)} has two columns {twice[0]!r}; rename or remove one")
    if nameless := [column for column in columns[1:] if not headings[column]]:
        raise InputError(f"{printable(file)} has no heading over column {nameless[0] + 1}; name it or remove it")
    if split := [headings[column] for column in columns if plain[column] in _SPLIT]:
        raise InputError(
            f"{printable(file)} has a column {split[0]!r}, which may say what is validated with; write train.csv and "
            "val.csv in its place, or remove it"
        )
    if boxes := [headings[column] for column in columns if _BOX.fullmatch(plain[column])]:
        raise InputError(
            f"{printable(file)} has a column {boxes[0]!r}, as tables of objects have: detectors learn from COCO's or "
            "YOLO's files; remove it if the labels are of whole images"
        )
