"""What pages show of a kind of training alone: a module of this package, and a template, by the name of the kind."""

from importlib import import_module
from typing import Any


def part_of(task: str) -> Any:
    """The module with `known`, `look` and `contents`, what a report shows, and `draw`, a prediction on its picture.

    `draw` gives the content of files by what follows the image's name in theirs: `.png` and others.
    """
    return import_module(f"acmix.pages.{task}")
