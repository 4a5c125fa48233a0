"""Draw the pictures of docs/derivation.md from what the library computes: shifts.svg, windows.svg, stages.svg.

Run: python docs/pictures/derivation.py
"""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import conv2d

from acmix.ops import costs
from acmix.ops.geometry import reflect, window_offsets
from acmix.pages import theme

FOLDER = Path(__file__).parent
# What finds edges from above: a kernel that one can check by eye.
KERNEL = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]])
SIZE, WINDOW = 12, 7
CELLS = {"a corner": (0, 0), "an edge": (0, 5), "the middle": (5, 5)}
LAYER = {"inputs": 256, "channels": 256, "heads": 4, "window": 7, "kernel": 3, "stride": 1}
SIDE = 14


def show(axes: Axes, values: Tensor, title: str, limit: float) -> None:
    """A map, negative values too."""
    axes.imshow(values.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


@theme.drawn
def shifts() -> theme.Drawing:
    """A convolution as nine weighted, shifted maps and their sum."""
    digit = torch.tensor(load_digits().images[0] / 16, dtype=torch.float32)
    padded = torch.nn.functional.pad(digit, (1, 1, 1, 1))
    figure = Figure(figsize=(8.2, 3), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=(1, 1.25, 1))
    total = torch.zeros_like(digit)
    for number, axes in enumerate(middle.subplots(3, 3).flat):
        row, column = divmod(number, 3)
        part = KERNEL[row, column] * padded[row : row + 8, column : column + 8]
        show(axes, part, f"{KERNEL[row, column]:+.0f}" if KERNEL[row, column] else "0", 4)
        total += part
    torch.testing.assert_close(total, conv2d(digit[None, None], KERNEL[None, None], padding=1)[0, 0])
    show(left.subplots(), digit, "a digit", 1)
    show(right.subplots(), total, "their sum: the convolution", 4)
    middle.suptitle("weighted and shifted", fontsize=9)
    return theme.drawing(figure, "A digit, nine weighted and shifted copies of it, and their sum, the convolution")


def met(cell: tuple[int, int]) -> Tensor:
    """How often the window of a cell meets every cell of the map (E2), shape `(SIZE, SIZE)`."""
    rows, columns = (torch.bincount(reflect(at + window_offsets(WINDOW, 1), SIZE), minlength=SIZE) for at in cell)
    return rows[:, None] * columns


@theme.drawn
def windows() -> theme.Drawing:
    """Multiplicities of reflected windows."""
    figure = Figure(figsize=(8.2, 2.9), layout="constrained")
    for axes, (name, cell) in zip(figure.subplots(1, 3), CELLS.items(), strict=True):
        counts = met(cell)
        axes.imshow(counts.numpy(), cmap="Oranges", vmin=0, vmax=7)
        for row, column in counts.nonzero().tolist():
            own = (row, column) == cell
            weight = "bold" if own else "normal"
            # Not a colour of the reader's scheme: it stands on orange in either.
            axes.text(
                column,
                row,
                f"{counts[row, column]}",
                ha="center",
                va="center",
                fontsize=8,
                weight=weight,
                color="#000000",
            )
        axes.set_title(f"window of {name}", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    return theme.drawing(
        figure, "How often windows of 7 x 7 meet the cells of a map of 12 x 12, reflected at its border"
    )


@theme.drawn
def stages() -> theme.Drawing:
    """Multiply-adds of the stages of a layer, beside a convolution's."""
    counted = costs.stages(SIDE, SIDE, **LAYER)
    convolution = 9 * LAYER["inputs"] * LAYER["channels"] * SIDE**2
    bars = {"3x3 convolution": convolution, **{f"ACmix: {name}": count for name, count in counted.items()}}
    bars["ACmix: all"] = sum(counted.values())
    figure = Figure(figsize=(8.2, 2.6), layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh(list(bars), [count / 1e6 for count in bars.values()], color=theme.colour("blue"))
    axes.bar_label(drawn, fmt="%.1f", padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(f"multiply-adds, millions ({LAYER['channels']} channels, {SIDE} x {SIDE} cells, one image)")
    words = ", ".join(f"{name} {count / 1e6:.1f} million" for name, count in bars.items())
    return theme.drawing(figure, f"Multiply-adds: {words}")


DRAWINGS = {"shifts.svg": shifts, "windows.svg": windows, "stages.svg": stages}

if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (FOLDER / name).write_bytes(draw().alone())
