"""A study in numbers: a line a network, and every difference that is tested."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from acmix.errors import InputError
from acmix.study.kinds import Score
from acmix.study.results import ACMIX, CONVOLUTION, EQUAL_TIME, FIXED, Measured, Study, Trained
from acmix.study.statistics import Interval, Paired, holm, interval, paired


@dataclass(frozen=True)
class Summary:
    """One network.

    Attributes:
        name: Of the variant.
        cost: What it costs.
        scores: What networks are compared by: mean over seeds with its interval, 0 to 1, by title.
        train_loss: Mean over seeds, of the last epoch.
        curve: The first of the scores after every epoch, mean over seeds.
        rates: Of every operator after training, attention and convolution, means over seeds; empty where none are
            learned.
    """

    name: str
    cost: Measured
    scores: dict[str, Interval]
    train_loss: float
    curve: list[float]
    rates: list[tuple[float, ...]]


@dataclass(frozen=True)
class Difference:
    """A difference between two networks over the same seeds.

    Attributes:
        score: Title of what it is a difference in.
        name: Of the variant.
        reference: Of the one it is compared with; `EQUAL_TIME` for convolutions whose training step takes as long.
        found: The difference and its tests.
        t_test: Probability of the t-test, Holm's correction over all differences of the study applied.
        ranks: The same of Wilcoxon's test.
    """

    score: str
    name: str
    reference: str
    found: Paired
    t_test: float | None
    ranks: float | None


def summarise(study: Study) -> list[Summary]:
    """A summary of every network, in the order of the study.

    Raises:
        InputError: If fewer than two seeds are finished.
    """
    seeds = study.seeds()
    if len(seeds) < 2:
        raise InputError(f"an interval needs every network trained with at least 2 seeds, got {len(seeds)}; train more")
    return [_summary(study, name, [item for item in study.trainings if item.seed in seeds]) for name in study.variants]


def _summary(study: Study, name: str, whole: Sequence[Trained]) -> Summary:
    own = [item for item in whole if item.variant == name]
    layers = zip(*(item.rates for item in own), strict=True) if name != FIXED else ()
    return Summary(
        name,
        study.variants[name],
        {each.title: interval(study.found(each, name)) for each in study.scores},
        statistics.fmean(item.train_loss for item in own),
        curve=[statistics.fmean(values) for values in zip(*(item.curve for item in own), strict=True)],
        rates=[tuple(statistics.fmean(values) for values in zip(*layer, strict=True)) for layer in layers],
    )


def differences(study: Study) -> list[Difference]:
    """Every network's difference to the convolutions and to ACmix, where the study has those; each pair once.

    Where convolutions of several widths were trained and timed, also to those of equal time: what they score is taken
    for linear between two widths in the time of a training step, seed by seed. What is faster or slower
    than all of them has none.

    Raises:
        InputError: If fewer than two seeds are finished.
    """
    summarise(study)
    pairs = [
        (name, reference)
        for reference in (CONVOLUTION, ACMIX)
        for name in study.variants
        if reference in study.variants and name != reference and (name, reference) != (CONVOLUTION, ACMIX)
    ]
    compared: list[tuple[str, str, str]] = []
    found: list[Paired] = []
    for score in study.scores:
        for name, reference in pairs:
            compared.append((score.title, name, reference))
            found.append(paired(study.found(score, name), study.found(score, reference)))
        for name, values in _of_equal_time(study, score).items():
            compared.append((score.title, name, EQUAL_TIME))
            found.append(paired(study.found(score, name), values))
    tests = zip(holm([item.t_test for item in found]), holm([item.ranks for item in found]), strict=True)
    return [
        Difference(*names, item, t_test, ranks)
        for names, item, (t_test, ranks) in zip(compared, found, tests, strict=True)
    ]


def _of_equal_time(study: Study, score: Score) -> dict[str, list[float]]:
    """The scores of convolutions whose training step takes as long as that of a network, for each that has some."""
    times = {name: item.training.fastest for name, item in study.variants.items() if item.training is not None}
    plain = re.compile(rf"{CONVOLUTION}(-\d+)?")
    widths = sorted((time, name) for name, time in times.items() if plain.fullmatch(name))
    found: dict[str, list[float]] = {}
    for name in times.keys() - {name for _, name in widths}:
        for (short, narrow), (long, wide) in pairwise(widths):
            if short <= times[name] <= long:
                share = (times[name] - short) / (long - short)
                both = zip(study.found(score, narrow), study.found(score, wide), strict=True)
                found[name] = [(1 - share) * one + share * other for one, other in both]
                break
    return {name: found[name] for name in study.variants if name in found}
