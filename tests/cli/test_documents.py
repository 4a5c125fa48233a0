"""The commands and lines of docs/training.md run, in their order, with a network that takes no time."""

import re
import shlex
from pathlib import Path

import acmix
from acmix.tasks.loop.resuming import EXTENDABLE
from tests.commands import call

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
SMALL = {"model": "test_resnet.r160_in1k", "image_size": 32, "batch_size": 512}


def test_training_is_as_it_is_documented(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", value)]
    commands = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
    assert len(commands) >= 7
    for command in commands:
        words = shlex.split(command, comments=True)[1:]
        code, _, err = call(capsys, *words, *(options if words[0] == "train" else []))
        assert (code, err) == (0, ""), command
    train = acmix.train
    monkeypatch.setattr(acmix, "train", lambda *arguments, **given: train(*arguments, **SMALL, **given))
    (lines,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(lines, {})  # noqa: S102
    assert re.fullmatch(r"\d+\.\d% in epoch [12] of 2\n", capsys.readouterr().out)


def test_what_may_differ_is_documented():
    words = " ".join(TEXT.split())
    assert f"may be {', '.join(EXTENDABLE[:-1])} and {EXTENDABLE[-1]};" in words
