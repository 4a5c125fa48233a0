"""What may happen to a detector's run, and that it loses nothing."""

import errno
import json
import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision

from acmix import InputError
from acmix.errors import PreemptedError, TrainingError
from acmix.tasks.detection.task import Detection
from acmix.tasks.loop import session, settings, states
from tests.runs import after, assert_goes_on_with_its_own_optimizer_alone, same, unlisted
from tests.tasks.detection.conftest import SETTINGS, of, train, weights
from tests.tasks.loop.test_distribution import together

MODELS = ("retinanet", "fcos", "faster_rcnn", "mask_rcnn")


def killed(start, shapes, output, own, updates):
    """A run that is killed after so many updates, begun or continued."""
    reporting = after(updates, lambda: os.kill(os.getpid(), signal.SIGKILL))
    resume = bool(states.paths(output))
    process = start(lambda: train(shapes, output, own, resume=resume, reporting=reporting))
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("model", MODELS[1:])
def test_every_network_goes_on_to_the_bit(trained, shapes, tmp_path, start, model):
    killed(start, shapes, tmp_path / "run", of(model), 1)
    result = train(shapes, tmp_path / "run", of(model), resume=True)
    for name in ("last.safetensors", "best.safetensors"):
        assert same(weights(tmp_path / "run", name), weights(trained(model).output, name))
    assert result.validation == trained(model).validation


def test_a_run_that_is_killed_often_goes_on_to_the_bit(finished, shapes, tmp_path, start):
    for updates in (1, 3):
        killed(start, shapes, tmp_path / "run", SETTINGS, updates)
    result = train(shapes, tmp_path / "run", resume=True)
    for name in ("last.safetensors", "best.safetensors"):
        assert same(weights(tmp_path / "run", name), weights(finished.output, name))
    assert result.validation == finished.validation
    assert unlisted(tmp_path / "run") == []


def test_a_run_goes_on_with_its_own_optimizer_alone(shapes, tmp_path):
    def begin(own, **options):
        return train(shapes, tmp_path / "run", own, **options)

    assert_goes_on_with_its_own_optimizer_alone(begin, SETTINGS, tmp_path / "run")


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, PreemptedError), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_stops_after_the_update(finished, shapes, tmp_path, number, error):
    before = signal.getsignal(number)
    with pytest.raises(
        error, match=r"epoch 2 after update [12] of 2; .* continue with: acmix train \S+ .*--output \S+ --resume$"
    ):
        train(shapes, tmp_path / "run", reporting=after(3, lambda: os.kill(os.getpid(), number)))
    assert signal.getsignal(number) is before
    train(shapes, tmp_path / "run", resume=True)
    assert same(weights(tmp_path / "run"), weights(finished.output))


def test_a_full_disk_keeps_the_state_before(finished, shapes, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(TrainingError, match="No space left on device"):
        train(shapes, tmp_path / "run", reporting=after(3, lambda: monkeypatch.setattr(os, "fsync", full)))
    monkeypatch.undo()
    assert unlisted(tmp_path / "run") == []
    train(shapes, tmp_path / "run", resume=True)
    assert same(weights(tmp_path / "run"), weights(finished.output))


def test_updates_without_finite_numbers_are_skipped_and_named(shapes, tmp_path, monkeypatch):
    learned, batches = Detection.loss, []

    def loss(self, network, batch):
        batches.append(batch)
        return learned(self, network, batch) * (torch.nan if len(batches) == 2 else 1)

    monkeypatch.setattr(Detection, "loss", loss)
    train(shapes, tmp_path / "run", of("retinanet"))
    (problem,) = map(json.loads, (tmp_path / "run" / "problems.jsonl").read_text().splitlines())
    assert (problem["update"], sorted(problem["images"])) == (2, sorted(batches[1].names))
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())


@pytest.mark.parametrize("model", MODELS)
def test_weights_that_overflow_end_a_run_in_a_line(shapes, tmp_path, model):
    """What is not finite is no detection, so that AP alone would be 0 of a network that is lost."""
    own = of(model, optimizer="sgd", learning_rate=1e38, warmup_epochs=0)
    with pytest.raises(TrainingError, match="^val_map, .* after epoch 1 not finite: weights have overflowed"):
        train(shapes, tmp_path / "run", own)
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_images_that_cannot_be_read_are_replaced_and_counted(shapes, tmp_path):
    data = shutil.copytree(shapes, tmp_path / "data")
    (data / "train" / "0003.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="1 of 12 images cannot be read"):
        train(str(data), tmp_path / "refused")
    train(str(data), tmp_path / "run", of("retinanet", most_unreadable=0.5), check_images=False)
    problems = [json.loads(line) for line in (tmp_path / "run" / "problems.jsonl").read_text().splitlines()]
    assert [(each["problem"], each["image"][-8:]) for each in problems] == [("unreadable", "0003.png")]


@pytest.mark.parametrize("model", ["retinanet", "mask_rcnn"])
def test_float16_learns(shapes, tmp_path, model, monkeypatch):
    """On a CPU, which Fabric would give bfloat16; the first scales of losses overflow."""
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0**20))
    plugin._desired_input_dtype = torch.float16
    monkeypatch.setattr(plugin, "forward_context", lambda: torch.autocast("cpu", torch.float16))
    monkeypatch.setattr(session, "make_fabric", lambda *_, **__: Fabric(accelerator="cpu", plugins=plugin))
    monkeypatch.setattr(settings, "_has_accelerator", lambda: True)
    train(shapes, tmp_path / "run", of(model, precision="float16"))
    state = states.read(states.paths(tmp_path / "run")[-1])
    assert state["precision"]["scale"] < 2**20
    assert (state["updates"], (tmp_path / "run" / "problems.jsonl").exists()) == (2, False)
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())


@pytest.mark.parametrize("model", ["retinanet", "fcos", "mask_rcnn"])
def test_parts_and_processes_learn_what_one_learns(shapes, tmp_path, start, model):
    """Without batch statistics, which are of a process's own images; what is drawn is a function of the position.

    A bias that a norm takes off has a gradient of roundings alone, which Adam would make as large as others.
    """
    own = of(model, freeze_norms=True, average_decay=0.8, clip_norm=5.0, optimizer="sgd", learning_rate=0.01)
    half = replace(own, batch_size=2)
    train(shapes, tmp_path / "one", own)
    train(shapes, tmp_path / "parts", replace(half, accumulate=2))
    assert together(start, 2, lambda: train(shapes, tmp_path / "two", half)) == [0, 0]
    metrics = [(tmp_path / name / "metrics.csv").read_text().splitlines()[1].split(",") for name in ("one", "two")]
    assert metrics[0][2:5] == metrics[1][2:5]
    one = weights(tmp_path / "one")
    for name in ("two", "parts"):
        other = weights(tmp_path / name)
        assert max(float((one[key].double() - other[key].double()).abs().max()) for key in one) < 1e-5
