"""Images are checked by all processes together, and checkpoints remember them."""

import shutil
import time
from datetime import timedelta

import pytest

from acmix import InputError
from acmix.checkpoints.stored import load_trained
from acmix.data import TrainedImages, open_dataset
from acmix.data.trained import examine
from acmix.tasks.loop import checks, distribution
from acmix.tasks.loop.progress import Reporting
from acmix.tasks.loop.run import read_json
from tests.tasks.loop.test_distribution import together
from tests.tasks.loop.test_resuming import noise, train


def test_a_checkpoint_remembers_what_it_was_trained_on(tmp_path):
    data = noise(tmp_path / "data")
    for index in range(1, 6):
        shutil.copy(data / "bee" / "0.png", data / "bee" / f"{index}.png")
    said = {}
    train(data, tmp_path / "run", reporting=Reporting(on_start=said.update))
    opened = open_dataset(str(data))
    classifier = load_trained(tmp_path / "run" / "best.safetensors")
    known = TrainedImages.from_record(classifier.training)
    same, named = known.recognise(opened.train, examine(opened.train).contents)
    assert same.all()
    assert named.all()
    same, named = known.recognise(opened.validation, examine(opened.validation).contents)
    assert (same.tolist(), named.tolist()) == ([False, True], [False, False])
    assert list(said) == ["training", "validation", "copies", "network", "device", "epochs", "output"]
    assert said["copies"] == "1 validation images are training images, see acmix data check"
    assert said["network"].startswith("acmix_resnet14_small, ")
    assert said["output"] == str(tmp_path / "run")
    assert classifier.training["taken"] == read_json(tmp_path / "run" / "config.json")["taken"]
    train(data, tmp_path / "unchecked", check_images=False)
    unchecked = load_trained(tmp_path / "unchecked" / "best.safetensors")
    assert len(TrainedImages.from_record(unchecked.training).contents) == 0


def test_a_check_takes_longer_than_collectives_wait(tmp_path, start, monkeypatch):
    data = noise(tmp_path / "data")
    kind, examined = distribution.DDPStrategy, checks.examine
    monkeypatch.setattr(distribution, "DDPStrategy", lambda **options: kind(timeout=timedelta(seconds=2), **options))

    def slow(images, indices, **options):
        # Of two images, one a process; the first process reads them from a slow disk.
        if 0 in indices:
            time.sleep(2)
        return examined(images, indices, **options)

    monkeypatch.setattr(checks, "examine", slow)
    assert together(start, 2, lambda: train(data, tmp_path / "run")) == [0, 0]
    known = TrainedImages.from_record(load_trained(tmp_path / "run" / "best.safetensors").training)
    assert len(known.contents) == 10


def test_all_processes_refuse_what_one_cannot_read(tmp_path, start):
    data = noise(tmp_path / "data")
    name = open_dataset(str(data)).train.name(1)
    (data / name).write_bytes(b"no image")

    def refused():
        with pytest.raises(InputError, match=f"1 of 12 images cannot be read: .*{name}"):
            train(data, tmp_path / "run")

    assert together(start, 2, refused) == [0, 0]
    assert not (tmp_path / "run").exists()
