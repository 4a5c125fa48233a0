"""The commands and lines of docs/training.md and docs/predicting.md run, with a network that takes no time."""

import re
import shlex
from pathlib import Path

import pytest

from acmix.data import export_digits
from acmix.tasks.loop.resuming import EXTENDABLE
from tests.commands import call

DOCS = Path(__file__).parents[2] / "docs"
TRAINING, RESUMING, PREDICTING = ((DOCS / f"{name}.md").read_text() for name in ("training", "resume", "predicting"))
SMALL = {"model": "test_resnet.r160_in1k", "image_size": 32, "batch_size": 512}


def test_training_is_as_it_is_documented(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", value)]
    commands = [line for block in re.findall(r"```sh\n(.*?)```", TRAINING, re.DOTALL) for line in block.splitlines()]
    assert len(commands) >= 6
    for command in commands:
        words = shlex.split(command, comments=True)[1:]
        code, _, err = call(capsys, *words, *(options if words[0] == "train" else []))
        assert (code, err) == (0, ""), command


def test_what_may_differ_is_documented():
    *names, last = (f"`{name}`" for name in EXTENDABLE)
    assert f"may be {', '.join(names)} and {last};" in " ".join(RESUMING.split())


@pytest.fixture
def _trained(checkpoint, tmp_path, monkeypatch):
    """The folder that docs/predicting.md speaks of: a run, and images."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(checkpoint.parent)
    export_digits(tmp_path / "photos", count=5)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_trained")
def test_a_trained_network_is_used_as_it_is_documented(capsys):
    exec("\n".join(re.findall(r"```python\n(.*?)```", PREDICTING, re.DOTALL)), {})  # noqa: S102
    found, label, measured = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\['\d', '\d'\] torch.Size\(\[2, 10\]\) \('0', .*'9'\)", found)
    assert re.fullmatch(r"\d", label)
    assert re.fullmatch(r"the images of digits that training held out \d+\.\d%", measured)


@pytest.mark.usefixtures("_trained")
def test_commands_that_use_a_network_are_as_they_are_documented(capsys):
    (block,) = re.findall(r"```sh\n(.*?)```", PREDICTING, re.DOTALL)
    for command in block.splitlines():
        code, _, err = call(capsys, *shlex.split(command, comments=True)[1:])
        assert code == 0, (command, err)
    assert {"all.csv", "drawn", "network.onnx", "exported"} < {path.name for path in Path().iterdir()}
    assert "license: cc-by-4.0" in Path("exported/README.md").read_text()
