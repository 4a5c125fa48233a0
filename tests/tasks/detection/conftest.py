"""Drawn pictures with objects, and the smallest detector that learns from them."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import safetensors.torch

from acmix.tasks.detection.fitting import ROOM
from acmix.tasks.detection.settings import Settings
from tests import drawn_shapes
from tests.tasks.conftest import start

__all__ = ["start"]
# Eight images to learn from, four to validate with.
SETTINGS = Settings(
    model="retinanet",
    backbone="acmix_resnet14_small",
    pyramid_channels=8,
    finest_stride=4,
    pyramid_levels=2,
    head_convolutions=1,
    image_size=32,
    longest_side=64,
    epochs=2,
    batch_size=4,
    learning_rate=1e-3,
    score_threshold=0.0,
    smallest_scale=0.8,
    largest_scale=1.25,
)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """The pictures as COCO has them."""
    folder = tmp_path_factory.mktemp("shapes")
    return str(drawn_shapes.write_coco(folder, drawn_shapes.draw(12, side=32, most=3), share=1 / 3))


def train(data, output, settings=SETTINGS, **options):
    return ROOM.fit(data, settings, output, workers=0, **options)


def of(model, **changes):
    """The settings of the smallest network of each kind, for one epoch."""
    channels = 32 if model == "fcos" else SETTINGS.pyramid_channels
    return replace(SETTINGS, model=model, pyramid_channels=channels, **({"epochs": 1} | changes))


def weights(output, name="last.safetensors"):
    return safetensors.torch.load_file(Path(output) / name)


@pytest.fixture(scope="session")
def trained(shapes, tmp_path_factory):
    """A run of one epoch of each kind of network."""
    return cache(lambda model: train(shapes, tmp_path_factory.mktemp(model) / "run", of(model)))


@pytest.fixture(scope="session")
def finished(shapes, tmp_path_factory):
    """A run that was not interrupted."""
    return train(shapes, tmp_path_factory.mktemp("detection") / "run")
