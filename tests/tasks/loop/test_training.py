"""The loop with a task that it has never heard of: a mask for every image, and mean IoU."""

import csv
import signal
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from lightning.fabric import Fabric
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryJaccardIndex
from torchvision.transforms.functional import pil_to_tensor

from acmix.data import image_loader, open_dataset, training_loader
from acmix.data.sampling import EpochSampler
from acmix.errors import PreemptedError
from acmix.tasks.loop import run, states
from acmix.tasks.loop.measures import Measure, best_epoch
from acmix.tasks.loop.progress import Reporting
from acmix.tasks.loop.settings import LoopSettings
from acmix.tasks.loop.task import Batches
from acmix.tasks.loop.training import Training

SETTINGS = LoopSettings(model="", epochs=3, batch_size=16, accumulate=2, learning_rate=0.05, average_decay=0.5)
MEASURES = (Measure(name="val_iou", title="IoU", share=True), Measure(name="val_size", title="size", falling=True))


class Strokes:
    """Which pixels are bright; the labels of the images are nobody's business."""

    def __init__(self):
        self.metrics = MetricCollection({"val_iou": BinaryJaccardIndex()})

    def loss(self, network, batch):
        return nn.functional.binary_cross_entropy_with_logits(network(batch.images), (batch.images > 0.5).float())

    def measure(self, network, batch):
        images, _ = batch
        self.metrics.update(network(images), (images > 0.5).long())


def seen(image):
    return pil_to_tensor(image.convert("L")) / 255


def train(output, settings=SETTINGS, state=None, **reporting):
    images = open_dataset("digits", val_fraction=0.9)
    torch.manual_seed(0)
    sampler = EpochSampler(len(images.train), batch_size=settings.batch_size, accumulate=settings.accumulate)
    batches = Batches(
        training=training_loader(images.train, sampler, seen, seed=0),
        sampler=sampler,
        validation=image_loader(images.validation.with_transform(seen), batch_size=500),
    )
    output.mkdir(exist_ok=True)
    files = run.RunFiles(
        output, MEASURES, lambda path, _, weights: safetensors.torch.save_file({**weights}, path), "go on"
    )
    network = nn.Conv2d(1, 1, 3, padding=1)
    fabric = Fabric(accelerator="cpu", devices=1)
    training = Training(fabric, network, Strokes(), batches, settings, files, Reporting(**reporting))
    if state is not None:
        training.restore(state)
    training.run()
    return files


def test_a_validation_is_told_batch_by_batch(tmp_path):
    told = []
    train(tmp_path / "run", replace(SETTINGS, epochs=2), on_validation=lambda *where: told.append(where))
    assert told == [(epoch, batch, 4) for epoch in (1, 2) for batch in (1, 2, 3, 4)]


def test_it_is_trained_validated_and_kept(tmp_path):
    files = train(tmp_path / "run")
    rows = [*csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines())]
    assert [float(row["val_iou"]) for row in rows] == [row["val_iou"] for row in files.rows]
    assert files.rows[-1]["val_iou"] > max(0.6, files.rows[0]["val_iou"])
    assert files.best["val_iou"] == max(row["val_iou"] for row in files.rows)
    assert safetensors.torch.load_file(tmp_path / "run" / "best.safetensors").keys() == {"weight", "bias"}


def test_it_is_stopped_and_goes_on_to_the_bit(tmp_path):
    train(tmp_path / "whole")

    def stop(progress):
        if (progress.epoch, progress.update) == (2, 3):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(PreemptedError, match="epoch 2 after update 4 of 6"):
        train(tmp_path / "run", on_update=stop)
    train(tmp_path / "run", state=states.read(states.paths(tmp_path / "run")[-1]))
    found, expected = (safetensors.torch.load_file(tmp_path / name / "last.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_settings_say_when_nothing_can_be_learned(tmp_path):
    class Hopeless(Strokes):
        def loss(self, network, batch):
            return super().loss(network, batch) * torch.nan

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(globals(), "Strokes", Hopeless)
        with pytest.raises(RuntimeError, match=r"2 updates in a row without finite loss .*problems\.jsonl"):
            train(tmp_path / "run", replace(SETTINGS, most_failures=2))
    assert states.read(states.paths(tmp_path / "run")[-1])["failures"] == 0


def test_the_best_epoch_is_that_of_the_first_measure_that_differs():
    rows = [{"val_iou": iou, "val_size": size} for iou, size in ((0.1, 1.0), (0.5, 3.0), (0.5, 2.0), (0.5, 2.0))]
    assert best_epoch(rows, MEASURES) is rows[2]
    # What a run does not have ranks nothing.
    assert best_epoch(rows, [Measure(name="val_other", title="other", optional=True), *MEASURES]) is rows[2]
