"""What `acmix study show --plot` writes: a study drawn from its results alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from acmix.errors import printable
from acmix.pages import theme
from acmix.pages.plots import written
from acmix.pages.theme import colour

if TYPE_CHECKING:
    from acmix.study import Summary

# Letters in points; the panels of a row divide so many columns.
_SMALL, _COLUMNS = 8, 6
# How names of networks end that have operators behind convolutions.
_AT_THE_END = ("last-stage", "last-two-stages")


def plot(kind: str, summaries: "Sequence[Summary]", batch: int) -> bytes:
    """Plot of a study: what networks score over what they cost and over epochs, and the rates that they learn.

    Args:
        kind: "png" or "svg".
        summaries: Of the networks.
        batch: Images a call when times were measured.
    """
    first = _score(summaries)
    named = (f"{item.cost.title} {100 * item.scores[first].mean:.1f} %" for item in summaries)
    rates = ", and the rates of its layers" * any(item.rates for item in summaries)
    label = (
        f"Validation {first}, mean over seeds, beside what a network costs and over epochs{rates}: {', '.join(named)}"
    )
    return written(_figure(summaries, batch), kind, label)


def _score(summaries: "Sequence[Summary]") -> str:
    return next(iter(summaries[0].scores))


@theme.drawn
def _figure(summaries: "Sequence[Summary]", batch: int) -> Figure:
    costs = {
        "parameters, thousands": [item.cost.parameters / 1e3 for item in summaries],
        "multiply-adds an image, millions": [item.cost.multiply_adds / 1e6 for item in summaries],
    }
    times = [item.cost.training.fastest / batch for item in summaries if item.cost.training is not None]
    if len(times) == len(summaries):
        costs["forward + backward an image, ms"] = [1e3 * seconds for seconds in times]
    learned = any(item.rates for item in summaries)
    figure = Figure(figsize=(10.2, 6.2 + 0.1 * len(summaries)), layout="constrained")
    above, below = (_row(figure, row, panels) for row, panels in enumerate((len(costs), 3 if learned else 1)))
    for axes, (label, values) in zip(above, costs.items(), strict=True):
        _over_cost(axes, summaries, values)
        axes.set(xlabel=label, ylabel=f"validation {_score(summaries)}, %")
    _over_epochs(below[0], summaries)
    for path, axes in enumerate(below[1:]):
        _rates(axes, summaries, path)
    handles, labels = above[0].get_legend_handles_labels()
    theme.legend(figure, 2, _SMALL, handles=handles, labels=labels)
    return figure


def _row(figure: Figure, row: int, panels: int) -> list[Axes]:
    wide = _COLUMNS // panels
    return [
        figure.add_subplot(2, _COLUMNS, (row * _COLUMNS + at + 1, row * _COLUMNS + at + wide))
        for at in range(0, _COLUMNS, wide)
    ]


def _look(place: int) -> dict[str, Any]:
    """Marker and colour of a network, the same in every panel."""
    return {"marker": theme.MARKERS[place % len(theme.MARKERS)], "color": colour(theme.HUES[place % len(theme.HUES)])}


def _over_cost(axes: Axes, summaries: "Sequence[Summary]", costs: Sequence[float]) -> None:
    """With 95 % intervals."""
    step, first = 0.02 * ((max(costs) - min(costs)) or max(costs)), _score(summaries)
    for place, (item, cost) in enumerate(zip(summaries, costs, strict=True)):
        # Networks of nearly equal cost are drawn side by side.
        equals = [other for other, value in enumerate(costs) if abs(value - cost) < 2 * step]
        axes.errorbar(
            cost + step * (equals.index(place) - (len(equals) - 1) / 2),
            100 * item.scores[first].mean,
            yerr=100 * item.scores[first].margin,
            markersize=5,
            linestyle="",
            capsize=3,
            label=printable(item.cost.title),
            **_look(place),
        )
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _over_epochs(axes: Axes, summaries: "Sequence[Summary]") -> None:
    for place, item in enumerate(summaries):
        values = [100 * score for score in item.curve]
        axes.plot(range(1, len(values) + 1), values, markersize=3, linewidth=1, **_look(place))
    axes.set(xlabel="epoch", ylabel=f"validation {_score(summaries)}, %")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _rates(axes: Axes, summaries: "Sequence[Summary]", path: int) -> None:
    most = max(len(item.rates) for item in summaries)
    for place, item in enumerate(summaries):
        rates = [layer[path] for layer in item.rates]
        # Where they stand in the network whose bottlenecks all have one.
        before = most - len(rates) if item.name.endswith(_AT_THE_END) else 0
        axes.plot([before + at for at in range(1, len(rates) + 1)], rates, markersize=4, linewidth=1, **_look(place))
    axes.set(xlabel="operator, first to last", ylabel=f"rate of {('attention', 'convolution')[path]}, learned")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
