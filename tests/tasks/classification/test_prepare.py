"""A network of one's own is prepared and trained by the same functions as one of the registry."""

from dataclasses import replace

import pytest
import torch
from lightning.fabric import Fabric

from acmix import InputError
from acmix.checkpoints.stored import load_trained
from acmix.data import open_dataset
from acmix.paths import operators_of
from acmix.tasks.classification.measures import MEASURES
from acmix.tasks.classification.networks import fresh_network
from acmix.tasks.classification.prepare import prepare
from acmix.tasks.classification.settings import Settings
from acmix.tasks.loop.execute import execute
from acmix.tasks.loop.prepared import configuration, writer
from acmix.tasks.loop.progress import Reporting
from acmix.tasks.loop.run import BEST, RunFiles

SETTINGS = Settings(model="acmix_resnet14_small", epochs=1, batch_size=32, image_size=8, val_fraction=0.9)


@pytest.fixture(scope="module")
def images():
    return open_dataset("digits", val_fraction=0.9)


@pytest.fixture
def fabric():
    return Fabric(accelerator="cpu", devices=1)


def test_what_is_prepared_is_trained(images, fabric, tmp_path):
    settings = replace(SETTINGS, quiet_shifts=True, acmix_stages="3, 4")
    network = fresh_network(settings, 10)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    prepared = prepare(network, images, settings, fabric)
    # A check leaves no trace.
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert (prepared.workers, prepared.sampler.update_sizes) == (0, (32,) * 5 + (19,))
    save = writer(prepared.trained, {"settings": "mine"})
    execute(prepared, fabric, RunFiles(tmp_path, MEASURES, save, "go on"), None, Reporting())
    found = load_trained(tmp_path / BEST)
    assert found.model_arguments == {"block_args": {"quiet_shifts": True}, "acmix_stages": [3, 4]}
    assert {name.split(".")[0] for name in operators_of(found.model)} == {"layer3", "layer4"}
    assert found.training["settings"] == "mine"
    assert found.training["metrics"]["epoch"] == 1
    assert not torch.equal(found.model.state_dict()["fc.weight"], before["fc.weight"])


def test_what_config_json_holds(images, fabric):
    prepared = prepare(fresh_network(SETTINGS, 10), images, SETTINGS, fabric, workers=3)
    config = configuration(prepared, 4)
    assert prepared.workers == 3
    assert (config["processes"], config["images_an_update"], config["updates_an_epoch"]) == (4, 128, 6)
    assert (config["task"], config["data"]["location"]) == ("classification", "digits")
    assert len(config["classes"]) == 10


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"accumulate": 100}, "too few training images: an update of 1 processes x 100 batches needs at least 200"),
        ({"batch_size": 1}, "cannot learn from a batch of one image"),
        ({"model": "vit_tiny_patch16_224", "image_size": 30}, "does not accept images of"),
    ],
)
def test_what_cannot_be_trained_is_refused(images, fabric, changes, rule):
    settings = replace(SETTINGS, **changes)
    with pytest.raises(InputError, match=rule):
        prepare(fresh_network(settings, 10), images, settings, fabric)
