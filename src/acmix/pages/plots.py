"""What `acmix bench --plot` writes, and the chart of the README: benchmarks, drawn from their results alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from acmix.bench import Comparison, Scaling
from acmix.pages import theme
from acmix.pages.theme import colour

_KINDS = {"forward": "forward", "training": "forward + backward"}
# Rows of a chart in inches, and letters in points.
_ROW, _SMALL = 0.26, 8


@dataclass(frozen=True)
class Row:
    """A line of a chart of ratios: of every candidate, forward and forward + backward as multiples of the baseline.

    Of a network for inference there is no second.
    """

    title: str
    times: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Group:
    """Rows under a heading."""

    heading: str
    rows: Sequence[Row]


def ratio(candidate: str, comparison: Comparison) -> tuple[float, ...]:
    """The fastest runs of a candidate, forward and forward + backward, in those of the baseline."""
    passes = zip(*(comparison.candidates[name].passes for name in (candidate, comparison.baseline)), strict=True)
    return tuple(measured.fastest / base.fastest for (measured, _), (base, _) in passes)


@theme.drawn
def ratios(groups: Sequence[Group], axis: str) -> Figure:
    """Dots on a logarithmic axis, a colour a candidate, full for forward and hollow for forward + backward.

    Args:
        groups: From top to bottom; the numbers themselves stand to the right.
        axis: Of what they are multiples.
    """
    rows = [row for group in groups for row in group.rows]
    names = list(dict.fromkeys(name for row in rows for name in row.times))
    hues = dict(zip(names, map(colour, (theme.ATTENTION, theme.CONVOLUTION, *theme.HUES[2:])), strict=False))
    figure = Figure(figsize=(4.8, _ROW * (len(rows) + len(groups) + 4)), layout="constrained")
    axes = figure.subplots()
    titles: list[str] = []
    # Headings begin where the longest title of a row does.
    margin = 7 + max(TextPath((0, 0), row.title, size=_SMALL).get_extents().width for row in rows)
    for group in groups:
        first = len(titles)
        _beside(axes, group.heading, (0, first), -margin, weight="bold")
        titles.append("")
        for row in group.rows:
            axes.axhline(len(titles), color=colour("grid"), linewidth=0.6, zorder=0)
            for column, name in enumerate(names):
                if name in row.times:
                    _pair(axes, len(titles), row.times[name], hues[name], column)
            titles.append(row.title)
        axes.vlines(1, first + 0.5, len(titles) - 0.5, color=colour("rule"), linewidth=1, zorder=1)
    axes.set(xscale="log", ylim=(len(titles) - 0.4, -0.6))
    axes.set_xlabel(axis, fontsize=_SMALL)
    axes.set_yticks(range(len(titles)), titles, parse_math=False)
    axes.tick_params(labelsize=_SMALL)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    _few_numbers(axes, [time for row in rows for times in row.times.values() for time in times])
    shown = [Line2D([], [], color=hue, marker="s", linestyle="", label=name) for name, hue in hues.items() if name]
    shown += [
        Line2D([], [], color=colour("ink"), marker="o", linestyle="", label=label, markerfacecolor=face)
        for label, face in zip(_KINDS.values(), (colour("ink"), colour("paper")), strict=True)
    ][: max(len(times) for row in rows for times in row.times.values())]
    figure.legend(handles=shown, fontsize=_SMALL, ncols=2, loc="outside upper center")
    return figure


def _beside(axes: Axes, words: str, place: tuple[float, int], offset: float, **style: Any) -> None:
    """Words in a row, some points to the right of a share of the width."""
    across = axes.get_yaxis_transform()
    axes.annotate(
        words, place, (offset, 0), xycoords=across, textcoords="offset points", va="center", fontsize=_SMALL, **style
    )


def _pair(axes: Axes, place: int, times: tuple[float, ...], hue: str, column: int) -> None:
    """A dot for each time, joined, and their numbers beside the axes."""
    axes.plot(times, [place] * len(times), color=hue, linewidth=1.2, zorder=2)
    for time, face in zip(times, (hue, colour("paper")), strict=False):
        axes.plot(time, place, marker="o", markersize=5.5, color=hue, markerfacecolor=face, zorder=3)
    numbers = " / ".join(f"{time:.2f}" if time < 10 else f"{time:.0f}" for time in times)
    _beside(axes, numbers, (1, place), 8 + 58 * column, color=hue)


def _few_numbers(axes: Axes, values: Sequence[float]) -> None:
    """Numbers on a logarithmic axis, more of them the less it spans, so that they do not collide."""
    low, high = min(0.7, 0.8 * min(values)), max(1.4, 1.4 * max(values))
    axes.set_xlim(low, high)
    steps = (1,) if high > 30 * low else (1, 2, 5) if high > 4 * low else (1, 1.5, 2, 3, 5, 7)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def benchmark(kind: str, *, comparisons: Sequence[Comparison] = (), scalings: Sequence[Scaling] = ()) -> bytes:
    """Plot of a benchmark: every candidate's time as a multiple of the baseline's, or growth with fitted exponents.

    Args:
        kind: "png" or "svg".
        comparisons: Cases of one benchmark.
        scalings: Growth over one axis each, if there are no comparisons.
    """
    if not comparisons:
        grows = "; ".join(f"as {each.axis}^{each.exponents['training']:.2f}" for each in scalings)
        return written(_growth(scalings), kind, f"Time of forward + backward grows {grows}")
    groups = [
        Group(each.title, [Row(name, {"": ratio(name, each)}) for name in each.candidates]) for each in comparisons
    ]
    said = "; ".join(
        f"{group.heading}: " + ", ".join(f"{row.title} {_said(row.times[''])}" for row in group.rows)
        for group in groups
    )
    kinds = [*_KINDS.values()][: len(groups[0].rows[0].times[""])]
    label = f"Time {' and '.join(kinds)} as a multiple of the baseline's. {said}"
    baselines = " or ".join(dict.fromkeys(each.baseline for each in comparisons))
    return written(ratios(groups, f"time as a multiple of that of {baselines}"), kind, label)


def _said(times: Sequence[float]) -> str:
    return " and ".join(f"{time:.2f}" for time in times)


@theme.drawn
def _growth(scalings: Sequence[Scaling]) -> Figure:
    figure = Figure(figsize=(4.8, 3.2 * len(scalings)), layout="constrained")
    for axes, scaling in zip(figure.subplots(len(scalings), squeeze=False)[:, 0], scalings, strict=True):
        counts = [point.count for point in scaling.points]
        for (part, words), hue, marker in zip(_KINDS.items(), (theme.CONVOLUTION, theme.ATTENTION), "os", strict=True):
            label = f"{words}, grows as n^{scaling.exponents[part]:.2f}"
            seconds = [getattr(point, part) for point in scaling.points]
            axes.loglog(counts, seconds, marker=marker, color=colour(hue), label=label)
        axes.set(xlabel=f"n, {scaling.axis} a call", ylabel="time of a call, s")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        for text in axes.legend(fontsize=_SMALL, loc="upper left").get_texts():
            text.set_parse_math(False)
    return figure


def written(figure: Figure, kind: str, label: str) -> bytes:
    """A plot as a file.

    Args:
        figure: The plot.
        kind: "png" or "svg".
        label: What is seen, in words.
    """
    return theme.drawing(figure, label).alone() if kind == "svg" else theme.saved(figure, kind)
