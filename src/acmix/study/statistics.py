"""What few paired numbers can say: Student's intervals, paired tests, Holm's correction for several of them."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

# With fewer pairs the signed ranks cannot reach 0.05: their smallest two-sided probability is 2 / 2**n.
FEWEST_RANKS = 6


@dataclass(frozen=True)
class Interval:
    """A mean and the half width of its 95 % interval."""

    mean: float
    margin: float


@dataclass(frozen=True)
class Paired:
    """A comparison of two samples measured in pairs.

    Attributes:
        difference: Mean of first - second with its interval.
        t_test: Two-sided probability of Student's paired t-test; None where all differences are equal, so that there
            is no spread to test with.
        ranks: That of Wilcoxon's signed-rank test; None also for fewer than `FEWEST_RANKS` pairs.
    """

    difference: Interval
    t_test: float | None
    ranks: float | None


def interval(sample: Sequence[float]) -> Interval:
    """Mean and 95 % interval: mean +- t(0.975, n - 1) s / sqrt(n) (Student, Biometrika 6, 1908).

    Raises:
        ValueError: If there are fewer than two numbers.
    """
    if len(sample) < 2:
        raise ValueError(f"sample must hold at least 2 numbers, got {len(sample)}")
    quantile = float(stats.t.ppf(0.975, len(sample) - 1))
    return Interval(statistics.fmean(sample), quantile * statistics.stdev(sample) / math.sqrt(len(sample)))


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compare two samples pair by pair.

    Args:
        first: One number a pair.
        second: The other, in the same order.

    Raises:
        ValueError: If they differ in length or hold fewer than two pairs.
    """
    changes = [one - other for one, other in zip(first, second, strict=True)]
    difference = interval(changes)
    # Shares of images are not exact in binary, nor are differences between them.
    if max(changes) - min(changes) < 1e-9:
        return Paired(difference, None, None)
    t_test = float(stats.ttest_rel(first, second).pvalue)
    if len(changes) < FEWEST_RANKS:
        return Paired(difference, t_test, None)
    # Ties in exact arithmetic are ties here.
    ranks = float(stats.wilcoxon([round(change, 9) for change in changes]).pvalue)
    return Paired(difference, t_test, ranks)


def holm(probabilities: Sequence[float | None]) -> list[float | None]:
    """Probabilities corrected for being several (Holm, Scand. J. Statist. 6, 1979).

    The i-th smallest of m, counted from 0, is multiplied by m - i; none falls below a smaller one, none exceeds 1.

    Args:
        probabilities: Of the tests of one family; None is no test and stays.
    """
    order = sorted((value, place) for place, value in enumerate(probabilities) if value is not None)
    corrected: list[float | None] = [None] * len(probabilities)
    largest = 0.0
    for rank, (value, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * value))
        corrected[place] = largest
    return corrected
