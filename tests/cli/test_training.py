import json
import os
import re
import signal

import pytest
import torch
import yaml

from acmix.checkpoints import load_state_dict
from acmix.cli.display.training import TrainingDisplay
from acmix.pages import report
from acmix.tasks.loop import recipes
from tests.commands import FAST, call


def test_training_says_where_things_lie(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "train", "digits", *FAST)
    assert (code, err) == (0, "")
    folder = tmp_path / "runs" / "digits-test_resnet.r160_in1k"
    assert (folder / "best.safetensors").is_file()
    assert "Most confident mistakes" in (folder / "report.html").read_text()
    assert "epoch   1/1" in out
    assert out.splitlines()[-1] == f"acmix validate {folder.relative_to(tmp_path) / 'best.safetensors'} digits"
    code, _, err = call(capsys, "train", "digits", *FAST, "--output", folder)
    assert code == 2
    assert "already holds a run" in err


@pytest.mark.parametrize("fault", [None, RuntimeError("no report today")])
def test_a_run_that_stops_leaves_a_report(capsys, tmp_path, monkeypatch, fault):
    shown = TrainingDisplay._show_epoch

    def stop(self, row):
        shown(self, row)
        os.kill(os.getpid(), signal.SIGTERM)

    def fail(*_, **__):
        raise fault

    monkeypatch.setattr(TrainingDisplay, "_show_epoch", stop)
    if fault is not None:
        monkeypatch.setattr(report, "write_report", fail)
    code, _, err = call(capsys, "train", "digits", *FAST, "--epochs", "2", "--output", tmp_path / "run")
    assert code == 75
    assert "acmix train: stopped by SIGTERM in epoch 2" in err.splitlines()[-1]
    failed = "acmix train: warning: no report: no report today"
    assert err.splitlines()[0] == (f"report: {tmp_path / 'run' / 'report.html'}" if fault is None else failed)
    assert (tmp_path / "run" / "report.html").exists() == (fault is None)


def test_a_finished_run_is_safe_without_its_report(capsys, tmp_path):
    output = tmp_path / "run"
    (output / "report.html").mkdir(parents=True)
    code, out, err = call(capsys, "train", "digits", *FAST, "--output", output)
    assert code == 0
    assert "acmix validate" in out
    assert re.fullmatch(r"acmix train: warning: no report: output must be a file, got the folder .*report\.html\n", err)


def test_start_weights_are_told(capsys, checkpoint, tmp_path):
    state = {f"model.{name}": tensor for name, tensor in load_state_dict(checkpoint).items()}
    torch.save({"state_dict": state | {"loss.weight": torch.ones(1)}}, tmp_path / "last.ckpt")
    options = ["--weights", tmp_path / "last.ckpt", "--output", tmp_path / "run"]
    code, out, err = call(capsys, "train", "digits", *FAST, *options)
    assert (code, err) == (0, "")
    sentence = f"{tmp_path / 'last.ckpt'}, state_dict: {len(state)} of {len(state)} tensors loaded, "
    sentence += "from under 'model.'; not used: loss.weight"
    assert f"weights: {sentence}" in out.splitlines()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["start_weights"] == f"weights {sentence}"


def test_recipes_are_listed_and_printed_in_full(capsys):
    code, out, _ = call(capsys, "recipes")
    assert code == 0
    # On 80 columns nothing is cut off.
    words = set(out.split())
    assert {*recipes.names()} <= words
    assert {"classification", "acmix_swin_small", "optimizer", "0.0005"} <= words
    code, printed, _ = call(capsys, "recipes", "--name", "resnet38")
    assert code == 0
    code, configured, _ = call(capsys, "train", "anything", "--recipe", "resnet38", "--print-config")
    assert (code, configured) == (0, printed)


def test_settings_given_on_the_command_line_win(capsys):
    arguments = ["train", "digits", "--recipe", "resnet26", "--epochs", "7", "--set", "learning_rate=1e-2"]
    code, out, _ = call(capsys, *arguments, "--set", "clip_norm=1", "--print-config")
    assert code == 0
    settings = yaml.safe_load(out)
    assert (settings["epochs"], settings["learning_rate"], settings["clip_norm"]) == (7, 0.01, 1.0)
    assert (settings["optimizer"], settings["model"]) == ("sgd", "acmix_resnet26")


def test_a_scheduler_that_starts_a_finished_run_is_told_so(capsys, tmp_path):
    output = tmp_path / "run"
    assert call(capsys, "train", "digits", *FAST, "--output", output, "--requeue")[0] == 0
    written = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    code, out, err = call(capsys, "train", "digits", *FAST, "--output", output, "--requeue")
    assert (code, err) == (0, "")
    assert out == f"the run is finished; its report: acmix report {output}\n"
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == written
    # What is asked for beyond it is no repetition.
    code, _, err = call(capsys, "train", "digits", *FAST, "--epochs", "3", "--output", output, "--requeue")
    assert code == 2
    assert "holds a finished run; a run of its own trains it to 3 epochs" in err
