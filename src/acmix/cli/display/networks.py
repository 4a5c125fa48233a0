"""What `acmix validate` and `export` show."""

import sys
from typing import TYPE_CHECKING, Any

from rich import get_console
from rich.markup import escape

from acmix.cli.display.tables import WIDEST_MATRIX, make_table, print_json
from acmix.errors import counted

if TYPE_CHECKING:
    from acmix.export.detector import DetectorExport
    from acmix.tasks.loop.results import Measured


def show_evaluation(measured: "Measured", *, as_json: bool) -> None:
    """Show `acmix validate`."""
    if as_json:
        print_json(measured.record)
        return
    console, found = get_console(), measured.found
    # Plain text: paths must not be wrapped, or they cannot be copied.
    sys.stdout.write(f"measured: {found.measured}\n")
    if found.trained_on:
        sys.stdout.write(f"left out: {counted(found.trained_on, 'image')} that the network was trained on\n")
    if found.changed:
        sys.stdout.write(f"left out: {counted(found.changed, 'image')}, changed since the network was trained\n")
    sys.stdout.writelines(f"note: {note}\n" for note in found.notes)
    console.print(measured.evaluation.words, highlight=False, style="bold")
    for each in measured.evaluation.tables:
        if len(each.heading) - 1 > WIDEST_MATRIX:
            console.print(f"{each.title.partition(' (')[0]} of {len(each.heading) - 1} classes: see --json")
            continue
        table = make_table(each.title)
        for place, heading in enumerate(each.heading):
            table.add_column(escape(heading), justify="right" if place else "left")
        for row in each.rows:
            table.add_row(*map(escape, row))
        console.print(table)


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


def show_detector(written: "DetectorExport") -> None:
    """Show what a detector's file takes and gives, and how it compares to the network in ONNX Runtime."""
    shape, outputs = " x ".join(map(str, written.input_size)), ", ".join(written.outputs)
    sys.stdout.write(f"{written.path}: {written.operators:,} operators, images of {shape} in 0..1 to {outputs}\n")
    found = f"{written.compared - written.lost:,} of {written.compared:,} detections of PyTorch"
    sys.stdout.write(f"ONNX Runtime finds {found}, scores differ by at most {written.difference:.1e}\n")
