"""What `acmix predict` shows and writes."""

import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
        path: JSON by its suffix, of `Prediction.results`, else CSV.
        headings: Of the columns behind the path.

    Returns:
        How many there were.
    """
    written = recorded(predictions, path) if path.suffix.lower() == ".json" else _as_rows(predictions, path, headings)
    return sum(1 for _ in written)


def recorded(predictions: "Iterable[Prediction]", path: Path) -> "Iterator[Prediction]":
    """Write predictions as JSON, and hand them on; the file appears once all have come."""
    with _whole(path) as file:
        empty = True
        for prediction in predictions:
            for result in prediction.results:
                text = json.dumps([result], indent=2, ensure_ascii=False)
                file.write(("[" if empty else ",") + text.removeprefix("[").removesuffix("\n]"))
                empty = False
            yield prediction
        file.write("[]\n" if empty else "\n]\n")


def _as_rows(predictions: "Iterable[Prediction]", path: Path, headings: Sequence[str]) -> "Iterator[Prediction]":
    with _whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", *headings])
        for prediction in predictions:
            cell = _path_cell(prediction.path)
            writer.writerows([cell, *map(_cell, row)] for row in prediction.rows)
            yield prediction


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """A file of text that appears once it is whole."""
    with replacing(path) as file:
        # Lone surrogates, which stand for bytes of a file name, have no other form in UTF-8.
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        yield text
        text.flush()
        text.detach()


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
