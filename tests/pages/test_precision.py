import numpy as np
import pytest

from acmix.errors import counted
from acmix.pages import precision
from tests.pages.drawn import words
from tests.pages.test_figures import check_axes, figure  # noqa: F401


@pytest.mark.parametrize(("classes", "lines"), [(1, 1), (3, 4), (80, 8)])
def test_precision_over_recall(figure, classes, lines):  # noqa: F811
    names = [f"{'class $x$ of a long name ' * 2}{number}" for number in range(classes)]
    values = np.linspace(1, 0, 101)[:, None] ** np.linspace(0.2, 3, classes)[None]
    drawing = precision.precision_over_recall(values, names, range(classes))
    check_axes(figure())
    (axes,) = figure().axes
    assert len(axes.get_lines()) == lines
    assert f"mean over {counted(classes, 'class')}" in drawing.label
    assert "at a recall of 50%" in drawing.label


def test_classes_without_objects_have_no_precision(figure):  # noqa: F811
    values = np.full((101, 2), -1.0)
    assert "mean over 0 classes" in precision.precision_over_recall(values, ["a", "b"], [0, 0]).label
    values[:, 1] = 0.5
    drawing = precision.precision_over_recall(values, ["a", "b"], [0, 9])
    assert "mean over 1 class: 50 % at a recall of 25%" in drawing.label
    assert len(figure().axes[0].get_lines()) == 1


def test_sizes_without_objects_are_said(figure):  # noqa: F811
    shares = {"map_small": 0.0, "map_medium": 1.0, "map_large": -1.0}
    drawing = precision.by_size(shares, "AP", "map")
    check_texts_of = [text for text in words(drawing.alone()) if text]
    assert "no objects" in check_texts_of
    assert drawing.label == "AP by the size of objects in pixels: small 0.0 %, medium 100.0 %, large none"
    (axes,) = figure().axes
    assert axes.get_ylabel() == "AP, %"
