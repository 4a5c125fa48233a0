"""What documents say: what is generated stands there as it is generated, what they link to is there."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def load_generator():
    specification = importlib.util.spec_from_file_location("documents", ROOT / "benchmarks/readme.py")
    generator = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(generator)
    return generator


def test_tables_and_numbers_are_those_of_the_results():
    generator = load_generator()
    for name, lines in generator.documents().items():
        _, _, rest = (ROOT / name).read_text().partition(generator.START + "\n")
        found, _, _ = rest.partition("\n" + generator.END)
        assert found.splitlines() == "\n".join(lines).splitlines(), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (document.parent / target).exists(), target


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 140
