"""What `acmix predict` shows and writes."""

import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from acmix.cli.display.tables import print_json
from acmix.errors import printable
from acmix.storage import replacing

if TYPE_CHECKING:
    from acmix.tasks.classification.inference import Prediction

# What spreadsheets take for the beginning of a formula, the wide forms of East Asia among them.
_FORMULA = re.compile("[=+@\uff1d\uff0b\uff0d\uff20-]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def show_predictions(predictions: "Iterable[Prediction]", *, as_json: bool) -> None:
    """Print predictions: one line an image as they come, or JSON of all."""
    if as_json:
        print_json([_record(prediction) for prediction in predictions])
        return
    for prediction in predictions:
        scores = "  ".join(f"{name} {value:.1%}" for name, value in prediction.scores)
        sys.stdout.write(f"{printable(prediction.path)}: {scores}\n")


def write_table(predictions: "Iterable[Prediction]", path: Path, *, columns: int) -> int:
    """Write predictions as they come; the file appears once it is whole.

    Args:
        predictions: Of any number.
        path: JSON by its suffix, as `show_predictions` prints it, else CSV.
        columns: How many classes each has.

    Returns:
        How many there were.
    """
    write = _write_json if path.suffix.lower() == ".json" else _write_csv
    with replacing(path) as file:
        # Lone surrogates, which stand for bytes of a file name, have no other form in UTF-8.
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        count = write(text, predictions, columns)
        text.flush()
        text.detach()
    return count


def _write_json(file: TextIO, predictions: "Iterable[Prediction]", columns: int) -> int:
    del columns
    count = 0
    for prediction in predictions:
        record = json.dumps([_record(prediction)], indent=2, ensure_ascii=False)
        file.write(("," if count else "[") + record.removeprefix("[").removesuffix("\n]"))
        count += 1
    file.write("\n]\n" if count else "[]\n")
    return count


def _write_csv(file: TextIO, predictions: "Iterable[Prediction]", columns: int) -> int:
    writer = csv.writer(file, lineterminator="\n")
    names = ["", *(f"_{rank}" for rank in range(2, columns + 1))]
    writer.writerow(["path", *(f"{kind}{name}" for name in names for kind in ("label", "probability"))])
    count = 0
    for prediction in predictions:
        writer.writerow([_path_cell(prediction.path), *_cells(prediction)])
        count += 1
    return count


def _cells(prediction: "Prediction") -> Iterator[str]:
    for name, value in prediction.scores:
        text = printable(name)
        harmless = not _FORMULA.match(text) or _NUMBER.fullmatch(text)
        # As spreadsheets mark text that is none.
        yield text if harmless else f"'{text}"
        yield f"{value:.6g}"


def _path_cell(path: Path) -> str:
    text = printable(path)
    return os.path.join(os.curdir, text) if _FORMULA.match(text) else text


def _record(prediction: "Prediction") -> dict[str, Any]:
    classes = [{"name": name, "probability": value} for name, value in prediction.scores]
    return {"path": str(prediction.path), "classes": classes}
