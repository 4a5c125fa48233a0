"""What `acmix predict` shows and writes."""

import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from acmix.cli.display.tables import print_json
from acmix.errors import printable
from acmix.storage import replacing

if TYPE_CHECKING:
    from acmix.tasks.loop.results import Prediction

# What spreadsheets take for the beginning of a formula, the wide forms of East Asia among them.
_FORMULA = re.compile("[=+@\uff1d\uff0b\uff0d\uff20-]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def show_predictions(predictions: "Iterable[Prediction]", *, as_json: bool) -> None:
    """Print predictions: one line an image as they come, or JSON of all."""
    if as_json:
        print_json([prediction.record for prediction in predictions])
        return
    for prediction in predictions:
        sys.stdout.write(f"{printable(prediction.path)}: {prediction.words}\n")


def write_table(predictions: "Iterable[Prediction]", path: Path, headings: Sequence[str]) -> int:
    """Write predictions as they come; the file appears once it is whole.

    Args:
        predictions: Of any number.
        path: JSON by its suffix, as `show_predictions` prints it, else CSV.
        headings: Of the columns behind the path.

    Returns:
        How many there were.
    """
    write = _write_json if path.suffix.lower() == ".json" else _write_csv
    with replacing(path) as file:
        # Lone surrogates, which stand for bytes of a file name, have no other form in UTF-8.
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        count = write(text, predictions, headings)
        text.flush()
        text.detach()
    return count


def _write_json(file: TextIO, predictions: "Iterable[Prediction]", headings: Sequence[str]) -> int:
    del headings
    count = 0
    for prediction in predictions:
        record = json.dumps([prediction.record], indent=2, ensure_ascii=False)
        file.write(("," if count else "[") + record.removeprefix("[").removesuffix("\n]"))
        count += 1
    file.write("\n]\n" if count else "[]\n")
    return count


def _write_csv(file: TextIO, predictions: "Iterable[Prediction]", headings: Sequence[str]) -> int:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["path", *headings])
    count = 0
    for prediction in predictions:
        path = _path_cell(prediction.path)
        writer.writerows([path, *map(_cell, row)] for row in prediction.rows)
        count += 1
    return count


def _cell(value: str | float) -> str:
    if not isinstance(value, str):
        return f"{value:.6g}"
    text = printable(value)
    harmless = not _FORMULA.match(text) or _NUMBER.fullmatch(text)
    # As spreadsheets mark text that is none.
    return text if harmless else f"'{text}"


def _path_cell(path: Path) -> str:
    text = printable(path)
    return os.path.join(os.curdir, text) if _FORMULA.match(text) else text
