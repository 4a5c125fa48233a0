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


def make_table(title: str, **options: Any) -> Table:
    """A table in the one style of the command line."""
    return Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE, **options)


def print_json(content: Any) -> None:
    """Write JSON for programs, names as they are."""
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
