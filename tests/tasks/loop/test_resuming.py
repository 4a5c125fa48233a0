"""Runs go on with the same data wherever they lie, and with no others."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from acmix import InputError
from acmix.cli.python import is_done
from acmix.errors import PreemptedError
from acmix.tasks.classification.choice import choose
from acmix.tasks.classification.fitting import ROOM
from acmix.tasks.classification.settings import Settings
from acmix.tasks.loop.progress import Reporting
from acmix.tasks.loop.run import prepare_folder, read_json

SETTINGS = Settings(model="acmix_resnet14_small", epochs=1, batch_size=8, image_size=16)


def noise(root, seed=0, count=6):
    """Images of noise: PNG files of equal sizes, no two alike."""
    random = np.random.default_rng(seed)
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(root / name / f"{index}.png")
    return root


def train(data, output, **options):
    return ROOM.fit(str(data), SETTINGS, output, workers=0, **options)


def stopped(data, output, **options):
    stop = Reporting(on_update=lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(PreemptedError):
        train(data, output, reporting=stop, **options)


@pytest.mark.parametrize("place", ["moved", "linked", "copied"])
def test_a_run_goes_on_with_the_same_data_elsewhere(tmp_path, place):
    data, other = noise(tmp_path / "data"), tmp_path / place
    stopped(data, tmp_path / "run")
    if place == "moved":
        data.rename(other)
    elif place == "linked":
        data.rename(tmp_path / "store")
        other.symlink_to(tmp_path / "store")
    else:
        shutil.copytree(data, other)
    result = train(other, tmp_path / "run", resume=True)
    config = read_json(tmp_path / "run" / "config.json")
    assert config["data"]["location"] == str(other.resolve())
    assert config["taken"]["training"] == f"{other.resolve()}: 10 images of 2 classes (ant, bee)"
    assert result.validation.images == 2


def test_a_run_goes_on_with_its_validation_images_elsewhere(tmp_path):
    data, held_out = noise(tmp_path / "data"), noise(tmp_path / "held-out", seed=1, count=2)
    stopped(data, tmp_path / "run", validation=str(held_out))
    shutil.copytree(held_out, tmp_path / "other")
    (tmp_path / "other" / "ant" / "0.png").unlink()
    with pytest.raises(InputError, match="the validation images are others"):
        train(data, tmp_path / "run", validation=str(tmp_path / "other"), resume=True)
    held_out.rename(tmp_path / "moved")
    assert train(data, tmp_path / "run", validation=str(tmp_path / "moved"), resume=True).validation.images == 4


def test_a_run_does_not_go_on_with_other_data(tmp_path):
    data = noise(tmp_path / "data")
    stopped(data, tmp_path / "run")
    # Equal names and sizes.
    with pytest.raises(InputError, match="needs the settings and data the run began with: the contents of images are"):
        train(noise(tmp_path / "other", seed=1), tmp_path / "run", resume=True)
    (data / "ant" / "0.png").unlink()
    with pytest.raises(InputError, match="the training images are others; .*train_images was 10, is 9"):
        train(data, tmp_path / "run", resume=True)


def test_a_run_of_an_older_version_goes_on(tmp_path):
    data = noise(tmp_path / "data")
    stopped(data, tmp_path / "run")
    config = read_json(tmp_path / "run" / "config.json")
    for part, names in ((config, ("contents", "taken")), (config["data"], ("validation_fingerprint",))):
        for name in names:
            del part[name]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert train(data, tmp_path / "run", resume=True).epochs == 1


@pytest.mark.parametrize(
    "ask",
    [
        lambda folder: prepare_folder(folder, resume=True, epochs=2),
        lambda folder: choose("digits", None, {}, base=folder),
        lambda folder: is_done(folder, {}),
    ],
)
def test_a_damaged_configuration_is_told_by_whoever_reads_it(tmp_path, ask):
    for name in ("config.json", "summary.json"):
        (tmp_path / name).write_text('{"settings": {}}')
    with pytest.raises(InputError, match="config.json is damaged: data, processes missing"):
        ask(tmp_path)
