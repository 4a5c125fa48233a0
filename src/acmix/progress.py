"""How functions that take long tell of their progress: whoever calls them hands in who shows it. A leaf."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """Shows how far a function is with many items, of which it takes one after another."""

    def __call__(self, items: Iterable[Item], doing: str, total: int, noun: str = "image") -> Iterator[Item]:
        """Hand the items on, and show it.

        Args:
            items: What is worked on, or what comes of it.
            doing: What is done with them, "reading images" for instance.
            total: How many items there will be.
            noun: What an item is.
        """
        ...


def silent(items: Iterable[Item], doing: str, total: int, noun: str = "image") -> Iterator[Item]:
    """The `Progress` that shows nothing."""
    del doing, total, noun
    return iter(items)
