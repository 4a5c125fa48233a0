"""What `acmix compare` shows."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich import get_console

from acmix.cli.display.tables import print_json, print_wide
from acmix.errors import counted

if TYPE_CHECKING:
    from acmix.tasks.comparison import RunComparison


# Letters of a path that stay on one line.
_LONG = 24


def show_runs(comparison: "RunComparison", *, as_json: bool) -> None:
    """Show `acmix compare`: facts, then the settings in which the runs differ; unfinished runs stand out."""
    if as_json:
        print_json(asdict(comparison))
        return
    names = ["", *(_in_pieces(run.run) for run in comparison.runs)]
    styles = {place: "yellow" for place, run in enumerate(comparison.runs, 1) if not run.finished}
    facts = [(name, *cells) for name, cells in comparison.facts.items()]
    print_wide(counted(len(comparison.runs), "run"), names, facts, styles=styles)
    if len(comparison.runs) == 1:
        return
    if not comparison.differing:
        get_console().print("they do not differ")
        return
    rows = [(name, *(_in_pieces(str(value)) for value in values)) for name, values in comparison.differing.items()]
    print_wide("where they differ", names, rows, styles=styles)


def _in_pieces(path: str) -> str:
    """A path that may be broken behind its folders, where it is long."""
    return path if len(path) <= _LONG else path.replace("/", "/ ").strip()
