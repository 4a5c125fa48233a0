"""What `acmix validate` and `export` show."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import get_console
from rich.markup import escape

from acmix.cli.display.tables import WIDEST_MATRIX, make_table, print_json

if TYPE_CHECKING:
    from acmix.data import EvaluationImages
    from acmix.tasks.classification.inference import Evaluation


def show_evaluation(evaluation: "Evaluation", found: "EvaluationImages", *, as_json: bool) -> None:
    """Show `acmix validate`."""
    if as_json:
        print_json(asdict(evaluation) | found.facts)
        return
    console = get_console()
    # Plain text: paths must not be wrapped, or they cannot be copied.
    sys.stdout.write(f"measured: {found.measured}\n")
    if found.trained_on:
        sys.stdout.write(f"left out: {found.trained_on:,} images that the network was trained on\n")
    if found.changed:
        sys.stdout.write(f"left out: {found.changed:,} images that changed since the network was trained on them\n")
    sys.stdout.writelines(f"note: {note}\n" for note in found.notes)
    top5 = "" if evaluation.top5 is None else f", top-5 {evaluation.top5:.2%}"
    console.print(f"{evaluation.images:,} images: top-1 {evaluation.top1:.2%}{top5}", highlight=False, style="bold")
    scores = make_table("per class")
    for heading in ("class", "images", "recall", "precision", "F1"):
        scores.add_column(heading, justify="left" if heading == "class" else "right")
    for score in evaluation.classes:
        percents = (f"{value:.2%}" for value in (score.recall, score.precision, score.f1))
        scores.add_row(escape(score.name), str(score.images), *percents)
    console.print(scores)
    if len(evaluation.classes) > WIDEST_MATRIX:
        console.print(f"confusion matrix of {len(evaluation.classes)} classes: see --json")
        return
    matrix = make_table("confusion matrix (row: true, column: predicted)")
    matrix.add_column("")
    for score in evaluation.classes:
        matrix.add_column(escape(score.name), justify="right")
    for score, row in zip(evaluation.classes, evaluation.confusion_matrix, strict=True):
        matrix.add_row(escape(score.name), *(str(count) if count else "." for count in row))
    console.print(matrix)


def show_onnx(written: Any) -> None:
    """Show an `acmix.export.OnnxExport`: the file and how it compares to the network in ONNX Runtime."""
    table = make_table(f"{written.path}: {written.operators:,} operators")
    for heading in ("images", "largest difference", "relative error", "of PyTorch"):
        table.add_column(heading, justify="left" if heading == "images" else "right")
    for check in written.checks:
        errors = (f"{value:.1e}" for value in (check.difference, check.error, check.own_error))
        table.add_row(" x ".join(map(str, check.shape)), *errors)
    table.caption = "ONNX Runtime against PyTorch; errors of both against float64"
    get_console().print(table)
    sys.stdout.write(f"largest difference: {written.largest_difference:.1e}\n")
