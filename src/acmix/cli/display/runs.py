"""What `acmix compare` shows."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich import get_console
from rich.markup import escape

from acmix.cli.display.tables import make_table, print_json

if TYPE_CHECKING:
    from acmix.tasks.comparison import RunComparison


def show_runs(comparison: "RunComparison", *, as_json: bool) -> None:
    """Show `acmix compare`: facts, then the settings in which the runs differ; unfinished runs stand out."""
    if as_json:
        print_json(asdict(comparison))
        return
    table = make_table(f"{len(comparison.runs)} runs")
    table.add_column("")
    for run in comparison.runs:
        table.add_column(escape(run.run), style=None if run.finished else "yellow", overflow="fold")
    for name, cells in comparison.facts.items():
        table.add_row(name, *map(escape, cells))
    table.add_row("", *("" for _ in comparison.runs))
    table.add_row("[bold]where they differ[/]" if comparison.differing else "they do not differ")
    for name, values in comparison.differing.items():
        table.add_row(escape(name), *(escape(str(value)) for value in values))
    get_console().print(table)
