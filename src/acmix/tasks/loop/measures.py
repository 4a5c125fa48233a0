"""What validations find, as columns of metrics.csv: how epochs are ranked by them, how pages and tables show them."""

from collections.abc import Sequence
from dataclasses import dataclass

EpochRow = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A column of metrics.csv that a validation fills.

    Attributes:
        name: Of the column.
        title: In words, after "validation".
        share: Whether it is a share of 1, shown in percent.
        falling: Whether less is better.
        optional: Whether some runs of the kind do not have it.
    """

    name: str
    title: str
    share: bool = False
    falling: bool = False
    optional: bool = False

    def described(self, value: float) -> str:
        """Title and value in words: "top-1 33.43%"."""
        return f"{self.title} {value:.2%}" if self.share else f"{self.title} {value:.4f}"


def stale_epochs(rows: Sequence[EpochRow], measures: Sequence[Measure]) -> int:
    """How many of the last epochs were no better by the first measure than the best before them."""
    first = measures[0]
    values = [-row[first.name] if first.falling else row[first.name] for row in rows]
    return len(values) - 1 - values.index(max(values)) if values else 0


def best_epoch(rows: Sequence[EpochRow], measures: Sequence[Measure]) -> EpochRow:
    """The row that is best by the first measure; of equals, by the next."""

    def rank(row: EpochRow) -> list[float]:
        known = [each for each in measures if each.name in row]
        return [-row[each.name] if each.falling else row[each.name] for each in known]

    return max(rows, key=rank)
