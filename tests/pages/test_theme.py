"""Colours and drawings: legible in both schemes, whole, and apart from others on a page."""

import itertools
import re
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from acmix.pages import theme

WORDS, GRAPHICS = 4.5, 3.0


def luminance(colour):
    """Of WCAG 2.2, of a colour such as "#1c1917"."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_by_hand():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", [0, 1])
def test_colours_stand_out(scheme):
    shade = {name: pair[scheme] for name, pair in theme.COLOURS.items()}
    for words, ground in itertools.product(("ink", "quiet", *theme.HUES), ("paper", "panel")):
        assert contrast(shade[words], shade[ground]) >= WORDS, (words, ground)
    for name in (*theme.DEPTHS, "rule"):
        assert contrast(shade[name], shade["paper"]) >= GRAPHICS, name


def test_a_colour_has_one_meaning():
    light = [pair[0] for pair in theme.COLOURS.values()]
    assert len(set(light)) == len(light)


@pytest.fixture
def figure():
    with mpl.rc_context(theme.STYLE):
        made = Figure(figsize=(2, 1.5))
        axes = made.subplots()
        axes.plot([0, 1], [1, 0], color=theme.colour("teal"))
        axes.plot([0, 1], [0, 1], color="#123456")
        axes.set_title('<b>"url(#a)" id="b"')
    return made


def test_a_drawing_alone_has_both_schemes(figure):
    text = theme.drawing(figure, 'a <line> & "words"').alone().decode()
    root = ElementTree.fromstring(text)  # noqa: S314
    assert root.find("{*}title").text == 'a <line> & "words"'
    style = root.find("{*}style").text
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    for rules, scheme in ((light, 0), (dark, 1)):
        assert f".stroke-teal {{ stroke: {theme.COLOURS['teal'][scheme]} }}" in rules
        assert f".fill-ink {{ fill: {theme.COLOURS['ink'][scheme]} }}" in rules
        assert f".fill-paper {{ fill: {theme.COLOURS['paper'][scheme]} }}" in rules
    # What it rests on comes first; what has no meaning keeps its colour, and no other colour is left.
    assert [element.tag.partition("}")[2] for element in root[:3]] == ["title", "style", "rect"]
    left = set(re.findall(r"#[0-9a-f]{6}", text.replace(style, "")))
    assert left == {"#123456"}
    assert "DejaVu" not in text


def test_a_drawing_within_a_page_shares_no_id(figure):
    drawing = theme.drawing(figure, "words")
    first, second = (ElementTree.fromstring(drawing.within(prefix)) for prefix in ("a-", "b-"))  # noqa: S314
    ids = [[element.get("id") for element in root.iter() if element.get("id")] for root in (first, second)]
    assert ids[0]
    assert not {*ids[0]} & {*ids[1]}
    for root, own in zip((first, second), ids, strict=True):
        text = ElementTree.tostring(root, encoding="unicode")
        assert {*re.findall(r'(?<!")url\(#([^)]+)\)', text)} <= {*own}
        assert {element.get("href")[1:] for element in root.iter() if element.get("href")} <= {*own}
        # What is said is not touched.
        assert [element.text.strip() for element in root.iter("text")][-1] == '<b>"url(#a)" id="b"'
        assert "<style" not in text
        assert "http" not in text
        assert (root.get("role"), root.get("aria-label")) == ("img", "words")
