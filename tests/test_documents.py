"""What documents say: what is generated stands there as it is generated, what they link to is there."""

import importlib.util
import re
from pathlib import Path

import pytest

from acmix.cli import main

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


def test_the_programs_of_the_readme_run_as_they_stand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    operator, training = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert len([line for line in operator.splitlines() if line]) <= 15
    for program in (operator, training):
        exec(program, {})  # noqa: S102
    out = capsys.readouterr().out
    assert "convolutions replaced\n" in out
    assert re.search(r"\d% after [12] epochs, see runs/digits/report.html", out)
    assert re.search(r"^\['\d', '\d', '\d'\] \('0', ", out, re.MULTILINE)
    assert (tmp_path / "network.onnx").is_file()
    assert (tmp_path / "runs/digits/report.html").is_file()


def test_the_commands_of_the_readme_are_there():
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    commands = [
        part.split() for block in blocks for line in block.splitlines() for part in line.partition("#")[0].split("&&")
    ]
    names = [words[1] for words in commands if words[:1] == ["acmix"]]
    assert len(names) > 8
    for name in names:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 140
