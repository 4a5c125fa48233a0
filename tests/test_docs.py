"""What docs/predicting.md shows runs as it stands."""

import pathlib
import re
import shlex

import pytest

from acmix.cli import main
from acmix.data import export_digits
from tests.commands import FAST

TEXT = (pathlib.Path(__file__).parents[1] / "docs/predicting.md").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the page speaks of: a run, and images."""
    folder = tmp_path_factory.mktemp("page")
    assert main(["train", "digits", *FAST, "--output", str(folder / "runs" / "digits")]) == 0
    export_digits(folder / "photos", count=10)
    return folder


def test_programs(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S))
    exec(program, {})  # noqa: S102
    printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\['\d', '\d'\] torch.Size\(\[2, 10\]\) \('0', .*'9'\)", printed[0])
    assert printed[1] in "0123456789"
    assert re.fullmatch(r"the images of digits that training held out \d+\.\d%", printed[2])


def test_commands(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    (block,) = re.findall(r"^```sh\n(.*?)^```", TEXT, re.M | re.S)
    for line in block.splitlines():
        _, *arguments = shlex.split(line, comments=True)
        assert main(arguments) == 0, line
    assert capsys.readouterr().err == ""
    assert {"all.csv", "drawn", "network.onnx", "exported"} < {path.name for path in place.iterdir()}
    assert "license: cc-by-4.0" in (place / "exported" / "README.md").read_text()
