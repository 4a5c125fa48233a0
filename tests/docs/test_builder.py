"""What `make docs` makes of documents, and what it refuses."""

import pytest

from tests.docs.builder import load_builder

sources, navigation, checks, reference = map(load_builder, ("sources", "navigation", "checks", "reference"))


def test_every_document_has_a_place():
    pages = [*sources.documents(), *(f"api/{module}.md" for module in sources.MODULES), "commands.md", "recipes.md"]
    pages += [page for page, _ in reference.examples()]
    for language in sources.LANGUAGES:
        own = [page.removeprefix("zh/") for page in pages if sources.language_of(page) == language]
        assert navigation.navigation(language, own)


@pytest.mark.parametrize(("change", "said"), [({"stray.md"}, "stray.md: in no place"), (set(), "why.md: .* no such")])
def test_pages_and_places_must_agree(change, said):
    pages = {page for page in sources.documents() if sources.language_of(page) == "en" and page != "why.md"}
    pages |= {"commands.md", "recipes.md", "api/acmix.md", "examples/tour.md", *change, *({"why.md"} if change else ())}
    with pytest.raises(navigation.NavigationError, match=said):
        navigation.navigation("en", pages)


@pytest.mark.parametrize(
    ("page", "source", "link", "expected"),
    [
        ("why.md", "docs/why.md", "study.md#results", "study.md#results"),
        ("why.md", "docs/why.md", "../DESIGN.md", "design.md"),
        ("design.md", "DESIGN.md", "docs/why.md", "why.md"),
        ("why.md", "docs/why.md", "../examples/digits.py", "examples/digits.md"),
        ("why.md", "docs/why.md", "../src/acmix/ops/__init__.py", "api/acmix.ops.md"),
        ("why.md", "docs/why.md", "../setup.py", "files/setup.py"),
        ("why.md", "docs/why.md", "https://example.com/a.md", "https://example.com/a.md"),
        ("why.md", "docs/why.md", "#here", "#here"),
        ("zh/why.md", "docs/zh/why.md", "network.md#x", "network.md#x"),
        ("zh/why.md", "docs/zh/why.md", "../settings.md", "../settings/"),
        ("zh/why.md", "docs/zh/why.md", "../index.md", "../"),
        ("index.md", "docs/index.md", "zh/index.md", "zh/"),
    ],
)
def test_links_lead_to_pages(page, source, link, expected):
    text = sources.moved(f"[`words`]({link}) `[code](nowhere)`", source, page, set())
    assert text == f"[`words`]({expected}) `[code](nowhere)`"


def test_a_link_to_nothing_is_refused_and_code_is_left_alone():
    with pytest.raises(sources.MissingError, match=r"docs/why.md: gone.md is not there"):
        sources.moved("[words](gone.md)", "docs/why.md", "why.md", set())
    code = "```python\nx = table[0](gone.md)\n```\n"
    assert sources.moved(code, "docs/why.md", "why.md", set()) == code


def test_lines_of_chinese_are_joined_without_a_blank():
    text = "# 标题\n\n第一行。\n第二行\n  ONNX。\n- 一\n  二\n- 三\n\n```text\n四\n五\n```\n"
    joined = "# 标题\n\n第一行。第二行\n  ONNX。\n- 一二\n- 三\n\n```text\n四\n五\n```\n"
    assert sources.moved(text, "docs/zh/train.md", "zh/train.md", set()) == joined


def test_numbers_stay_with_what_belongs_to_them():
    text = "| 73.5 % | +0.17 ± 0.58 | 56 x 56 |\n\n18.3 M, 3 ms, 4 GiB, 7 maps, 2 stages, 5 x, `7 %`\n"
    pages = text.replace("5 %", "5_%").replace("7 ±", "7_±").replace("± 0", "±_0").replace("6 x 5", "6_x_5")
    pages = pages.replace("3 M", "3_M").replace("3 ms", "3_ms").replace("4 GiB", "4_GiB").replace("_", "\u00a0")
    assert sources.moved(text, "docs/study.md", "study.md", set()) == pages


def test_names_of_options_are_not_broken():
    page = "<p>--a <code>acmix train --image-size 3 -- a--b</code></p><pre><code>--lines\n--two\n</code></pre>"
    whole = page.replace("--image-size", '<span class="option">--image-size</span>')
    assert sources.with_whole_options(page) == whole


def test_formulas_of_docstrings_are_lines():
    page = r"<p>Adds</p><p>.. math:: o = \alpha \, a(q) + \beta \, c, \quad q_i = W_{qk} x</p>"
    line = '<p>Adds</p><p class="formula">o = &alpha; a(q) + &beta; c, &emsp; q<sub>i</sub> = W<sub>qk</sub> x</p>'
    assert sources.with_formulas(page) == line


def test_what_lies_outside_of_pages_is_copied():
    copied = set()
    sources.moved("[a](../setup.py) ![b](pictures/cost.svg)", "docs/why.md", "why.md", copied)
    assert copied == {"setup.py", "docs/pictures/cost.svg"}


GOOD = '<html><body id="top"><a href="other/#part">x</a><img src="a.svg" alt="words"></body></html>'


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        (GOOD, None),
        (GOOD.replace("#part", "#gone"), "has no such place"),
        (GOOD.replace("other/", "gone/"), "leads nowhere"),
        (GOOD.replace("other/", "../"), "leads nowhere"),
        (GOOD.replace("a.svg", "b.svg"), "leads nowhere"),
        (GOOD.replace("words", ""), "a picture without words"),
        (GOOD.replace("<img", "<p>.. math:: x</p><img"), "a mark that is for programs: .. math::"),
        (GOOD.replace("<img", '<script src="https://example.com/x.js"></script><img'), "fetches https://example.com"),
        (GOOD.replace("<img", '<link rel="stylesheet" href="//example.com/x.css"><img'), "fetches //example.com"),
        (GOOD.replace("<img", '<a href="https://example.com/">x</a><img'), None),
    ],
)
def test_what_a_site_must_hold(tmp_path, html, problem):
    site = tmp_path / "site"
    (site / "other").mkdir(parents=True)
    (site / "index.html").write_text(html)
    (site / "other/index.html").write_text('<p id="part">x</p>')
    (site / "a.svg").write_text("<svg/>")
    found = checks.problems(site)
    assert (found == []) if problem is None else (len(found) == 1 and problem in found[0])


def test_a_style_that_fetches_is_found(tmp_path):
    (tmp_path / "x.css").write_text("@import url('https://example.com/a.css'); p { background: url(data:,x) }")
    assert checks.problems(tmp_path) == ["x.css: fetches https://example.com/a.css"]


def test_commands_stand_as_their_help_says():
    page = reference.commands()
    for command in ("acmix train", "acmix bench layer", "acmix data check"):
        assert f"## {command}\n\n```text\nusage: {command} " in page


def test_modules_stand_with_their_public_names():
    assert "::: acmix.ops.local_attention" in reference.of_module("acmix.ops")
    assert "::: acmix.ACmix" in reference.of_module("acmix")
    assert "::: acmix.ops\n" not in reference.of_module("acmix")
    assert "This is `timm." in reference.of_module("acmix.models")
