import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from acmix import InputError
from acmix.pages.studies import plot as draw
from acmix.study import as_markdown, differences, load_study, summarise

ROOT = Path(__file__).parents[2]


def test_numbers(made_up):
    summaries = {item.name: item for item in summarise(made_up)}
    assert summaries["acmix"].scores["accuracy"].mean == pytest.approx(0.961667, abs=1e-6)
    assert summaries["acmix"].scores["accuracy"].margin == pytest.approx(0.031256, abs=1e-5)
    tests = {(item.name, item.reference): item for item in differences(made_up)}
    assert set(tests) == {("acmix", "convolution"), ("attention", "convolution"), ("attention", "acmix")}
    found = tests["acmix", "convolution"]
    # Differences 0.05, 0.05 and 0.045: t = 29 with two degrees of freedom.
    assert found.found.t_test == pytest.approx(0.0011876, rel=1e-3)
    assert found.t_test == pytest.approx(2 * found.found.t_test)
    assert tests["attention", "acmix"].t_test is None


def test_page(made_up):
    page = as_markdown(made_up)
    assert "3 seeds (0, 1, 2)" in page
    assert "| ACmix, learned rates | 96.17 ± 3.13 | 0.500 | 408,042 | 11.14 | 1.000 | 1.000 |" in page
    assert "| ACmix, learned rates | 3x3 convolutions | +4.83 ± 0.72 | 0.001 | 0.002 | - |" in page
    assert "| attention path alone | ACmix, learned rates | +0.00 ± 0.00 | - | - | - |" in page
    assert (
        "ACmix, learned rates, against 3x3 convolutions: +4.83 ± 0.72 points; the test tells them apart at 0.05" in page
    )
    assert "ACmix, learned rates: 0.40 / 0.60." in page
    assert "with fewer than 6 seeds it cannot reach 0.05" in page


def test_a_page_counts_as_people_do(made_up):
    made_up.settings["epochs"] = 1
    assert ", 1 epoch, batch" in as_markdown(made_up)


def test_a_study_without_times_names_no_machine(made_up):
    made_up.variants = {name: replace(item, forward=None) for name, item in made_up.variants.items()}
    page = as_markdown(made_up)
    assert "Times:" not in page
    assert "| 408,042 | 11.14 | not measured | 1.000 |" in page


def test_a_study_needs_two_whole_seeds(made_up):
    made_up.trainings = [item for item in made_up.trainings if item.seed == 0]
    with pytest.raises(InputError, match="at least 2 seeds, got 1; train more"):
        as_markdown(made_up)


def test_one_network_alone_is_compared_with_nothing(made_up):
    made_up.variants = {"acmix": made_up.variants["acmix"]}
    page = as_markdown(made_up)
    assert "minus" not in page
    assert page.rstrip().endswith("Highest mean accuracy: ACmix, learned rates.")


def test_plot(made_up):
    svg = draw("svg", summarise(made_up), made_up.batch).decode()
    assert ElementTree.fromstring(svg).tag.endswith("svg")  # noqa: S314
    for text in ("3x3 convolutions", "multiply-adds an image, millions", "forward + backward an image, ms"):
        assert text in svg
    assert draw("svg", summarise(made_up), made_up.batch).decode() == svg


def test_published_tables_are_those_of_the_results():
    document = (ROOT / "docs" / "study.md").read_text()
    results = sorted((ROOT / "benchmarks" / "results").glob("study-*.json"))
    assert results
    for path in results:
        assert as_markdown(load_study(path)) in document


def test_convolutions_of_equal_time_are_read_off_two_widths(made_up):
    base = made_up.variants["convolution"]

    def timed(seconds):
        return replace(base.training, fastest=seconds)

    made_up.variants = {
        "convolution": replace(base, training=timed(0.010)),
        "convolution-80": replace(base, title="wider", training=timed(0.014)),
        "acmix": replace(made_up.variants["acmix"], training=timed(0.011)),
        "attention": replace(made_up.variants["attention"], training=timed(0.02)),
    }
    wider = {0: 0.94, 1: 0.93, 2: 0.93}
    made_up.trainings += [
        replace(item, variant="convolution-80", accuracy=wider[item.seed])
        for item in made_up.trainings
        if item.variant == "convolution"
    ]
    found = {(item.name, item.reference): item.found for item in differences(made_up)}
    # A quarter of the way: 0.91, 0.915, 0.93 beside ACmix's 0.95, 0.96, 0.975; attention is slower than all widths.
    assert found["acmix", "equal-time"].difference.mean == pytest.approx((0.04 + 0.045 + 0.045) / 3)
    assert ("attention", "equal-time") not in found
    assert "| ACmix, learned rates | 3x3 convolutions of equal time, between two widths | +4.33 ±" in as_markdown(
        made_up
    )
