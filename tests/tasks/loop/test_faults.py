"""What may happen to a run, and that it loses nothing: killed, stopped, a full disk, damaged files, bad numbers."""

import errno
import json
import os
import pickle
import random
import resource
import shutil
import signal
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from acmix import InputError, storage
from acmix.cli import main
from acmix.errors import PreemptedError, TrainingError
from acmix.tasks.classification import prepare, task
from acmix.tasks.classification.fitting import ROOM
from acmix.tasks.classification.settings import Settings
from acmix.tasks.loop import states
from acmix.tasks.loop.progress import Reporting
from tests.runs import LISTED, unfinished, unlisted

# Everything that draws random numbers or carries a state of its own.
SETTINGS = Settings(
    model="test_resnet.r160_in1k",
    epochs=3,
    batch_size=8,
    accumulate=2,
    image_size=32,
    mixup=0.2,
    cutmix=1.0,
    drop_path=0.2,
    random_augment="rand-m7-mstd0.5-inc1",
    random_erase=0.3,
    average_decay=0.9,
    clip_norm=1.0,
)
EVERY_UPDATE = Reporting(save_minutes=0.0)
# `make soak` asks for more.
KILLS = int(os.environ.get("ACMIX_KILLS", "2"))


def train(data, output, settings=SETTINGS, **options):
    return ROOM.fit(data, settings, output, check_images=False, **({"workers": 0, "reporting": EVERY_UPDATE} | options))


def weights(output, name="last.safetensors"):
    return safetensors.torch.load_file(Path(output) / name)


def same(found, expected):
    assert found.keys() == expected.keys()
    return all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """Weights of a run that nothing stopped, and its seconds."""
    output = tmp_path_factory.mktemp("uninterrupted") / "run"
    began = time.monotonic()
    train(data, output)
    return output, time.monotonic() - began


def at(update, action):
    """Do something after an update of the second epoch."""

    def on_update(progress):
        if (progress.epoch, progress.update) == (2, update):
            action()

    return Reporting(save_minutes=60, on_update=on_update)


def send(number):
    return lambda: os.kill(os.getpid(), number)


def test_killed_at_random_moments(data, uninterrupted, tmp_path, start):
    moments = random.Random(time.time_ns())  # noqa: S311
    killed = runs = 0
    while killed < KILLS:
        output, runs, exitcode = tmp_path / str(runs), runs + 1, None
        while exitcode is None:
            process = start(lambda output=output: train(data, output, resume=bool(states.paths(output))))
            # Some runs are quicker than their death: then another one is begun.
            process.join(moments.uniform(0, uninterrupted[1]))
            exitcode = process.exitcode
            if exitcode is None:
                process.kill()
                process.join()
                killed += 1
                assert max(unfinished(output)) <= 1
                # Its summary is the last thing that a run writes.
                exitcode = 0 if (output / "summary.json").exists() else None
        assert exitcode == 0
        assert unlisted(output) == []
        assert [line.split(",")[0] for line in (output / "metrics.csv").read_text().split()] == ["epoch", "1", "2", "3"]
        for name in ("last.safetensors", "best.safetensors"):
            assert same(weights(output, name), weights(uninterrupted[0], name))


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGTERM, 0), (signal.SIGUSR1, 0), (signal.SIGINT, 0), (signal.SIGTERM, 2)]
)
def test_stopped_by_a_signal(data, uninterrupted, tmp_path, number, workers):
    error = KeyboardInterrupt if number == signal.SIGINT else PreemptedError
    # A shell starts what runs in its background with SIGINT ignored.
    before = signal.getsignal(number)
    with pytest.raises(error, match="epoch 2 after update 2 of 3"):
        train(data, tmp_path / "run", workers=workers, reporting=at(1, send(number)))
    assert signal.getsignal(number) is before
    train(data, tmp_path / "run", resume=True, workers=workers)
    assert same(weights(tmp_path / "run"), weights(uninterrupted[0]))


def test_stopped_while_it_validates(data, uninterrupted, tmp_path, monkeypatch):
    metric = task.MulticlassAccuracy.update

    def update(self, *arguments):
        send(signal.SIGTERM)()
        metric(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(task.MulticlassAccuracy, "update", update)
        with pytest.raises(PreemptedError, match=r"epoch 1 after update 3 of 3; .* --resume"):
            train(data, tmp_path / "run")
    train(data, tmp_path / "run", resume=True)
    assert same(weights(tmp_path / "run"), weights(uninterrupted[0]))


def test_the_command_line_asks_to_be_started_again(data, tmp_path, capsys):
    output = tmp_path / "run"
    arguments = ["train", data, "--model", SETTINGS.model, "--epochs", "500", "--image-size", "32", "--workers", "0"]
    arguments += ["--output", str(output), "--save-minutes", "0"]

    def stop():
        while not states.paths(output):
            time.sleep(0.01)
        send(signal.SIGTERM)()

    threading.Thread(target=stop).start()
    assert main(arguments) == 75
    assert "acmix train: stopped by SIGTERM in epoch" in capsys.readouterr().err


def test_a_resumed_run_knows_its_settings(data, tmp_path, capsys):
    output = tmp_path / "run"
    with pytest.raises(PreemptedError):
        train(data, output, reporting=at(1, send(signal.SIGTERM)))
    assert main(["train", data, "--output", str(output), "--resume", "--epochs", "4", "--workers", "0"]) == 2
    assert "epochs was 3, is 4" in capsys.readouterr().err
    assert main(["train", data, "--output", str(output), "--resume", "--workers", "0"]) == 0
    assert "epoch   3/3" in capsys.readouterr().out


def test_a_full_disk_keeps_the_state_before(data, tmp_path, uninterrupted):
    output = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))

    reporting = replace(EVERY_UPDATE, on_update=at(2, fill).on_update)
    try:
        with pytest.raises(TrainingError, match=r"5\.pt cannot be written: .*4\.pt is whole; make room and continue"):
            train(data, output, reporting=reporting)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert unlisted(output) == []
    assert states.read(states.paths(output)[-1])["updates"] == 4
    train(data, output, resume=True)
    assert same(weights(output), weights(uninterrupted[0]))


# What a small run writes, in this order.
WRITES = [
    "config.json",
    "states/update-000000000.pt",
    "best.safetensors",
    "last.safetensors",
    "metrics.csv",
    "states/update-000000001.pt",
    "summary.json",
]
SMALL = replace(SETTINGS, epochs=1, batch_size=64, accumulate=1)


@pytest.fixture(scope="module")
def small(data, tmp_path_factory):
    """A run of one update."""
    output = tmp_path_factory.mktemp("small") / "run"
    train(data, output, SMALL, reporting=Reporting())
    return output


def at_write(number, action):
    """Do something in place of a file's way to the disk, that of one file after so many."""
    fsync, files = os.fsync, iter(range(100))

    def act(descriptor):
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode) and next(files) == number:
            action()
        fsync(descriptor)

    return act


def test_a_run_folder_holds_what_is_listed(small):
    assert unlisted(small) == []
    assert [name for name in WRITES if name not in LISTED] == [name for name in WRITES if name.startswith("states/")]
    (small / "other.json").touch()
    assert unlisted(small) == ["other.json"]
    (small / "other.json").unlink()


@pytest.mark.parametrize("number", range(len(WRITES)))
def test_a_disk_that_is_full_at_any_file(data, tmp_path, monkeypatch, small, number):
    def fill():
        raise OSError(errno.ENOSPC, "No space left on device")

    output, name = tmp_path / "run", WRITES[number]
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", at_write(number, fill))
        with pytest.raises((InputError, TrainingError)) as raised:
            train(data, output, SMALL, reporting=Reporting())
    assert "No space left on device" in str(raised.value)
    assert str(output if number == 0 else output / name) in str(raised.value)
    assert unlisted(output) == []
    assert not (output / name).exists()
    train(data, output, SMALL, resume=bool(states.paths(output)), reporting=Reporting())
    assert unlisted(output) == []
    assert same(weights(output), weights(small))


def test_killed_while_it_saves(data, tmp_path, small, start):
    output = tmp_path / "run"
    for number in (1, 1, 0, 3, 2, 0, 0):
        resume = bool(states.paths(output))

        def die(number=number, resume=resume):
            os.fsync = at_write(number, send(signal.SIGKILL))
            train(data, output, SMALL, resume=resume, reporting=Reporting())

        process = start(die)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert sum(unfinished(output)) in (1, 2)
        assert max(unfinished(output)) == 1
    train(data, output, SMALL, resume=True, reporting=Reporting())
    assert unlisted(output) == []
    assert same(weights(output), weights(small))


def test_two_runs_in_one_folder(data, tmp_path, monkeypatch, small, start):
    output = tmp_path / "run"

    def wait(progress):
        if (tmp_path / "wait").exists() and progress.epoch == 1:
            (tmp_path / "reached").touch()
            while (tmp_path / "wait").exists():
                time.sleep(0.01)

    (tmp_path / "wait").touch()
    process = start(lambda: train(data, output, SMALL, reporting=Reporting(on_update=wait)))
    while not (tmp_path / "reached").exists():
        time.sleep(0.01)
    monkeypatch.setattr(storage, "PATIENCE", 0.0)
    with pytest.raises(InputError, match=r"run is of a run that goes on in another process; wait until it has ended"):
        train(data, output, SMALL, resume=True)
    (tmp_path / "wait").unlink()
    process.join()
    assert process.exitcode == 0
    assert same(weights(output), weights(small))
    with pytest.raises(InputError, match="holds a finished run"):
        train(data, output, SMALL, resume=True)


class Payload:
    def __reduce__(self):
        return os._exit, (3,)


@pytest.mark.parametrize("damage", ["cut off", "changed", "code", "other"])
def test_damaged_states_are_refused_by_name(uninterrupted, tmp_path, damage, data):
    output = shutil.copytree(uninterrupted[0], tmp_path / "run")
    (output / "summary.json").unlink()
    path = states.paths(output)[-1]
    content = bytearray(path.read_bytes())
    if damage == "cut off":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "code":
        torch.save({"updates": Payload()}, path, pickle_module=pickle)
    else:
        torch.save([1], path)
    with pytest.raises(InputError, match=rf"the state .*{path.name} is damaged: .*; delete it"):
        train(data, output, resume=True)
    path.unlink()
    train(data, output, resume=True)
    assert same(weights(output), weights(uninterrupted[0]))


class Faulty(nn.Module):
    """A loss that is not a number, or no gradient, at some calls."""

    def __init__(self, calls, gradients=False):
        super().__init__()
        self.calls, self.gradients, self.count = calls, gradients, 0

    def forward(self, logits, targets):
        self.count += 1
        if self.count not in self.calls:
            return nn.functional.cross_entropy(logits, targets)
        return (logits * 0).sum().sqrt() if self.gradients else logits.sum() * torch.nan


@pytest.mark.parametrize("gradients", [False, True])
def test_updates_without_finite_numbers_are_skipped(data, tmp_path, monkeypatch, gradients):
    monkeypatch.setattr(task, "training_loss", lambda _: Faulty({3, 4, 6}, gradients))
    told = []
    settings = replace(SETTINGS, accumulate=1, epochs=1, clip_norm=None)
    train(data, tmp_path / "run", settings, reporting=Reporting(on_problem=told.append))
    problems = [json.loads(line) for line in (tmp_path / "run" / "problems.jsonl").read_text().splitlines()]
    assert [problem["update"] for problem in problems] == [3, 4, 6]
    assert len(told) == 3
    if not gradients:
        assert len(set(problems[0]["images"])) == 8
        assert all((Path(data) / name).is_file() for name in problems[0]["images"])
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())


def test_too_many_in_a_row_stop_the_run(data, tmp_path, monkeypatch):
    monkeypatch.setattr(task, "training_loss", lambda _: Faulty(range(5, 100)))
    settings = replace(SETTINGS, accumulate=1, most_failures=3)
    with pytest.raises(TrainingError, match=r"3 updates in a row without finite loss .*problems\.jsonl"):
        train(data, tmp_path / "run", settings, reporting=Reporting())
    path = states.paths(tmp_path / "run")[-1]
    state = states.read(path)
    assert state["updates"] == 7
    assert all(tensor.isfinite().all() for tensor in state["model"].values())


def test_unreadable_images_are_named_and_replaced(data, tmp_path):
    folder = shutil.copytree(data, tmp_path / "data")
    faulty = sorted((folder / "3").iterdir())
    for path in faulty:
        path.write_bytes(path.read_bytes()[:60])
    told = []
    settings = replace(SETTINGS, most_unreadable=1.0, val_fraction=0.001)
    with pytest.raises(TrainingError, match="not a readable image"):
        # Of training it survives all, of validation none: what is measured must be whole.
        train(str(folder), tmp_path / "run", settings, reporting=Reporting(on_problem=told.append))
    problems = [json.loads(line) for line in (tmp_path / "run" / "problems.jsonl").read_text().splitlines()]
    names = [problem["image"] for problem in problems]
    assert len(names) == len(set(names)) == 9
    assert set(names) < {path.relative_to(folder).as_posix() for path in faulty}
    assert all("not a readable image" in sentence for sentence in told)
    with pytest.raises(TrainingError, match=r"of 54 images cannot be read, more than the share most_unreadable = 0\.1"):
        train(str(folder), tmp_path / "second", replace(settings, most_unreadable=0.1))


def test_a_reader_that_dies_is_reported(data, tmp_path, monkeypatch):
    def transform(*_arguments, **_options):
        def die(image):  # noqa: ARG001
            os.kill(os.getpid(), signal.SIGKILL)

        return die

    monkeypatch.setattr(prepare, "training_transform", transform)
    with pytest.raises(TrainingError, match=r"a process that reads images died .*use fewer --workers"):
        train(data, tmp_path / "run", workers=1)


def test_want_of_memory_is_explained(data, tmp_path, monkeypatch):
    class Hungry(Faulty):
        def forward(self, *_):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB.")

    monkeypatch.setattr(task, "training_loss", lambda _: Hungry(()))
    with pytest.raises(TrainingError, match=r"out of memory: .*halve batch_size .*update-000000000.pt is kept"):
        train(data, tmp_path / "run")


def test_one_command_for_all_attempts(data, tmp_path, capsys):
    output = tmp_path / "run"
    arguments = ["train", data, "--model", SETTINGS.model, "--epochs", "2", "--image-size", "32", "--workers", "0"]
    arguments += ["--output", str(output), "--requeue"]
    with pytest.raises(PreemptedError):
        train(data, output, reporting=at(1, send(signal.SIGTERM)))
    # It had a state: under other settings it is not continued, and nothing is lost.
    assert main(arguments) == 2
    assert "resume needs the settings" in capsys.readouterr().err
    # A run that ended before its first state leaves a configuration.
    configuration = (output / "config.json").read_text()
    shutil.rmtree(output)
    output.mkdir()
    (output / "config.json").write_text(configuration)
    assert main(arguments) == 0
    capsys.readouterr()
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("the run is finished; its report:")


def test_a_state_of_another_version(data, tmp_path):
    output = tmp_path / "run"
    with pytest.raises(PreemptedError):
        train(data, output, reporting=at(1, send(signal.SIGTERM)))
    path = states.paths(output)[-1]
    content = states.read(path)
    del content["sums"]
    torch.save(content, path)
    with pytest.raises(InputError, match=r"the state is of another version of acmix \('sums'\)"):
        train(data, output, resume=True)


def test_a_lost_shard_is_replaced_image_by_image(data, tmp_path):
    assert main(["data", "shard", data, str(tmp_path / "shards"), "--images-per-shard", "5"]) == 0
    settings = replace(SETTINGS, most_unreadable=0.5)
    with pytest.raises(PreemptedError):
        train(str(tmp_path / "shards"), tmp_path / "run", settings, reporting=at(1, send(signal.SIGTERM)))
    lost = sorted((tmp_path / "shards").glob("train-*.tar"))[1]
    lost.write_bytes(lost.read_bytes()[:700])
    # What was counted when the run began is known; that a shard is lost shows when it is read.
    train(str(tmp_path / "shards"), tmp_path / "run", settings, resume=True)
    problems = [json.loads(line) for line in (tmp_path / "run" / "problems.jsonl").read_text().splitlines()]
    assert 0 < len(problems) <= 5
    assert all(lost.name in problem["reason"] for problem in problems)


def test_shards_are_continued_in_the_middle(data, tmp_path):
    assert main(["data", "shard", data, str(tmp_path / "shards"), "--images-per-shard", "10"]) == 0
    shards = str(tmp_path / "shards")
    train(shards, tmp_path / "whole")
    with pytest.raises(PreemptedError):
        train(shards, tmp_path / "run", workers=1, reporting=at(1, send(signal.SIGTERM)))
    train(shards, tmp_path / "run", resume=True)
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))
