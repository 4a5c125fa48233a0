import io
import re

import pytest
from rich.console import Console

from acmix.cli.display import training
from acmix.tasks.classification.measures import MEASURES
from acmix.tasks.loop.progress import Progress

PROGRESS = Progress(
    epochs=10,
    epoch=7,
    update=120,
    updates=230,
    loss=2.375,
    learning_rate=1e-3,
    images_per_second=640.0,
    loader_images_per_second=8630.0,
    waiting=0.04,
    seconds_left=754.0,
)


@pytest.mark.parametrize(
    ("columns", "shown", "left_out"),
    [
        (80, ["epoch 7/90", "120/230", "loss 2.3750", "0:12:34 left", "640 images/s"], "loader"),
        (50, ["epoch 7/90", "120/230", "loss 2.3750"], "images/s"),
        (200, ["epoch 7/90", "120/230", "0:12:34 left", "rate 1.00e-03", "loader 8,630/s, waits 4%"], "…"),
    ],
)
def test_the_live_line_shows_bar_and_time_left_first(columns, shown, left_out, monkeypatch):
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=columns, color_system=None)
    monkeypatch.setattr(training, "get_console", lambda: console)
    with training.TrainingDisplay(90, (), live=True) as display:
        display._show_update(PROGRESS)
        display._bar.refresh()
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue()).splitlines()
    last = next(line for line in reversed(lines) if "epoch" in line)
    assert "\u2501" in last
    assert all(words in last for words in shown)
    assert left_out not in last
    assert "\u2026" not in last


def test_a_long_epoch_tells_of_itself_in_a_file(monkeypatch, capsys):
    monkeypatch.setattr(training, "_BETWEEN", 0.0)
    with training.TrainingDisplay(90, (), live=False) as display:
        display._show_update(PROGRESS)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "epoch 7/90  120/230  loss 2.3750  0:12:34 left  640 images/s  rate 1.00e-03  loader 8,630/s, waits 4%\n"
    )


def test_a_validation_tells_of_itself(monkeypatch, capsys):
    monkeypatch.setattr(training, "_BETWEEN", 0.0)
    with training.TrainingDisplay(90, (), live=False) as display:
        display.reporting().on_validation(7, 12, 200)
    assert capsys.readouterr().err == "epoch 7/90  validating 12/200\n"
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(training, "get_console", lambda: console)
    with training.TrainingDisplay(90, (), live=True) as display:
        display._show_update(PROGRESS)
        display.reporting().on_validation(7, 12, 200)
        display._bar.refresh()
    last = terminal.getvalue().rpartition("epoch 7/90")[2]
    assert "validating 12/200" in last
    assert "loss" not in last


def test_an_epoch_is_told_with_what_its_task_measures(capsys):
    row = {"epoch": 3, "train_loss": 0.5, "val_loss": 0.25, "val_top1": 0.875, "val_top5": 1.0, "seconds": 12.34}
    training.TrainingDisplay(9, MEASURES, live=False)._show_epoch(row)
    out = capsys.readouterr().out
    assert out == "epoch   3/9  training loss 0.5000  validation top-1 87.50%, loss 0.2500  12.3 s\n"
