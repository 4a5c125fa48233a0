"""What all tables of the command line share."""

import json
import sys
from datetime import timedelta
from typing import Any

from rich import box
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


def print_json(content: Any) -> None:
    """Write JSON for programs, names as they are."""
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
