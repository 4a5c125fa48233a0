"""A study shows the time left of all of it, and its tables where they are read."""

import io
import sys
import time

import pytest

from acmix.cli.display import study as display
from acmix.study import Trained, load_study
from acmix.tasks.loop.progress import Progress
from tests.test_architecture import ROOT

RESULTS = ROOT.parents[1] / "benchmarks" / "results" / "study-digits.json"


def progress(epoch, update):
    numbers = dict.fromkeys(("images_per_second", "loader_images_per_second", "waiting", "seconds_left"), 1.0)
    return Progress(epoch=epoch, epochs=4, update=update, updates=10, loss=2.0, learning_rate=0.1, **numbers)


def test_the_time_left_is_that_of_the_whole_study(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with display.StudyDisplay("accuracy") as shown:
        watching = shown.watching()
        # Two of six trainings were finished before.
        watching.on_start(2, 6)
        now[0] = 30.0
        watching.on_update("acmix", 1, progress(2, 10))
        # Half a training took 30 seconds; three and a half are left.
        left = "2 of 6 trainings, 0:03:30 left, acmix, seed 1: epoch 2 of 4, loss 2.0000"
        assert shown._line.state() == left
        now[0] = 60.0
        done = Trained(variant="acmix", seed=1, accuracy=0.5, curve=[], train_loss=1.0, rates=[], seconds=60.0)
        watching.on_trained(done)
        assert shown._line.state() == "3 of 6 trainings, 0:03:00 left"
        now[0] = 75.0
        watching.on_update("convolution", 1, progress(1, 10))
        assert shown._line.state().startswith("3 of 6 trainings, 0:02:45 left, convolution, seed 1")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("terminal", "markdown"), [(True, False), (True, True), (False, False)])
def test_a_terminal_gets_tables_all_else_markdown(monkeypatch, terminal, markdown):
    out = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "80")
    display.show_study(load_study(RESULTS), as_markdown=markdown)
    text = out.getvalue()
    assert ("|---|" in text) == (markdown or not terminal)
    assert "accuracy, %" in text
    if terminal and not markdown:
        assert "`" not in text
        assert max(map(len, text.splitlines())) <= 80
