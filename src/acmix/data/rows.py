"""Images that are rows of what holds all of a split."""

import copy
from array import array
from collections.abc import Sequence
from typing import Self

from acmix.data.labels import taken
from acmix.data.sources import SplittableImages


class RowImages(SplittableImages):
    """Images of a file or a table that holds all of a split, by their rows.

    Attributes:
        split_name: With which names begin; empty where there is one split.
        rows: Those that are taken, one an image, in order.
    """

    split_name: str
    rows: "array[int]"

    def __len__(self) -> int:
        """Count the images."""
        return len(self.rows)

    def name(self, index: int) -> str:
        """The row, with its split: `train/12`."""
        return f"{self.split_name}/{self.rows[index]}" if self.split_name else str(self.rows[index])

    def subset(self, indices: Sequence[int]) -> Self:
        """Return the images at these indices, in this order."""
        chosen = copy.copy(self)
        chosen.rows = array("q", (self.rows[index] for index in indices))
        chosen.labels = taken(self.labels, indices)
        return chosen
