"""Every command that computes takes a device, by one set of words."""

import sys
import types

import pytest

from tests.commands import FAST, call

COMMANDS = {
    "train": ["train", "digits", *FAST, "--output", "out"],
    "validate": ["validate", "CHECKPOINT", "digits"],
    "predict": ["predict", "CHECKPOINT", "a.png"],
    "explain": ["explain", "CHECKPOINT", "a.png"],
    "demo": ["demo", "CHECKPOINT"],
    "report": ["report", "RUN"],
    "bench layer": ["bench", "layer"],
    "bench model": ["bench", "model"],
    "bench kernels": ["bench", "kernels"],
    "study run": ["study", "run", "digits", "--output", "out"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_devices_that_are_not_here(capsys, checkpoint, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    # The demo asks for it first, and it has an environment of its own.
    monkeypatch.setitem(sys.modules, "gradio", types.ModuleType("gradio"))
    places = {"CHECKPOINT": checkpoint, "RUN": checkpoint.parent}
    arguments = [places.get(argument, argument) for argument in COMMANDS[name]]
    code, out, err = call(capsys, *arguments, "--device", "gpu")
    rule = "--device must be one of auto, cpu, cuda, cuda:1 (any number), mps, got 'gpu'"
    assert (code, out, err) == (2, "", f"acmix {name}: error: {rule}\n")
    code, out, err = call(capsys, *arguments, "--device", "cuda:99")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert f"acmix {name}: error: --device cuda:99 cannot be used: " in err
    assert list(tmp_path.iterdir()) == []


def test_benchmarks_measure_where_there_are_clocks(capsys, monkeypatch):
    monkeypatch.setattr("acmix.devices._why_not_mps", lambda: None)
    code, _, err = call(capsys, "bench", "layer", "--device", "mps")
    assert code == 2
    assert "--device must be cpu or cuda to measure time and memory on, got mps" in err
    code, _, err = call(capsys, "bench", "layer", "--device", "cpu", "--graphs")
    assert code == 2
    assert "--graphs are CUDA graphs: they need --device cuda, got --device cpu" in err
