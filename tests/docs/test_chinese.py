"""Pages in Chinese stay in step with their originals."""

import re

import pytest

from tests.docs.blocks import ROOT, blocks_of

TRANSLATED = {path: ROOT / "docs" / path.name for path in sorted((ROOT / "docs/zh").glob("*.md"))}
TRANSLATED[ROOT / "README.zh-CN.md"] = ROOT / "README.md"
IDS = [path.name for path in TRANSLATED]


@pytest.mark.parametrize(("page", "original"), TRANSLATED.items(), ids=IDS)
def test_blocks_are_those_of_the_original(page, original):
    found, expected = (
        [(block.language, block.code, block.mark) for block in blocks_of(path)] for path in (page, original)
    )
    assert found == expected, f"copy the blocks of {original.name} into {page.name}"


@pytest.mark.parametrize(("page", "original"), TRANSLATED.items(), ids=IDS)
def test_headings_are_as_many_and_in_chinese(page, original):
    found, expected = (re.findall(r"^(#+) (.*)$", without_code(path), re.MULTILINE) for path in (page, original))
    if page.name != "README.zh-CN.md":
        assert [depth for depth, _ in found] == [depth for depth, _ in expected]
    # What has a name has it in both languages.
    same = {words for _, words in found} & {words for _, words in expected}
    assert same <= {"acmix", "ONNX", "SLURM", "Ultralytics"}


# The README links the pages in its own language.
@pytest.mark.parametrize("page", [page for page in TRANSLATED if page.parent.name == "zh"], ids=lambda page: page.name)
def test_parts_are_those_of_the_original(page):
    assert parts(page) == parts(TRANSLATED[page])


def parts(path):
    """What a page consists of: headings, paragraphs, pictures, lists by their points, tables by their rows, and
    the words of code in each.
    """
    text = re.sub(r"<!--.*?-->\n", "", without_code(path), flags=re.DOTALL)
    found = []
    for part in re.split(r"\n\s*\n", text.strip()):
        kind = part[0] if part[0] in "#!|-" else ""
        code = sorted(" ".join(words.split()) for words in re.findall(r"`([^`]+)`", part))
        found.append((kind, len(re.findall(rf"^{re.escape(kind)}", part, re.MULTILINE)) if kind else 1, code))
    return found


def test_getting_started_and_how_tos_are_there():
    names = [
        "index",
        "network",
        "yolo",
        "train",
        "operator",
        "export",
        "resume",
        "clusters",
        "warm-start",
        "published",
        "explain",
    ]
    assert {f"{name}.md" for name in names} <= {path.name for path in TRANSLATED}


def without_code(path):
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
