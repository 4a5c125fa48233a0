"""What may happen to a segmenter's run, and that it loses nothing."""

import errno
import json
import os
import shutil
import signal
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from acmix import InputError
from acmix.errors import PreemptedError, TrainingError
from acmix.tasks.loop import fitting, states
from acmix.tasks.loop.progress import Reporting
from acmix.tasks.segmentation.fitting import ROOM
from acmix.tasks.segmentation.task import Segmentation
from tests.runs import after, assert_goes_on_with_its_own_optimizer_alone, same, unlisted
from tests.tasks.loop.test_distribution import together
from tests.tasks.segmentation.conftest import SETTINGS

# A network without batch statistics, which are of a process's own images.
PLAIN = replace(
    SETTINGS,
    backbone="test_convnext.r160_in1k",
    epochs=1,
    optimizer="sgd",
    drop_rate=0.0,
    dice=1.0,
    class_weights="balanced",
)


def train(data, output, settings=SETTINGS, **options):
    return ROOM.fit(str(data), settings, output, **({"workers": 0} | options))


def weights(output):
    return safetensors.torch.load_file(output / "last.safetensors")


def test_a_killed_run_goes_on_to_the_bit(finished, masked, tmp_path, start):
    output = tmp_path / "run"
    for updates in (2, 3):
        reporting = after(updates, lambda: os.kill(os.getpid(), signal.SIGKILL))
        process = start(
            lambda again=reporting: train(masked, output, resume=bool(states.paths(output)), reporting=again)
        )
        process.join()
        assert process.exitcode == -signal.SIGKILL
    result = train(masked, output, resume=True)
    assert same(weights(output), weights(finished[0]))
    assert result.validation == finished[1].validation
    assert unlisted(output) == []


def test_a_run_goes_on_with_its_own_optimizer_alone(masked, tmp_path):
    def begin(own, **options):
        return train(masked, tmp_path / "run", own, **options)

    assert_goes_on_with_its_own_optimizer_alone(begin, SETTINGS, tmp_path / "run")


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, PreemptedError), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_stops_after_the_update(finished, masked, tmp_path, number, error):
    before = signal.getsignal(number)
    with pytest.raises(error, match="epoch 2 after update [12] of 3"):
        train(masked, tmp_path / "run", reporting=after(4, lambda: os.kill(os.getpid(), number)))
    assert signal.getsignal(number) is before
    train(masked, tmp_path / "run", resume=True)
    assert same(weights(tmp_path / "run"), weights(finished[0]))


def test_a_full_disk_keeps_the_state_before(finished, masked, tmp_path, monkeypatch):
    def fill():
        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(TrainingError, match="No space left on device"):
        train(masked, tmp_path / "run", reporting=after(3, fill))
    monkeypatch.undo()
    assert unlisted(tmp_path / "run") == []
    train(masked, tmp_path / "run", resume=True)
    assert same(weights(tmp_path / "run"), weights(finished[0]))


def test_updates_without_finite_numbers_are_skipped_and_named(masked, tmp_path, monkeypatch):
    learned, losses = Segmentation.loss, []

    def loss(self, network, batch):
        losses.append(batch)
        return learned(self, network, batch) * (torch.nan if len(losses) == 2 else 1)

    monkeypatch.setattr(Segmentation, "loss", loss)
    train(masked, tmp_path / "run", replace(SETTINGS, epochs=1))
    (problem,) = map(json.loads, (tmp_path / "run" / "problems.jsonl").read_text().splitlines())
    assert problem["update"] == 2
    assert sorted(problem["images"]) == sorted(losses[1].names)
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())


@pytest.mark.parametrize("folder", ["images", "annotations"])
def test_what_cannot_be_read_is_refused_or_replaced(masked, tmp_path, folder):
    data = shutil.copytree(masked, tmp_path / "data")
    (data / folder / "training" / "0003.png").write_bytes(b"no picture")
    one = replace(SETTINGS, epochs=1, most_unreadable=0.5)
    with pytest.raises(InputError, match=r"1 of 16 images cannot be read: .*0003\.png"):
        train(data, tmp_path / "refused", one)
    train(data, tmp_path / "run", one, check_images=False)
    (problem,) = map(json.loads, (tmp_path / "run" / "problems.jsonl").read_text().splitlines())
    assert problem["image"] == "0003.png"


@pytest.mark.parametrize("known", [True, False])
def test_bfloat16_learns_and_is_said_to_be_slow_where_it_is(masked, tmp_path, monkeypatch, known):
    monkeypatch.setattr(fitting, "multiplies_bfloat16", lambda: known)
    told, settings = {}, replace(SETTINGS, epochs=1, precision="bfloat16")
    result = train(masked, tmp_path / "run", settings, reporting=Reporting(on_start=told.update))
    assert told["device"].endswith(", bfloat16") == known
    assert told["device"].endswith(": float32 is faster") != known
    assert result.validation.loss < 5
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())


def test_parts_and_processes_learn_what_one_learns(masked, tmp_path, start):
    half = replace(PLAIN, batch_size=2)
    whole = train(masked, tmp_path / "one", PLAIN)
    train(masked, tmp_path / "parts", replace(half, accumulate=2))
    assert together(start, 2, lambda: train(masked, tmp_path / "two", half)) == [0, 0]
    one = weights(tmp_path / "one")
    for name in ("two", "parts"):
        other = weights(tmp_path / name)
        assert max(float((one[key].double() - other[key].double()).abs().max()) for key in one) < 1e-4
    found = json.loads((tmp_path / "two" / "summary.json").read_text())["validation"]
    assert found["mean_iou"] == pytest.approx(whole.best, abs=1e-3)
