"""Figures of a run as SVG text, drawn without a display."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from acmix.bench import Comparison, Scaling
from acmix.explain import Rates
from acmix.study import Summary

_ATTENTION, _CONVOLUTION = "#c2410c", "#1d4ed8"
_MARKERS = "osD^vP*"


def _save(figure: Figure, kind: str) -> bytes:
    data = io.BytesIO()
    # Text as text keeps the page small and searchable; a fixed salt keeps it the same from run to run.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "acmix"}):
        metadata: dict[str, Any] | None = {"Date": None} if kind == "svg" else None
        figure.savefig(data, format=kind, dpi=150, bbox_inches="tight", metadata=metadata)
    return data.getvalue()


def _svg(figure: Figure) -> str:
    return _save(figure, "svg").decode()


def curves(rows: Sequence[dict[str, float]]) -> str:
    """Loss, validation accuracy and learning rate over epochs."""
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) < 30 else ""
    for name, label in (("train_loss", "training"), ("val_loss", "validation")):
        loss.plot(epochs, [row[name] for row in rows], label=label, marker=marker, markersize=3)
    accuracy.plot(epochs, [100 * row["val_top1"] for row in rows], color="#15803d", marker=marker, markersize=3)
    rate.plot(epochs, [row["learning_rate"] for row in rows], color="#57534e", marker=marker, markersize=3)
    loss.legend(frameon=False, loc="upper right")
    for axes, title in ((loss, "loss"), (accuracy, "validation top-1, %"), (rate, "learning rate")):
        axes.set(title=title, xlabel="epoch")
        axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Confusion matrix with counts; rows are true classes."""
    side = min(12.0, 1.5 + 0.42 * len(classes))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 30:
        for i, row in enumerate(matrix):
            for j, count in enumerate(row):
                if count:
                    color = "white" if shares[i][j] > 0.5 else "black"
                    axes.text(j, i, str(count), ha="center", va="center", color=color, fontsize=8)
        axes.set_xticks(
            range(len(classes)), classes, rotation=90 if max(map(len, classes)) > 2 else 0, parse_math=False
        )
        axes.set_yticks(range(len(classes)), classes, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true")
    return _svg(figure)


def rate_bars(layers: Sequence[Rates]) -> str:
    """The two learned rates of every layer."""
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(layers)), layout="constrained")
    axes = figure.subplots()
    places = range(len(layers))
    axes.barh([p - 0.2 for p in places], [layer.attention for layer in layers], 0.38, color=_ATTENTION)
    axes.barh([p + 0.2 for p in places], [layer.convolution for layer in layers], 0.38, color=_CONVOLUTION)
    axes.axvline(0.5, color="#a8a29e", linestyle=":", linewidth=1)
    axes.set_yticks(places, [layer.layer for layer in layers])
    axes.invert_yaxis()
    axes.legend(["start", "attention (alpha)", "convolution (beta)"], frameon=False, ncols=3, loc="lower right")
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def attention(image: Image.Image, maps: Tensor, cell: tuple[int, int]) -> str:
    """An image and what the marked cell attends to in every head.

    Args:
        image: The input as the network sees it.
        maps: Attention weights `(N, H, W)`, each summing to 1.
        cell: Row and column of the query in the maps.
    """
    heads, height, width = maps.shape
    figure = Figure(figsize=(2.0 * (heads + 1), 2.3), layout="constrained")
    axes = figure.subplots(1, heads + 1)
    frame = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes[0].set_title("image and pixel", fontsize=9)
    axes[0].imshow(image, extent=frame)
    for head in range(heads):
        axes[head + 1].imshow(image, extent=frame, cmap="gray", alpha=0.35)
        axes[head + 1].imshow(maps[head].numpy(), extent=frame, cmap="magma", alpha=0.75, vmin=0)
        axes[head + 1].set_title(f"head {head + 1}, largest {maps[head].max():.2f}", fontsize=9)
    for part in axes:
        part.plot(cell[1], cell[0], marker="s", color="none", markeredgecolor="#22d3ee", markersize=7, linewidth=1)
        part.set_axis_off()
    return _svg(figure)


def benchmark(kind: str, *, comparisons: Sequence[Comparison] = (), scalings: Sequence[Scaling] = ()) -> bytes:
    """Plot of a benchmark: ratios to the baseline of every candidate, or growth with the fitted exponents.

    Args:
        kind: "png" or "svg".
        comparisons: Cases of one benchmark.
        scalings: Growth over one axis each.
    """
    rows = len(comparisons) + len(scalings)
    figure = Figure(figsize=(9, 2.4 * rows), layout="constrained")
    for axes, comparison in zip(figure.subplots(rows, squeeze=False)[:, 0], comparisons, strict=False):
        base = comparison.candidates[comparison.baseline]
        for offset, part, color in ((-0.2, "forward", _CONVOLUTION), (0.2, "training", _ATTENTION)):
            ratios = [
                getattr(item, part).fastest / getattr(base, part).fastest for item in comparison.candidates.values()
            ]
            label = "forward" if part == "forward" else "forward + backward"
            bars = axes.barh([place + offset for place in range(len(ratios))], ratios, 0.38, color=color, label=label)
            axes.bar_label(bars, [f"{ratio:.2f}" for ratio in ratios], padding=3, fontsize=8)
        axes.axvline(1, color="#a8a29e", linestyle=":", linewidth=1)
        axes.set_xscale("log")
        axes.set_yticks(range(len(comparison.candidates)), list(comparison.candidates))
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_title(f"{comparison.title}: time / time of {comparison.baseline}", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    for axes, scaling in zip(figure.axes[len(comparisons) :], scalings, strict=True):
        counts = [point.count for point in scaling.points]
        for part, color in (("forward", _CONVOLUTION), ("training", _ATTENTION)):
            label = f"{'forward' if part == 'forward' else 'forward + backward'}, ~n^{scaling.exponents[part]:.2f}"
            axes.loglog(counts, [getattr(point, part) for point in scaling.points], "o-", color=color, label=label)
        axes.set(xlabel=scaling.axis, ylabel="seconds")
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    return _save(figure, kind)


def study(kind: str, summaries: Sequence[Summary], batch: int) -> bytes:
    """Plot of a study: accuracy with its 95 % interval over parameters, multiply-adds and time.

    Args:
        kind: "png" or "svg".
        summaries: Of the networks.
        batch: Images a call when times were measured.
    """
    costs = {
        "parameters, thousands": [item.cost.parameters / 1e3 for item in summaries],
        "multiply-adds, millions": [item.cost.multiply_adds / 1e6 for item in summaries],
    }
    times = [item.cost.training.fastest / batch for item in summaries if item.cost.training is not None]
    if len(times) == len(summaries):
        costs["forward + backward, ms an image"] = [1e3 * seconds for seconds in times]
    figure = Figure(figsize=(4 * len(costs), 4.2), layout="constrained")
    for axes, (label, values) in zip(figure.subplots(1, len(costs), squeeze=False)[0], costs.items(), strict=True):
        # Networks of equal cost are drawn side by side.
        step = 0.01 * ((max(values) - min(values)) or max(values))
        for place, (item, value) in enumerate(zip(summaries, values, strict=True)):
            axes.errorbar(
                value + step * (place - (len(values) - 1) / 2),
                100 * item.accuracy.mean,
                yerr=100 * item.accuracy.margin,
                marker=_MARKERS[place % len(_MARKERS)],
                color=f"C{place}",
                capsize=3,
                label=item.cost.title,
            )
        axes.set(xlabel=label, ylabel="accuracy, %")
        axes.margins(x=0.1)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, ncols=2, loc="outside lower center")
    return _save(figure, kind)
