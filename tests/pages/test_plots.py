"""Plots of results: what is drawn is what was measured, with units, in words that do not collide."""

import importlib.util
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from acmix import records, study
from acmix.bench import Comparison, Scaling
from acmix.pages import plots, studies, theme
from tests.pages.drawn import check_texts, words

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def load(name):
    """A script beside a picture of the documents."""
    path = ROOT / "docs" / "pictures" / f"{name}.py"
    specification = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def results(name, key, kind):
    return records.read(list[kind], json.loads((RESULTS / f"{name}.json").read_text())[key])


@pytest.mark.parametrize("name", ["layers-cpu", "networks-cpu", "layers-graphs-h200", "networks-graphs-h200"])
def test_ratios_are_those_of_the_results(name, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "written", lambda *given: figures.append(given))
    comparisons = results(name, "comparisons", Comparison)
    plots.benchmark("svg", comparisons=comparisons)
    ((figure, _, label),) = figures
    check_texts(figure)
    (axes,) = figure.axes
    drawn = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o"]
    expected = [
        getattr(measured, part).fastest / getattr(each.candidates[each.baseline], part).fastest
        for each in comparisons
        for measured in each.candidates.values()
        for part in ("forward", "training")
    ]
    assert drawn == pytest.approx(expected)
    low, high = axes.get_xlim()
    assert low < min(1, *drawn)
    assert high > max(1, *drawn)
    assert axes.get_xlabel().startswith("time as a multiple of that of ")
    # Dots on a logarithmic axis: a bar would have to start somewhere.
    assert (axes.get_xscale(), list(axes.patches), list(axes.containers)) == ("log", [], [])
    assert f"{expected[0]:.2f}" in label


def test_growth(monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "written", lambda *given: figures.append(given))
    (scaling,) = results("pixels-cpu", "scalings", Scaling)
    plots.benchmark("svg", scalings=[scaling])
    ((figure, _, label),) = figures
    check_texts(figure)
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("n, pixels a call", "time of a call, s")
    assert list(axes.lines[1].get_ydata()) == [point.training for point in scaling.points]
    assert label == f"Time of forward + backward grows as pixels^{scaling.exponents['training']:.2f}"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("study-*.json")), ids=lambda path: path.stem)
def test_studies(path, monkeypatch):
    figures = []
    monkeypatch.setattr(studies, "written", lambda *given: figures.append(given))
    found = study.load_study(path)
    summaries = study.summarise(found)
    studies.plot("svg", summaries, found.batch)
    ((figure, _, label),) = figures
    check_texts(figure)
    drawn = {axes.get_xlabel(): axes for axes in figure.axes if not axes.get_ylabel().startswith("rate")}
    score = found.scores[0].title
    assert {axes.get_ylabel() for axes in drawn.values()} == {f"validation {score}, %"}
    curves = drawn.pop("epoch").lines
    assert [list(line.get_ydata()) for line in curves] == [[100 * share for share in item.curve] for item in summaries]
    assert all(len(axes.containers) == len(summaries) for axes in drawn.values())
    for path, name in enumerate(("attention", "convolution")):
        (axes,) = (axes for axes in figure.axes if axes.get_ylabel() == f"rate of {name}, learned")
        assert [list(line.get_ydata()) for line in axes.lines] == [
            [layer[path] for layer in item.rates] for item in summaries
        ]
    assert all(item.cost.title in label for item in summaries)


def test_rates_stand_where_their_operators_do(monkeypatch):
    figures = []
    monkeypatch.setattr(studies, "written", lambda *given: figures.append(given))
    found = study.load_study(RESULTS / "study-fashion-places.json")
    summaries = study.summarise(found)
    studies.plot("svg", summaries, found.batch)
    axes = figures[0][0].axes[-1]
    drawn = {item.name: list(line.get_xdata()) for item, line in zip(summaries, axes.lines, strict=True)}
    assert (drawn["last-stage"], drawn["last-two-stages"]) == ([4], [3, 4])
    assert (drawn["first-two-stages"], drawn["acmix"]) == ([1, 2], [1, 2, 3, 4])


def test_networks_without_operators_have_no_panels_of_rates():
    found = study.load_study(RESULTS / "study-digits-rate.json")
    summaries = [replace(item, rates=[]) for item in study.summarise(found)]
    assert "operator, first to last" in words(studies.plot("svg", study.summarise(found), found.batch))
    assert "operator, first to last" not in words(studies.plot("svg", summaries, found.batch))


def test_both_kinds_of_files(made_up_rows):
    figure = plots.ratios(made_up_rows, "time")
    assert plots.written(figure, "png", "words").startswith(b"\x89PNG")
    svg = plots.written(figure, "svg", "words")
    assert ElementTree.fromstring(svg).find("{*}title").text == "words"  # noqa: S314
    assert {"A formula $x$ is none", "0.50 / 120", "3.00 / 4.00"} <= {*words(svg)}


@pytest.fixture
def made_up_rows():
    row = plots.Row("A formula $x$ is none", {"ours": (0.5, 120.0), "theirs": (3.0, 4.0)})
    return [plots.Group("a machine", [row])]


def test_the_chart_of_the_readme_is_what_the_results_say():
    cost = load("cost")
    committed, drawn = cost.PICTURE.read_bytes(), cost.draw()
    assert words(committed) == words(drawn)
    for path in ("networks-cpu", "layers-cpu"):
        first = json.loads((RESULTS / f"{path}.json").read_text())["comparisons"][0]
        base = first["candidates"][first["baseline"]]
        ours = first["candidates"]["cpu" if path == "layers-cpu" else "acmix_resnet50, channels_last"]
        pair = " / ".join(f"{ours[part]['fastest'] / base[part]['fastest']:.2f}" for part in ("forward", "training"))
        assert pair in words(committed)


def test_the_picture_of_the_operator_is_what_its_source_draws():
    operator = load("acmix_operator")
    text = operator.PICTURE.read_text()
    assert operator.draw() == text
    root = ElementTree.fromstring(text)  # noqa: S314
    used = {name for element in root.iter() for name in element.get("class", "").split()}
    named = {name for name in used if name.partition("-")[2] in theme.COLOURS}
    assert named == {*operator.CLASSES}
    for name in named:
        assert text.count(f".{name} {{") == 2


def test_titles_of_a_study_may_be_anything():
    found = study.load_study(RESULTS / "study-digits-rate.json")
    summaries = study.summarise(found)
    summaries[0] = replace(summaries[0], cost=replace(summaries[0].cost, title="$x$\ufffe<b>"))
    assert "$x$\\ufffe<b>" in words(studies.plot("svg", summaries, found.batch))
