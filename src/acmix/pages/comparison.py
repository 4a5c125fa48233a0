"""Runs side by side as an HTML page that opens without a network."""

from collections.abc import Sequence
from pathlib import Path

from acmix.pages import figures, html
from acmix.storage import check_file
from acmix.tasks.comparison import RunComparison
from acmix.tasks.loop.measures import Measure
from acmix.tasks.record import Run

# Letters of a name in a legend.
_NAME = 40


def write_comparison(runs: Sequence[Run], comparison: RunComparison, output: Path) -> Path:
    """Write runs side by side.

    Args:
        runs: The runs.
        comparison: What `acmix.tasks.comparison.compare_runs` made of them.
        output: The HTML file.

    Returns:
        The file written.

    Raises:
        InputError: If no file can stand at output.
    """
    check_file("output", output)
    shown = [(item, name) for item, name in zip(runs, _short_names(runs), strict=True) if item.rows]
    panels = [
        (f"Validation {each.title}", *_axis(each), "")
        for each in (shown[0][0].measures if shown else ())
        if all(each.name in item.rows[0] for item, _ in shown)
    ]
    panels += [
        (
            "Training loss",
            "training loss, nats",
            "train_loss",
            1,
            "Comparable where loss, class weights, label smoothing and mixing are.",
        ),
        (
            "Speed",
            "images/s",
            "images_per_second",
            1,
            "Images trained on in a second; median over epochs in the table.",
        ),
    ]
    curves = [
        html.Panel(
            title,
            figures.lines(unit, [figures.over_epochs(name, item.rows, column, factor) for item, name in shown]),
            note,
        )
        for title, unit, column, factor, note in panels
        if shown
    ]
    context = {
        "title": f"{len(runs)} runs - acmix",
        "runs": comparison.runs,
        "heading": ["", *(item.run for item in comparison.runs)],
        "unfinished": [place for place, item in enumerate(comparison.runs, 1) if not item.finished],
        "facts": [[words, *cells] for words, cells in comparison.facts.items()],
        "differing": [[name, *map(html.as_typed, values)] for name, values in comparison.differing.items()],
        "curves": curves,
    }
    html.write("compare.html", context, output)
    return output


def _short_names(runs: Sequence[Run]) -> list[str]:
    """Names that fit under a figure: of the folders if they differ, else the ends of their paths."""
    names = [item.folder.resolve().name for item in runs]
    names = names if len(set(names)) == len(names) else [str(item.folder) for item in runs]
    return [name if len(name) <= _NAME else f"...{name[3 - _NAME :]}" for name in names]


def _axis(measure: Measure) -> tuple[str, str, float]:
    """The words of its axis, its column, and what its values are multiplied by."""
    unit, factor = ("%", 100) if measure.share else ("nats", 1)
    return f"validation {measure.title}, {unit}", measure.name, factor
