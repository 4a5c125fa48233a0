"""Drawn pictures with masks, and a run of a small network on them."""

import pytest

from acmix.tasks.loop import run
from acmix.tasks.segmentation.fitting import ROOM
from acmix.tasks.segmentation.settings import Settings
from tests.drawn_shapes import draw, write_masks

SETTINGS = Settings(
    model="semantic_fpn",
    backbone="test_resnet.r160_in1k",
    decoder_channels=64,
    epochs=2,
    batch_size=4,
    image_size=32,
    learning_rate=0.003,
)


@pytest.fixture(scope="session")
def masked(tmp_path_factory):
    """Twelve pictures of 40 pixels to learn from, four to validate with."""
    return write_masks(tmp_path_factory.mktemp("masked"), draw(16, side=40))


@pytest.fixture(scope="session")
def finished(tmp_path_factory, masked):
    """Folder and result of a run of two epochs."""
    folder = tmp_path_factory.mktemp("segmenter") / "run"
    result = ROOM.fit(str(masked), SETTINGS, folder, workers=0)
    assert (folder / run.SUMMARY).is_file()
    return folder, result
