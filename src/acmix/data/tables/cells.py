"""The cells of a table of labels, CSV as people write it, read within bounds."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from acmix.data.places import is_named
from acmix.errors import InputError, printable

_TABS = ".tsv"
_SUFFIXES = (".csv", _TABS)
# Bytes of a line: of a million columns of 0 and 1, and more than anybody writes of names.
_LONGEST = 1 << 22
# What Python's messages mean.
_FAULTS = {
    "field limit": f"a cell may have {csv.field_size_limit():,} letters",
    "new-line character": "its lines end as those of old Macs; save it with other line ends",
    "unexpected end": "a quote is opened and not closed",
}
_DELIMITERS = ",;\t"


def is_table(path: Path) -> bool:
    """Whether a file is a table of labels by its name, CSV or tab-separated."""
    return path.suffix.lower() in _SUFFIXES and is_named(path)


def read_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table that hold anything: the number of the line and its cells, without blanks around them.

    Raises:
        InputError: If the file cannot be read, is not UTF-8, a quote is left open, or a line or a cell is too long;
            names the line.
    """
    try:
        with file.open("rb") as opened:
            yield from _rows(file, opened)
    except OSError as error:
        raise InputError(f"{printable(file)} cannot be read: {error.strerror or error}") from error


def _rows(file: Path, opened: BinaryIO) -> Iterator[tuple[int, list[str]]]:
    lines = _lines(file, opened)
    first = next(lines, "")
    delimiter = "\t" if file.suffix.lower() == _TABS else next((each for each in _DELIMITERS if each in first), ",")
    reader = csv.reader(_with(first, lines), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        fault = next((words for sign, words in _FAULTS.items() if sign in str(error)), str(error))
        raise InputError(f"{printable(file)}, line {reader.line_num}: {fault}") from error


def _with(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _lines(file: Path, opened: BinaryIO) -> Iterator[str]:
    number = 0
    while line := opened.readline(_LONGEST + 1):
        number += 1
        if len(line) > _LONGEST:
            raise InputError(f"{printable(file)}, line {number}: a line may have {_LONGEST:,} bytes")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{printable(file)}, line {number}: not UTF-8 ({error.reason}); save it as UTF-8"
            ) from error
