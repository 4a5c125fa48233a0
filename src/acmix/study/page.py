"""A study as Markdown: what was trained, a line a network, every test, and what follows; nothing is typed by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from acmix.errors import counted
from acmix.study.kinds import KINDS
from acmix.study.results import ACMIX, CONVOLUTION, EQUAL_TIME, Study
from acmix.study.statistics import FEWEST_RANKS
from acmix.study.summary import Difference, Summary, differences, summarise
from acmix.tasks.loop.fields import defaults

_LEVEL = 0.05
# Settings that a study's first lines have words for.
_TOLD = ("model", "backbone", "epochs", "batch_size", "optimizer", "learning_rate", "image_size")


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        headings: Of its columns.
        rows: Cells.
        named: How many columns on the left are names, not numbers.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    named: int


def as_markdown(study: Study) -> str:
    """Tables and sentences.

    Raises:
        InputError: If fewer than two seeds are finished.
    """
    return "\n\n".join(part if isinstance(part, str) else _in_markdown(part) for part in parts(study)) + "\n"


def _in_markdown(table: Table) -> str:
    rows = [table.headings, *table.rows]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([lines[0], f"|{'---|' * len(table.headings)}", *lines[1:]])


def parts(study: Study) -> list[str | Table]:
    """What there is to say, in its order; names of code stand in backquotes.

    Raises:
        InputError: If fewer than two seeds are finished.
    """
    summaries, tests = summarise(study), differences(study)
    found = [_conditions(study), _networks(summaries, study)]
    found += [*_tests(tests, study), _rates(summaries), _verdict(summaries, tests, _titles(study))]
    return [part for part in found if part]


def _conditions(study: Study) -> str:
    data, settings, seeds = study.data, study.settings, study.seeds()
    size = " x ".join(map(str, data["input_size"]))
    kind, first = KINDS[study.task], study.scores[0].title
    shape = settings["model"] if kind.operators == "model" else f"{settings['model']} on {settings[kind.operators]}"
    score = f"{first[0].upper()}{first[1:]}"
    epochs, trainings = counted(settings["epochs"], "epoch"), counted(len(seeds), "seed")
    text = (
        f"Data `{data['location']}`: {data['train_images']:,} images to train on, {data['validation_images']:,} to "
        f"validate with, {data['classes']} classes, input {size}. Shape of `{shape}`, {epochs}, "
        f"batch {settings['batch_size']}, {settings['optimizer']}, learning rate {settings['learning_rate']:g}, "
        f"{trainings} ({', '.join(map(str, seeds))}). {score} is that of the last epoch, mean and 95 % interval "
        "over the seeds (Student's t). Trainings with one seed share split, order, augmentation and batches."
    )
    if others := _other_settings(study):
        text += f" Otherwise as `acmix train` does by default, but {others}."
    if before := data.get("pretraining"):
        text += (
            " All networks of a seed start from one with 3x3 convolutions, trained "
            f"{counted(before['epochs'], 'epoch')} at {before['learning_rate']:g}; operators start warm."
        )
    # A network that is added takes the times of the others away.
    if all(item.forward is not None for item in study.variants.values()):
        where, timed = study.machine, f" of {kind.timed}" if kind.timed else ""
        text += (
            f" Times{timed}: batch {study.batch}, fastest of interleaved runs in one process on {where['processor']} "
            f"({where['instructions']}, compiled kernels: {where['kernels']}), threads: {where['threads']}, "
            f"torch {where['torch']}, revision {where['revision']}, {where['withheld_share']:.0%} of a busy thread's "
            "time withheld."
        )
    return text


def _other_settings(study: Study) -> str:
    """What was trained with and is neither told elsewhere nor the default."""
    usual, settings = defaults(KINDS[study.task].settings), study.settings
    changed = {name: value for name, value in settings.items() if name in usual and value != usual[name]}
    return ", ".join(f"`{name}` {value}" for name, value in changed.items() if name not in _TOLD)


def _networks(summaries: list[Summary], study: Study) -> Table:
    batch = study.batch
    headings = (
        "network",
        *(f"{each.title}, %" for each in study.scores),
        "training loss",
        "parameters",
        "multiply-adds, M",
        "forward, ms an image",
        "forward + backward, ms an image",
    )
    rows: list[Sequence[str]] = []
    for item in summaries:
        cost = item.cost
        times = [
            "not measured" if timing is None else f"{1e3 * timing.fastest / batch:.3f}"
            for timing in (cost.forward, cost.training)
        ]
        scores = [f"{100 * each.mean:.2f} ± {100 * each.margin:.2f}" for each in item.scores.values()]
        costs = (f"{item.train_loss:.3f}", f"{cost.parameters:,}", f"{cost.multiply_adds / 1e6:.2f}")
        rows.append((cost.title, *scores, *costs, *times))
    return Table(headings, rows, named=1)


def _tests(tests: list[Difference], study: Study) -> list[str | Table]:
    if not tests:
        return []
    titles, several = _titles(study), len(study.scores) > 1
    headings = (
        *["of"] * several,
        "network",
        "minus",
        "difference, points",
        "t-test",
        "corrected",
        "Wilcoxon, corrected",
    )
    rows: list[Sequence[str]] = []
    for item in tests:
        cells = [_probability(value) for value in (item.found.t_test, item.t_test, item.ranks)]
        named = (*[item.score] * several, titles[item.name], titles[item.reference])
        rows.append((*named, _points(item), *cells))
    ranks = (
        ""
        if len(study.seeds()) >= FEWEST_RANKS
        else f" Wilcoxon's test is left out: with fewer than {FEWEST_RANKS} seeds it cannot reach {_LEVEL}."
    )
    note = (
        "Differences are paired by seed, with 95 % intervals; two-sided paired t-tests and Wilcoxon's signed-rank "
        f"tests, corrected for all {len(tests)} comparisons by Holm.{ranks}"
    )
    return [Table(headings, rows, named=2 + several), note]


def _titles(study: Study) -> dict[str, str]:
    named = {name: item.title for name, item in study.variants.items()}
    return named | {EQUAL_TIME: "3x3 convolutions of equal time, between two widths"}


def _rates(summaries: list[Summary]) -> str:
    """What the rates of every network that learns them have become."""
    found = [
        f"{item.cost.title}: {', '.join(' / '.join(f'{rate:.2f}' for rate in layer) for layer in item.rates)}."
        for item in summaries
        if item.rates
    ]
    return " ".join(["Rates learned, attention / convolution, operator by operator, means.", *found]) if found else ""


def _points(item: Difference) -> str:
    found = item.found.difference
    return f"{100 * found.mean:+.2f} ± {100 * found.margin:.2f}"


def _probability(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.001" if value < 1e-3 else f"{value:.3f}"


def _verdict(summaries: list[Summary], tests: list[Difference], titles: Mapping[str, str]) -> str:
    """Who wins, and which differences are more than chance."""
    first = next(iter(summaries[0].scores))
    best = max(summaries, key=lambda item: item.scores[first].mean)
    sentences = [f"Highest mean {first}: {best.cost.title}."]
    for item in tests:
        if (item.score, item.name, item.reference) == (first, ACMIX, CONVOLUTION):
            apart = item.t_test is not None and item.t_test < _LEVEL
            judged = "tells" if apart else "does not tell"
            sentences.append(
                f"{titles[ACMIX]}, against {titles[CONVOLUTION]}: {_points(item)} points; the test {judged} them apart "
                f"at {_LEVEL} (corrected p {_probability(item.t_test)})."
            )
    apart = [item for item in tests if item.t_test is not None and item.t_test < _LEVEL]
    if tests:
        several = len(summaries[0].scores) > 1
        named = "; ".join(
            f"{titles[item.name]} against {titles[item.reference]}, {f'{item.score} ' * several}{_points(item)}"
            for item in apart
        )
        sentences.append(f"Differences that hold after correction: {named or 'none'}.")
    return " ".join(sentences)
