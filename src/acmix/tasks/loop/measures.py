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


def best_epoch(rows: Sequence[EpochRow], measures: Sequence[Measure]) -> EpochRow:
    """The row that is best by the first measure; of equals, by the next."""

    def rank(row: EpochRow) -> list[float]:
        known = [each for each in measures if each.name in row]
        return [-row[each.name] if each.falling else row[each.name] for each in known]

    return max(rows, key=rank)
