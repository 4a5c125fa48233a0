"""Figures of pages: runs, layers and what they attend to, drawn without a display."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from PIL import Image
from torch import Tensor

from acmix.errors import printable
from acmix.explain import KernelChange, PathShare, PixelAttention, Rates
from acmix.pages import theme
from acmix.pages.theme import ATTENTION, CONVOLUTION, Drawing, colour, drawing

# The scale of a map that is 0 everywhere: it has the colour of 0.
_SILENT = 1e-30
# Around a pixel and its cell, on pictures of any colour.
_FRAME = "#22d3ee"
# Of a cell of a confusion matrix at most: words in ink are legible on it in both schemes.
_CELL, _DENSEST = "#2563eb", 0.8
# Classes that are named, and letters of a name at most.
_NAMED_CLASSES, _NAME = 30, 30
# What both figures of the paths' sizes show.
_SHARE = "share of what both paths add, %"


@dataclass(frozen=True)
class Line:
    """A named line; NaN leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def over_epochs(name: str, rows: Sequence[Mapping[str, Any]], column: str, factor: float = 1) -> Line:
    """A column of rows that have an epoch."""
    return Line(name, [row["epoch"] for row in rows], [factor * row[column] for row in rows])


@theme.drawn
def lines(quantity: str, shown: Sequence[Line], *, by_depth: bool = False, reference: float | None = None) -> Drawing:
    """Lines over epochs, with a legend under them if there are several; line i has the id "line-i".

    Args:
        quantity: What is shown, with its unit.
        shown: The lines, in the order of the legend.
        by_depth: Colour them from first to last, as layers of a network.
        reference: Where a dotted line across is drawn.
    """
    columns = 2 if max(len(line.name) for line in shown) < 24 else 1
    legend = 0.19 * -(-len(shown) // columns) if len(shown) > 1 else 0.0
    figure = Figure(figsize=(3.9, 2.6 + legend), layout="constrained")
    axes = figure.subplots()
    for index, line in enumerate(shown):
        hue = theme.DEPTHS[_step(index, len(shown))] if by_depth else theme.HUES[index % len(theme.HUES)]
        marker = theme.MARKERS[index % len(theme.MARKERS)]
        (made,) = axes.plot(
            line.x, line.y, color=colour(hue), label=printable(line.name), marker=marker, markersize=3.5
        )
        made.set(gid=f"line-{index}", markevery=max(1, len(line.x) // 12), clip_on=False)
    if quantity.endswith(", %"):
        # There are no shares below none and above all.
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, 0), min(top, 100))
    if reference is not None:
        axes.axhline(reference, color=colour("rule"), linestyle=":", linewidth=1)
    first, last = min(line.x[0] for line in shown), max(line.x[-1] for line in shown)
    axes.set_ylabel(quantity)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    # Numbers are whole: none of them is a part whose unit stands elsewhere.
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    _epoch_axis(axes, first, last)
    if len(shown) > 1:
        theme.legend(figure, columns)
    ends = "; ".join(f"{line.name} from {line.y[0]:.4g} to {line.y[-1]:.4g}" for line in shown)
    return drawing(figure, f"{quantity}, epochs {first:.0f} to {last:.0f}: {ends}")


def _epoch_axis(axes: Axes, first: float, last: float) -> None:
    axes.set_xlabel("epoch")
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def _step(index: int, count: int) -> int:
    """The colour of a layer of so many."""
    return round(index * (len(theme.DEPTHS) - 1) / max(1, count - 1))


@theme.drawn
def stacked_seconds(epochs: Sequence[float], parts: Mapping[str, Sequence[float]]) -> Drawing:
    """Seconds of every epoch, divided into parts.

    Args:
        epochs: Their numbers.
        parts: Seconds of each part, one number an epoch.
    """
    figure = Figure(figsize=(4.8, 3.4), layout="constrained")
    axes = figure.subplots()
    bottom = [0.0] * len(epochs)
    for (name, seconds), hue in zip(parts.items(), theme.HUES, strict=False):
        axes.bar(epochs, seconds, 0.8, bottom=bottom, color=colour(hue), label=name)
        bottom = [low + high for low, high in zip(bottom, seconds, strict=True)]
    axes.set_ylabel("time of an epoch, s")
    _epoch_axis(axes, epochs[0], epochs[-1])
    theme.legend(figure, 4)
    sums = ", ".join(f"{name} {sum(seconds):.1f} s" for name, seconds in parts.items())
    return drawing(figure, f"Time of every epoch by part; all epochs together: {sums}")


@theme.drawn
def confusion(
    matrix: Sequence[Sequence[int]], classes: Sequence[str], counted: str = "Images", *, shares: bool = False
) -> Drawing:
    """Confusion matrix with counts; rows are true classes, a cell is as dense as its share of them.

    Args:
        matrix: Counts.
        classes: Names.
        counted: What is counted.
        shares: Write shares of the true class, in percent, in place of counts: for pixels.
    """
    named = len(classes) <= _NAMED_CLASSES
    names = [theme.shortened(name, _NAME) for name in classes] if named else []
    # Names take room of their own, or they would take it from the cells.
    longest = max((TextPath((0, 0), name, size=9).get_extents().width for name in names if name), default=0) / 72
    side = min(8.0, 0.32 * len(classes)) + longest + 0.9
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    counts = np.array(matrix, float)
    densities = counts / np.maximum(1, counts.sum(1, keepdims=True))
    cells = np.empty((*densities.shape, 4))
    cells[..., :3], cells[..., 3] = mpl.colors.to_rgb(_CELL), _DENSEST * densities
    axes.imshow(cells)
    if named:
        for row, column in zip(*counts.nonzero(), strict=True):
            words = f"{100 * densities[row, column]:.0f}" if shares else f"{counts[row, column]:.0f}"
            # Within the axes, however long the layout's search for what may lie beside them.
            axes.text(column, row, words, ha="center", va="center", fontsize=7, in_layout=False)
        turned = 90 if max(map(len, names)) > 2 else 0
        axes.set_xticks(range(len(names)), names, rotation=turned, parse_math=False, fontsize=9)
        axes.set_yticks(range(len(names)), names, parse_math=False, fontsize=9)
    number = "" if named else ", by its number from 0"
    axes.set(xlabel=f"predicted class{number}", ylabel=f"true class{number}")
    axes.spines[["top", "right"]].set_visible(True)
    right, every = np.trace(counts), counts.sum()
    return drawing(
        figure, f"{counted} by true and predicted class: {right:.0f} of {every:.0f} on the diagonal are right"
    )


@theme.drawn
def by_class(quantity: str, classes: Sequence[str], values: Sequence[float]) -> Drawing:
    """A bar a class, from the first at the top.

    Args:
        quantity: What is shown, with its unit, 0 to 100.
        classes: Names.
        values: One a class.
    """
    figure = Figure(figsize=(4.8, 1.0 + 0.26 * len(classes)), layout="constrained")
    axes, places = figure.subplots(), range(len(classes))
    axes.barh(places, values, 0.7, color=colour("blue"))
    axes.set_yticks(places, [theme.shortened(name, _NAME) for name in classes], parse_math=False, fontsize=9)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel=quantity)
    ends = ", ".join(f"{name} {value:.1f}" for name, value in zip(classes, values, strict=True))
    return drawing(figure, f"{quantity}: {ends}")


@theme.drawn
def path_shares(layers: Sequence[PathShare]) -> Drawing:
    """The share of the attention path in what both add to every layer's output."""
    figure = Figure(figsize=(4.8, 1.2 + 0.28 * len(layers)), layout="constrained")
    axes = figure.subplots()
    shares = _draw_shares(axes, layers)
    for place, share in enumerate(shares):
        # Beside the end of the bar, in the longer part, so that it never lies on both colours.
        side, offset = ("left", 5) if share < 50 else ("right", -5)
        words, paper = f"{share:.0f} %", colour("paper")
        place_of = {"xytext": (offset, 0), "textcoords": "offset points", "ha": side, "va": "center"}
        axes.annotate(words, (share, place), fontsize=8, color=paper, **place_of)
    axes.set(xlabel=_SHARE)
    return drawing(figure, _shares_in_words(layers))


def _draw_shares(axes: Axes, layers: Sequence[PathShare]) -> list[float]:
    """A bar a layer, divided; its shares of attention in percent."""
    places = range(len(layers))
    shares = [100 * layer.share for layer in layers]
    axes.barh(places, shares, 0.7, color=colour(ATTENTION), label="attention")
    rest = [100 - share for share in shares]
    axes.barh(places, rest, 0.7, left=shares, color=colour(CONVOLUTION), label="convolution")
    axes.set_yticks(places, [printable(layer.layer) for layer in layers], parse_math=False)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), ylabel="layer")
    axes.legend(ncols=2, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1))
    return shares


def _shares_in_words(layers: Sequence[PathShare]) -> str:
    shares = ", ".join(f"{layer.layer} {100 * layer.share:.0f} %" for layer in layers)
    return f"Attention's share of what both paths add: {shares}"


@theme.drawn
def attention(image: Image.Image, maps: Tensor, cell: tuple[int, int]) -> Drawing:
    """An image and what the marked cell attends to in every head.

    Args:
        image: The input as the network sees it.
        maps: Attention weights `(N, H, W)`, each summing to 1.
        cell: Row and column of the query in the maps.
    """
    heads, height, width = maps.shape
    figure = Figure(figsize=(1.55 * (heads + 1), 1.8), layout="constrained")
    axes = figure.subplots(1, heads + 1)
    frame = (0, width, height, 0)
    axes[0].set_title("image and cell", fontsize=8)
    axes[0].imshow(image, extent=frame)
    for head in range(heads):
        _overlay(axes[head + 1], image, frame, maps[head])
        axes[head + 1].set_title(_head(head, maps[head]), fontsize=8)
    for part in axes:
        part.add_patch(_frame((cell[0], cell[0] + 1, cell[1], cell[1] + 1)))
        part.set_axis_off()
    most = ", ".join(f"head {head + 1} {weights.max():.2f}" for head, weights in enumerate(maps))
    return drawing(figure, f"The image, and where row {cell[0]}, column {cell[1]} attends to; at most: {most}")


def _head(head: int, weights: Tensor) -> str:
    return f"head {head + 1}, at most {weights.max():.2f}"


def _frame(region: tuple[float, float, float, float]) -> Rectangle:
    """Around top, bottom, left and right."""
    top, bottom, left, right = region
    return Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=_FRAME, linewidth=1.2)


@theme.drawn
def explanation(picture: Image.Image, attention: Sequence[PixelAttention], evidence: Sequence[Tensor]) -> Figure:
    """An image layer by layer: the pixel and its cell, what it attends to in every head, evidence for a class.

    Args:
        picture: The input as the network sees it.
        attention: One layer each, for a batch of this one image.
        evidence: In the output of the same layers, `(H_l', W_l')` each.
    """
    heads = max(part.weights.shape[1] for part in attention)
    height, width = attention[0].size
    frame, shape = (0, width, height, 0), 1.55 * height / width
    figure = Figure(figsize=(1.55 * (heads + 2), (shape + 0.5) * len(attention)), layout="constrained")
    rows = figure.subfigures(len(attention), squeeze=False)[:, 0]
    for row, part, map_ in zip(rows, attention, evidence, strict=True):
        cells = " x ".join(map(str, part.weights.shape[-2:]))
        row.suptitle(printable(f"{part.layer}: {cells} cells"), x=0.01, ha="left", fontsize=9, parse_math=False)
        panels = row.subplots(1, heads + 2)
        for axes in panels:
            axes.set_axis_off()
        panels[0].set_title("image and cell", fontsize=8)
        panels[0].imshow(picture, extent=frame)
        for head, weights in enumerate(part.weights[0].cpu()):
            _overlay(panels[head + 1], picture, frame, weights)
            panels[head + 1].set_title(_head(head, weights), fontsize=8)
        _overlay(panels[-1], picture, frame, map_.cpu(), signed=True)
        panels[-1].set_title("evidence", fontsize=8)
        for axes in panels[: part.weights.shape[1] + 1]:
            axes.add_patch(_frame(part.region))
    return figure


def _overlay(
    axes: Axes,
    picture: Image.Image,
    frame: tuple[float, float, float, float],
    values: Tensor,
    *,
    signed: bool = False,
) -> None:
    """A map over a faint picture: on black where 0 is black, on white where 0 is white; no paper shines through."""
    most = max(float(values.abs().max()), _SILENT)
    ground, colours, least = ((-255, 255), "RdBu_r", -most) if signed else ((0, 510), "magma", 0)
    axes.imshow(picture.convert("L"), extent=frame, cmap="gray", vmin=ground[0], vmax=ground[1])
    axes.imshow(values.numpy(), extent=frame, alpha=0.65, cmap=colours, vmin=least, vmax=most)


def heat(values: Tensor, *, signed: bool, side: int) -> Image.Image:
    """A map as an RGB picture, pixel by pixel.

    Args:
        values: Shape `(H, W)`; from 0 up, or of both signs.
        signed: Blue below 0, red above, white at 0; else dark at 0.
        side: The longer side is enlarged to this many pixels at most, by a whole factor.
    """
    most = max(float(values.abs().max()), _SILENT)
    shares = (values / most + 1) / 2 if signed else values / most
    colors = mpl.colormaps["RdBu_r" if signed else "magma"](shares.numpy(), bytes=True)
    picture = Image.fromarray(colors[..., :3].copy())
    scale = max(1, side // max(picture.size))
    return picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.NEAREST)


@theme.drawn
def paths(shares: Sequence[PathShare], rates: Sequence[Rates], changes: Sequence[KernelChange]) -> tuple[Figure, str]:
    """What either path adds, the rates' log |alpha / beta| and how far the kernels moved, layer by layer; in words."""
    figure = Figure(figsize=(8.6, 1.4 + 0.28 * len(shares)), layout=ConstrainedLayoutEngine(wspace=0.08))
    added, ratio, moved = figure.subplots(1, 3, sharey=True)
    places = range(len(shares))
    _draw_shares(added, shares)
    added.axvline(50, color=colour("paper"), linestyle=":", linewidth=1)
    # Dots: layers are no points of one curve.
    ratio.plot([part.log_ratio for part in rates], places, "o", color=colour("violet"), markersize=5)
    ratio.axvline(0, color=colour("rule"), linestyle=":", linewidth=1)
    moved.barh(places, [part.distance for part in changes], color=colour("green"))
    labels = (_SHARE, "log |alpha / beta|", "kernels' distance from shifts,\nrelative to them")
    for axes, label in zip((added, ratio, moved), labels, strict=True):
        axes.set_xlabel(label, fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(labelsize=9)
    return figure, f"{_shares_in_words(shares)}; the rates and the kernels' changes are in the table"
