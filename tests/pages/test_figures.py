"""Figures of pages: what they say of their data, titles and units on every axis, words that do not collide."""

import itertools

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from acmix.explain import KernelChange, PathShare, PixelAttention, Rates
from acmix.pages import figures, theme
from tests.pages.drawn import check_texts, words
from tests.pages.test_theme import contrast

LAYERS = [f"backbone.stages.{number}.blocks.11.conv2" for number in range(16)]
SHARES = [PathShare(name, 0.3 + number, 20.0 - number) for number, name in enumerate(LAYERS)]


@pytest.fixture
def figure(monkeypatch):
    """The figure that a function drew."""
    made = []
    draw = theme.saved
    monkeypatch.setattr(theme, "saved", lambda figure, kind: made.append(figure) or draw(figure, kind))
    return lambda: made[-1]


def check_axes(figure):
    """Words on every axis, none on others."""
    assert isinstance(figure, Figure)
    check_texts(figure)
    for axes in figure.axes:
        if axes.axison:
            assert axes.get_xlabel()
            assert any(each.get_ylabel() for each in axes.get_shared_y_axes().get_siblings(axes))


@pytest.mark.parametrize(
    ("epochs", "values"),
    [
        (1, (2.3e-5, 2.3e-5)),
        (2, (3.0, float("nan"))),
        (7, (0.49999, 0.50001)),
        (90, (2.3e-5, 1e-9)),
        (1000, (1e4, 2e6)),
    ],
)
def test_lines(figure, epochs, values):
    x = list(range(1, epochs + 1))
    names = ("training, with label smoothing 0.1", "validation", "a" * 40, "$x^2$")
    shown = [figures.Line(name, x, np.linspace(*values, epochs).tolist()) for name in names]
    drawing = figures.lines("loss, nats", shown)
    check_axes(figure())
    (axes,) = figure().axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "loss, nats")
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    assert axes.yaxis.get_offset_text().get_text() == ""
    assert drawing.label.startswith(f"loss, nats, epochs 1 to {epochs}: training, with label smoothing 0.1 from ")
    # More lines than colours differ by their marks.
    many = figures.lines("alpha", [figures.Line(name, x, [0.5] * epochs) for name in LAYERS], by_depth=True)
    check_axes(figure())
    looks = {(line.get_color(), line.get_marker()) for line in figure().axes[0].lines}
    assert len(looks) == len(LAYERS)
    assert set(LAYERS) <= {*words(many.alone())}


@pytest.mark.parametrize(("epochs", "values"), [(1, (0, 0)), (1, (100, 100)), (9, (0, 100)), (9, (float("nan"),) * 2)])
def test_shares_are_between_none_and_all(figure, epochs, values):
    x = list(range(1, epochs + 1))
    figures.lines("validation, %", [figures.Line("AP", x, np.linspace(*values, epochs).tolist())])
    bottom, top = figure().axes[0].get_ylim()
    assert 0 <= bottom < top <= 100


@pytest.mark.parametrize("epochs", [1, 100])
def test_times(figure, epochs):
    parts = {name: [0.5] * epochs for name in ("waiting", "forward", "backward", "validation", "other")}
    drawing = figures.stacked_seconds(list(range(1, epochs + 1)), parts)
    check_axes(figure())
    assert figure().axes[0].get_ylabel() == "time of an epoch, s"
    assert f"forward {0.5 * epochs:.1f} s" in drawing.label


CLASSES = {
    "digits": [str(digit) for digit in range(10)],
    "two": ["", "$x$"],
    "long": [f"n{number:08} a name, and another name for the same" for number in range(30)],
    "odd": ["a\x01b", "caf\udce9", "tab\tnew\nline", "\ufffe", "größer"],
    "many": [str(number) for number in range(120)],
}


@pytest.mark.parametrize("kind", CLASSES)
def test_confusion(figure, kind):
    classes = CLASSES[kind]
    matrix = np.eye(len(classes), dtype=int) * 123
    matrix[0] = 999
    drawing = figures.confusion(matrix.tolist(), classes)
    check_axes(figure())
    (axes,) = figure().axes
    assert axes.get_window_extent().width > 30
    if kind != "many":
        # A count fits into its cell.
        cell = axes.get_window_extent().width / len(classes)
        assert all(text.get_window_extent().width <= cell for text in axes.texts)
    assert f"{123 * len(classes) + 999 - 123} of" in drawing.label
    # Counts are words in ink on cells of any density, in both schemes.
    for scheme, density in itertools.product((0, 1), np.linspace(0, axes.images[0].get_array()[..., 3].max(), 9)):
        paper, cell = (
            np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
            for colour in (theme.COLOURS["paper"][scheme], figures._CELL)
        )
        mixed = "#" + "".join(f"{round(part):02x}" for part in paper * (1 - density) + cell * density)
        assert contrast(theme.COLOURS["ink"][scheme], mixed) >= 4.5


def test_names_may_be_anything():
    odd = [*CLASSES["odd"], "日本"]
    for drawing in (
        figures.confusion(np.eye(len(odd)).tolist(), odd),
        figures.lines("loss", [figures.Line(name, [1], [0.5]) for name in odd]),
        figures.path_shares([PathShare(name, 1, 1) for name in odd]),
    ):
        assert {"a\\x01b", "caf\\xe9", "日本"} <= {*words(drawing.alone())}
        drawing.within("a-").encode()


def test_paths(figure):
    drawing = figures.path_shares(SHARES)
    check_axes(figure())
    assert f"{LAYERS[0]} 1 %" in drawing.label
    # A rate that is 0 has no logarithm.
    rates = [Rates(name, 0.1 * number, 0.5) for number, name in enumerate(LAYERS)]
    changes = [KernelChange(name, 0.0055 * number, 1, torch.zeros(9, 3, 3)) for number, name in enumerate(LAYERS)]
    made, label = figures.paths(SHARES, rates, changes)
    check_axes(made)
    # Layers are no points of one curve.
    assert [line.get_linestyle() for line in made.axes[1].lines if len(line.get_xdata()) > 2] == ["None"]
    assert f"{LAYERS[-1]} 75 %" in label


def test_attention(figure):
    maps = torch.rand(4, 5, 7)
    drawing = figures.attention(Image.effect_noise((14, 10), 90).convert("RGB"), maps, (2, 3))
    check_axes(figure())
    assert f"head 1 {maps[0].max():.2f}" in drawing.label
    # Maps lie on a ground of their own, whatever the paper is.
    for axes in figure().axes:
        assert axes.images[0].get_alpha() is None


def test_explanation():
    weights = torch.rand(1, 8, 9, 9)
    parts = [PixelAttention(name, (1, 2), (36, 36), (0, 0), 1, weights) for name in LAYERS[:3]]
    figure = figures.explanation(Image.effect_noise((36, 36), 90), parts, [torch.rand(9, 9)] * 3)
    check_axes(figure)
    assert [part.get_suptitle() for part in figure.subfigs] == [f"{name}: 9 x 9 cells" for name in LAYERS[:3]]
