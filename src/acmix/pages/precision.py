"""Figures of what a detector finds: precision over recall, and average precision by the size of objects."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from acmix.errors import counted
from acmix.pages import theme
from acmix.pages.theme import Drawing, colour, drawing

# Classes that have a line of their own, and letters of a name.
_LINES, _NAME = 7, 24
_SIZES = ("small", "medium", "large")


@theme.drawn
def precision_over_recall(precision: NDArray[np.float64], classes: Sequence[str], counts: Sequence[int]) -> Drawing:
    """The precision at every recall: a line of the mean over classes, and one of each class with the most objects.

    Args:
        precision: At recalls that lie evenly over 0 to 1, `(recalls, classes)`; -1 for classes without objects.
        classes: Their names.
        counts: Of objects of each class.
    """
    there = [label for label in range(len(classes)) if precision[0, label] >= 0]
    shown = sorted(there, key=lambda label: -counts[label])[:_LINES] if len(there) > 1 else []
    rows = -(-(len(shown) + 1) // 2)
    figure = Figure(figsize=(3.9, 2.8 + 0.19 * rows), layout="constrained")
    axes = figure.subplots()
    names = [theme.shortened(name, _NAME) for name in classes]
    recalls = np.linspace(0, 100, len(precision))
    for place, label in enumerate(shown):
        axes.plot(recalls, 100 * precision[:, label], color=colour(theme.HUES[place]), label=names[label])
    mean = 100 * precision[:, there].mean(1) if there else np.zeros(len(recalls))
    name = "mean of the classes" if len(there) > 1 else names[there[0]] if there else "nothing to find"
    axes.plot(recalls, mean, color=colour("ink"), linewidth=2.5, label=name)
    axes.set(xlabel="recall, %", ylabel="precision, %", xlim=(0, 100), ylim=(0, 103))
    theme.legend(figure, 2)
    at = ", ".join(
        f"{mean[round(share * (len(mean) - 1))]:.0f} % at a recall of {share:.0%}" for share in (0.25, 0.5, 0.75)
    )
    return drawing(figure, f"Precision over recall, mean over {counted(len(there), 'class')}: {at}")


@theme.drawn
def by_size(measures: Mapping[str, float], title: str, first: str) -> Drawing:
    """Bars of a measure by the size of objects.

    Args:
        measures: Shares by name, -1 where there are no such objects.
        title: What the measure is called.
        first: What the names in measures begin with: `map` of `map_small`.
    """
    figure = Figure(figsize=(3.9, 2.8), layout="constrained")
    axes = figure.subplots()
    values = [measures[f"{first}_{size}"] for size in _SIZES]
    axes.bar(range(len(values)), [max(0, 100 * value) for value in values], 0.7, color=colour("blue"))
    for place, value in enumerate(values):
        words = "no objects" if value < 0 else f"{100 * value:.1f}"
        axes.annotate(
            words, (place, max(0, 100 * value)), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=9
        )
    axes.set_xticks(range(len(values)), ["small\nbelow 32 x 32", "medium\nto 96 x 96", "large"], fontsize=9)
    axes.set(ylabel=f"{title}, %", ylim=(0, 112))
    axes.set_yticks(range(0, 101, 20))
    named = zip(_SIZES, values, strict=True)
    words = ", ".join(f"{size} {'none' if value < 0 else f'{100 * value:.1f} %'}" for size, value in named)
    return drawing(figure, f"{title} by the size of objects in pixels: {words}")
