"""What all tables of the command line share."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich import box, get_console
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

# A wider confusion matrix is not read on a terminal; --json has it.
WIDEST_MATRIX = 20
# Faults of one kind that are named on a terminal; --json names all.
NAMED = 5


def duration(seconds: float) -> str:
    """Whole seconds as H:MM:SS."""
    return str(timedelta(seconds=round(seconds)))


class _Table(Table):
    """A table that breaks what is too wide, and cuts nothing off."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row, and the columns that it needs."""
        super().add_row(*cells, **options)
        for column in self.columns:
            column.overflow = "fold"


def make_table(title: str, **options: Any) -> Table:
    """A table in the one style of the command line."""
    return _Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE, **options)


def print_wide(
    title: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    named: int = 1,
    numbers: bool = False,
    styles: Mapping[int, str] | None = None,
) -> None:
    """Print a table as several where the terminal is too narrow for it, so that no word is broken.

    Args:
        title: Of the first of them.
        headings: Of the columns.
        rows: Cells.
        named: The first columns, which name a row and are in all tables.
        numbers: Whether the other columns are numbers: they stand on the right, and stay on one line.
        styles: Of columns, by their places.
    """
    console = get_console()
    # The names and one column fit, whatever is in them.
    most = (console.width - 1) // (named + 1) - 3
    widths = [
        _least_width(heading, cells, most, whole=numbers and place >= named)
        for place, (heading, *cells) in enumerate(zip(headings, *rows, strict=True))
    ]
    places, others = [*range(named)], [*range(named, len(headings))]
    while others:
        # Beside each column stand three spaces, and at the table's start one.
        room = console.width - 1 - sum(widths[place] + 3 for place in places)
        fitting = 1
        while fitting < len(others) and sum(widths[place] + 3 for place in others[: fitting + 1]) <= room:
            fitting += 1
        table = make_table(title)
        for place in (shown := places + others[:fitting]):
            justify = "right" if numbers and place >= named else "left"
            style = (styles or {}).get(place)
            table.add_column(escape(headings[place]), justify=justify, min_width=widths[place], style=style)
        for row in rows:
            table.add_row(*(escape(row[place]) for place in shown))
        console.print(table)
        others, title = others[fitting:], ""


def _least_width(heading: str, cells: Sequence[str], most: int, *, whole: bool) -> int:
    """So wide that no word of a column is broken, and no cell if they are whole, unless that is beyond a bound."""
    words = [*heading.split(), *(word for cell in cells for word in ([cell] if whole else cell.split())), ""]
    return min(most, max(map(cell_len, words)))


def print_json(content: Any) -> None:
    """Write JSON for programs, names as they are."""
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
