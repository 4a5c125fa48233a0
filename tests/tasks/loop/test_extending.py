"""Runs that go on from another's state: as if that had gone on itself, in a folder of their own."""

import hashlib
import os
import shlex
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from acmix import InputError
from acmix.cli import main
from acmix.errors import PreemptedError
from acmix.pages.report import write_report
from acmix.tasks.classification.fitting import ROOM
from acmix.tasks.classification.settings import Settings
from acmix.tasks.loop import run, states
from acmix.tasks.loop.progress import Reporting
from acmix.tasks.record import read_run
from tests.tasks.loop.test_distribution import together

SETTINGS = Settings(
    model="test_resnet.r160_in1k", epochs=2, batch_size=16, image_size=32, average_decay=0.9, drop_path=0.2, mixup=0.2
)
LONGER = replace(SETTINGS, epochs=3)


def train(data, output, settings=SETTINGS, **options):
    return ROOM.fit(data, settings, output, workers=0, check_images=False, **options)


def stop_at(*position):
    def stop(progress):
        if (progress.epoch, progress.update) == position:
            os.kill(os.getpid(), signal.SIGTERM)

    return Reporting(on_update=stop)


def same(first, second):
    ours, theirs = (safetensors.torch.load_file(folder / "last.safetensors") for folder in (first, second))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("finished") / "my run"
    train(data, output)
    return output


def test_a_stopped_run_extended_is_the_run_resumed(data, tmp_path):
    with pytest.raises(PreemptedError):
        train(data, tmp_path / "stopped", reporting=stop_at(2, 1))
    train(data, tmp_path / "extended", extend=tmp_path / "stopped")
    train(data, tmp_path / "stopped", resume=True)
    assert same(tmp_path / "extended", tmp_path / "stopped")
    # The first epoch is the other run's.
    assert [row["epoch"] for row in read_run(tmp_path / "extended").rows] == [2]


def test_a_finished_run_goes_on_and_says_where_it_began(data, finished, tmp_path):
    told, before = {}, sorted(path.name for path in finished.rglob("*"))
    result = train(data, tmp_path / "run", LONGER, extend=finished, reporting=Reporting(on_start=told.update))
    assert (result.epochs, result.best_epoch) == (3, 3)
    state = states.paths(finished)[-1]
    digest = hashlib.sha256(state.read_bytes()).hexdigest()
    origin = {"run": str(finished), "epoch": 2, "update": 0, "digest": digest}
    assert run.read_json(tmp_path / "run" / "config.json")["extends"] == origin
    assert run.read_json(tmp_path / "run" / "summary.json")["extends"] == origin
    assert told["goes on from"] == f"{finished} after epoch 2 (state {digest[:12]})"
    assert read_run(tmp_path / "run").status == "finished"
    assert told["goes on from"] in write_report(tmp_path / "run", pictures=False).read_text()
    assert sorted(path.name for path in finished.rglob("*")) == before
    # The schedule is that of three epochs: its rates are those of a run of three.
    train(data, tmp_path / "whole", LONGER)
    rates = [read_run(tmp_path / name).rows[-1]["learning_rate"] for name in ("run", "whole")]
    assert rates[0] == rates[1] > 0


def test_an_extended_run_resumes_to_the_bit(data, finished, tmp_path):
    train(data, tmp_path / "whole", LONGER, extend=finished)
    with pytest.raises(PreemptedError, match=r"continue with: acmix train .*run --resume$"):
        train(data, tmp_path / "run", LONGER, extend=finished, reporting=stop_at(3, 2))
    assert read_run(tmp_path / "run").status == "stopped, 2 of 3 epochs"
    told = {}
    # A scheduler's command names both; it has gone on already.
    reporting = Reporting(on_start=told.update)
    train(data, tmp_path / "run", LONGER, extend=finished, resume=True, reporting=reporting)
    assert same(tmp_path / "run", tmp_path / "whole")
    assert told["goes on from"].startswith(f"{finished} after epoch 2")
    assert told["continues"] == f"where {tmp_path / 'run'} was saved last"


def test_a_run_that_has_only_begun_can_be_resumed(data, finished, tmp_path):
    train(data, tmp_path / "whole", LONGER, extend=finished)
    with pytest.raises(PreemptedError):
        train(data, tmp_path / "run", LONGER, extend=finished, reporting=stop_at(3, 1))
    # Its first state, before any update, is that of the other run.
    first, last = states.paths(tmp_path / "run")
    assert first.name == states.paths(finished)[-1].name
    last.unlink()
    train(data, tmp_path / "run", LONGER, resume=True)
    assert same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"batch_size": 8}, "needs its network, data and settings but for epochs, .*: batch_size was 16, is 8"),
        ({"model": "test_vit", "image_size": 160}, "model was test_resnet.r160_in1k, is test_vit"),
        ({"average_decay": None}, "average_decay was 0.9, is None"),
        ({"epochs": 2}, "epochs must be more than the 2 that .*my run has trained, got 2"),
    ],
)
def test_what_does_not_fit_makes_no_folder(data, finished, tmp_path, changes, rule):
    with pytest.raises(InputError, match=rule):
        train(data, tmp_path / "run", replace(LONGER, **changes), extend=finished)
    assert not (tmp_path / "run").exists()


def test_other_data_and_other_weights_do_not_fit(data, finished, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    next((tmp_path / "data" / "0").iterdir()).unlink()
    with pytest.raises(InputError, match="the training images are others"):
        train(str(tmp_path / "data"), tmp_path / "run", LONGER, extend=finished)
    with pytest.raises(InputError, match="^weights a cannot be: the run goes on with those of"):
        train(data, tmp_path / "run", LONGER, extend=finished, weights="a")
    with pytest.raises(InputError, match="^extend .* is no run with a state; give the --output folder"):
        train(data, tmp_path / "run", LONGER, extend=tmp_path)
    with pytest.raises(InputError, match="already holds a run"):
        train(data, finished, LONGER, extend=finished)
    assert not (tmp_path / "run").exists()


def test_what_may_differ_does(data, finished, tmp_path):
    changed = replace(LONGER, learning_rate=0.5, warmup_epochs=0, patience=3)
    measured = []

    def track(items, doing, total):
        for item in items:
            yield item
            measured.append((doing, total))

    result = train(data, tmp_path / "run", changed, extend=finished, progress=track)
    images = result.validation.images
    assert measured == [("measuring the best", images)] * images
    assert read_run(tmp_path / "run").rows[-1]["learning_rate"] > LONGER.learning_rate


@pytest.mark.parametrize("epochs", [2, 3])
def test_resuming_a_finished_run_answers_with_the_command_that_trains_it_longer(data, finished, tmp_path, epochs):
    output = shutil.copytree(finished, tmp_path / "my run")
    with pytest.raises(InputError, match="holds a finished run; a run of its own trains it to") as error:
        train(data, output, replace(SETTINGS, epochs=epochs), resume=True)
    words = shlex.split(str(error.value).rpartition(": ")[2])
    wanted = {2: "4", 3: "3"}[epochs]
    new = str(tmp_path / "my run-2")
    assert run.read_json(output / "config.json")["device"] == "auto"
    asked = ["--workers", "0", "--check-images", "false"]
    assert words == ["acmix", "train", data, *asked, "--output", new, "--extend", str(output), "--epochs", wanted]
    if epochs == 3:
        assert main(words[1:]) == 0
        assert read_run(tmp_path / "my run-2").status == "finished"


def test_the_command_keeps_what_a_run_computes_on():
    config = {
        "data": {"location": "a b", "validation_location": "c"},
        "processes": 2,
        "device": "cuda",
        "strategy": "fsdp",
        "workers": 0,
        "save_minutes": 0.5,
        "keep_states": 1,
        "check_images": False,
    }
    words = shlex.split(run.continuing(Path("out"), config))
    given = {"validation": "c", "devices": "2", "device": "cuda", "strategy": "fsdp", "workers": "0"}
    given |= {"save-minutes": "0.5", "keep-states": "1", "check-images": "false", "output": "out"}
    options = [word for name, value in given.items() for word in (f"--{name}", value)]
    assert words == ["acmix", "train", "a b", *options, "--resume"]
    launcher = ["torchrun", "--nproc-per-node", "2", "-m"]
    words = shlex.split(run.continuing(Path("out"), config | {"launcher": launcher}))
    without = [word for name, value in given.items() if name != "devices" for word in (f"--{name}", value)]
    assert words == [*launcher, "acmix", "train", "a b", *without, "--resume"]


def test_what_is_asked_of_a_run_that_goes_on_is_asked_from_then_on(data, tmp_path):
    with pytest.raises(PreemptedError):
        train(data, tmp_path / "run", reporting=replace(stop_at(1, 1), save_minutes=1, keep_states=3))
    assert "--workers 0 --save-minutes 1 --keep-states 3 --check-images false" in read_run(tmp_path / "run").command
    with pytest.raises(PreemptedError):
        train(data, tmp_path / "run", resume=True, reporting=stop_at(2, 1))
    command = read_run(tmp_path / "run").command
    assert "--workers 0 --check-images false" in command
    assert "--keep-states" not in command


def test_resuming_with_more_epochs_answers_so_too(data, tmp_path):
    with pytest.raises(PreemptedError):
        train(data, tmp_path / "run", reporting=stop_at(1, 1))
    changed = replace(SETTINGS, epochs=9, learning_rate=0.5)
    with pytest.raises(InputError, match=r"a run of its own can have that: acmix .* --epochs 9 --learning-rate 0.5$"):
        train(data, tmp_path / "run", changed, resume=True)
    with pytest.raises(InputError, match=r"epochs was 2, is 9; batch_size was 16, is 8$"):
        train(data, tmp_path / "run", replace(SETTINGS, epochs=9, batch_size=8), resume=True)


def test_processes_go_on_together(data, tmp_path, start):
    # Without batch norm, see test_distribution.
    settings = replace(SETTINGS, model="test_convnext.r160_in1k", batch_size=8, drop_path=0.0, mixup=0.0)

    def go_on():
        train(data, tmp_path / "first", replace(settings, epochs=1))
        train(data, tmp_path / "run", settings, extend=tmp_path / "first")

    assert together(start, 2, go_on) == [0, 0]
    assert read_run(tmp_path / "run").status == "finished"
    with pytest.raises(InputError, match="processes was 2, is 1"):
        train(data, tmp_path / "other", settings, extend=tmp_path / "first")
