"""Figures of a run as SVG text, drawn without a display."""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from acmix.explain import KernelChange, PathShare, PixelAttention, Rates

_ATTENTION, _CONVOLUTION = "#c2410c", "#1d4ed8"
# The scale of a map that is 0 everywhere: it has the colour of 0.
_SILENT = 1e-30


def _save(figure: Figure, kind: str) -> bytes:
    data = io.BytesIO()
    # Text as text keeps the page small and searchable; a fixed salt keeps it the same from run to run.
    style = {"svg.fonttype": "none", "svg.hashsalt": "acmix", "path.simplify": False}
    with mpl.rc_context(style), warnings.catch_warnings():
        # A page shows text in its reader's fonts, which have more letters than those that measure it here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        metadata: dict[str, Any] | None = {"Date": None} if kind == "svg" else None
        figure.savefig(data, format=kind, dpi=150, bbox_inches="tight", metadata=metadata)
    return data.getvalue()


def _svg(figure: Figure) -> str:
    return _save(figure, "svg").decode()


@dataclass(frozen=True)
class Line:
    """A named line; NaN leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def lines(title: str, shown: Sequence[Line], *, by_depth: bool = False, reference: float | None = None) -> str:
    """Lines over epochs, with a legend under them if there are several; line i has the id "line-i".

    Args:
        title: What is shown.
        shown: The lines, in the order of the legend.
        by_depth: Colour them from first to last, as layers of a network.
        reference: Where a dotted line across is drawn.
    """
    columns = 2 if max(len(line.name) for line in shown) < 24 else 1
    legend = 0.19 * -(-len(shown) // columns) if len(shown) > 1 else 0.0
    figure = Figure(figsize=(4.6, 2.9 + legend), layout="constrained")
    axes = figure.subplots()
    colours = mpl.colormaps["viridis" if by_depth else "tab10"]
    for index, line in enumerate(shown):
        colour = colours(index / len(shown)) if by_depth else colours(index % colours.N)
        (drawn,) = axes.plot(line.x, line.y, color=colour, label=line.name, marker="o", markersize=3)
        drawn.set(gid=f"line-{index}", marker="o" if len(line.x) < 30 else "")
    if reference is not None:
        axes.axhline(reference, color="#a8a29e", linestyle=":", linewidth=1)
    axes.set(title=title, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    if len(shown) > 1:
        key = figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
        for text in key.get_texts():
            # A name is no formula, whatever it holds.
            text.set_parse_math(False)
    return _svg(figure)


def stacked_seconds(epochs: Sequence[float], parts: Mapping[str, Sequence[float]]) -> str:
    """Seconds of every epoch, divided into parts.

    Args:
        epochs: Their numbers.
        parts: Seconds of each part, one number an epoch.
    """
    figure = Figure(figsize=(6.2, 3.8), layout="constrained")
    axes = figure.subplots()
    colours = mpl.colormaps["tab10"]
    bottom = [0.0] * len(epochs)
    for index, (name, seconds) in enumerate(parts.items()):
        axes.bar(epochs, seconds, 0.8, bottom=bottom, color=colours(index), label=name)
        bottom = [low + high for low, high in zip(bottom, seconds, strict=True)]
    axes.set(xlabel="epoch", ylabel="seconds")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
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


def path_shares(layers: Sequence[PathShare]) -> str:
    """The share of the attention path in what both add to every layer's output."""
    figure = Figure(figsize=(6.2, 1.1 + 0.3 * len(layers)), layout="constrained")
    axes = figure.subplots()
    places = range(len(layers))
    shares = [100 * layer.share for layer in layers]
    bars = axes.barh(places, shares, 0.7, color=_ATTENTION, label="attention")
    axes.barh(places, [100 - share for share in shares], 0.7, left=shares, color=_CONVOLUTION, label="convolution")
    axes.bar_label(bars, [f"{share:.0f} %" for share in shares], label_type="center", color="white", fontsize=8)
    axes.set_yticks(places, [layer.layer for layer in layers], parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel="share of the sum of both, %", xlim=(0, 100))
    axes.legend(frameon=False, ncols=2, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1))
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


def explanation(picture: Image.Image, attention: Sequence[PixelAttention], evidence: Sequence[Tensor]) -> bytes:
    """An image layer by layer: the pixel and its cell, what it attends to in every head, evidence for a class; PNG.

    Args:
        picture: The input as the network sees it.
        attention: One layer each, for a batch of this one image.
        evidence: In the output of the same layers, `(H_l', W_l')` each.
    """
    heads = max(part.weights.shape[1] for part in attention)
    height, width = attention[0].size
    frame, shape = (0, width, height, 0), 1.55 * height / width
    figure = Figure(figsize=(1.55 * (heads + 2), (shape + 0.32) * len(attention)), layout="constrained")
    grid = figure.subplots(len(attention), heads + 2, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, part, map_ in zip(grid, attention, evidence, strict=True):
        cells = "x".join(map(str, part.weights.shape[-2:]))
        row[0].set_title(f"{part.layer}, {cells}", fontsize=8)
        row[0].imshow(picture, extent=frame)
        for head, weights in enumerate(part.weights[0].cpu()):
            _overlay(row[head + 1], picture, frame, weights, cmap="magma", vmin=0)
            row[head + 1].set_title(f"head {head + 1}, at most {weights.max():.2f}", fontsize=8)
        most = max(float(map_.abs().max()), _SILENT)
        _overlay(row[-1], picture, frame, map_.cpu(), cmap="RdBu_r", vmin=-most, vmax=most)
        row[-1].set_title("evidence", fontsize=8)
        top, bottom, left, right = part.region
        for axes in row[: part.weights.shape[1] + 1]:
            box = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="#22d3ee", linewidth=1.2)
            axes.add_patch(box)
    return _save(figure, "png")


def _overlay(
    axes: Axes, picture: Image.Image, frame: tuple[float, float, float, float], values: Tensor, **colors: Any
) -> None:
    axes.imshow(picture.convert("L"), extent=frame, cmap="gray", alpha=0.5)
    axes.imshow(values.numpy(), extent=frame, alpha=0.65, **colors)


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


def paths(shares: Sequence[PathShare], rates: Sequence[Rates], changes: Sequence[KernelChange]) -> bytes:
    """What either path adds, the rates' log |alpha / beta| and how far the kernels moved, layer by layer; PNG."""
    figure = Figure(figsize=(10, 1.1 + 0.3 * len(shares)), layout="constrained")
    added, ratio, moved = figure.subplots(1, 3, sharey=True)
    places = range(len(shares))
    attention = [100 * part.share for part in shares]
    added.barh(places, attention, color=_ATTENTION, label="attention")
    added.barh(places, [100 - part for part in attention], left=attention, color=_CONVOLUTION, label="convolution")
    added.axvline(50, color="white", linestyle=":", linewidth=1)
    ratio.plot([part.log_ratio for part in rates], places, "o-", color="#57534e", markersize=4)
    ratio.axvline(0, color="#a8a29e", linestyle=":", linewidth=1)
    moved.barh(places, [part.distance for part in changes], color="#15803d")
    added.set_yticks(places, [part.layer for part in shares])
    added.invert_yaxis()
    added.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.12))
    for axes, title in (
        (added, "share of what the paths add, %"),
        (ratio, "log |alpha / beta|"),
        (moved, "kernels' distance from shifts"),
    ):
        axes.set_title(title, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    return _save(figure, "png")
