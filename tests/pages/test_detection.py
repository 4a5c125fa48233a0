"""The report of a detector's run: true to what was found, and honest about what it lacks."""

import re

import numpy as np
import pytest
from faster_coco_eval.core import mask

from acmix.data.annotated import open_annotated
from acmix.pages.report import write_report
from acmix.tasks.detection.figures import Found
from acmix.tasks.detection.fitting import ROOM
from acmix.tasks.detection.inference import Outcome
from acmix.tasks.detection.settings import Settings
from tests.drawn_shapes import draw, write_coco
from tests.pages.markup import Page

SETTINGS = Settings(
    model="mask_rcnn",
    backbone="acmix_resnet14_small",
    pyramid_channels=8,
    pyramid_levels=3,
    image_size=64,
    longest_side=64,
    epochs=1,
    batch_size=4,
    learning_rate=1e-4,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("data"), draw(12, side=64))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "run"
    ROOM.fit(str(data), SETTINGS, output, workers=0)
    return output


def found(images, index):
    """All objects of an image, as a detector would have found them."""
    truth = images.annotations(index)
    count = len(truth.labels)
    masks = [mask.encode(np.asfortranarray(each.numpy().astype(np.uint8)))["counts"] for each in truth.masks(64, 64)]
    parts = (np.full((count, 1), index), truth.labels[:, None], np.full((count, 1), 0.9), truth.boxes)
    return np.concatenate(parts, 1), masks


@pytest.fixture(scope="module")
def page(data, finished):
    """Of one image an object was missed, of another one is taken for another class and something found in vain."""
    images = open_annotated(str(data)).validation
    outcomes = []
    for index in range(len(images)):
        rows, masks = found(images, index)
        if index == 1:
            rows, masks = rows[1:], masks[1:]
        if index == 2:
            rows[0, 1] = (rows[0, 1] + 1) % 3
            rows, masks = np.concatenate((rows, [[2, 0, 0.95, 1, 1, 5, 4]])), [*masks, masks[0]]
        outcomes.append(Outcome(index=index, found=Found(rows, masks), loss=0.5 + index))
    return Page(write_report(finished, outcomes=outcomes))


def test_the_report_shows_what_became_of_the_objects(data, page):
    images = open_annotated(str(data)).validation
    heading, *rows = page.tables["by-class"]
    assert heading == ["class", "objects", "AP", "AP50", "AP of masks"]
    assert {row[0] for row in rows} <= set(images.classes)
    assert sum(int(row[1]) for row in rows) == len(images.objects.labels)
    labels = [attributes["aria-label"] for tag, attributes, _ in page.elements if tag == "svg"]
    for words in (
        "Precision over recall",
        "AP by the size",
        "recall by the size",
        "Objects by true and predicted class",
    ):
        assert any(label.startswith(words) for label in labels)
    wrong = images.annotations(2).labels[0].item()
    missed = images.annotations(1).labels[0].item()
    assert sorted(page.tables["confused"][1:]) == sorted(
        [
            [images.classes[wrong], images.classes[(wrong + 1) % 3], "1"],
            [images.classes[missed], "nothing there", "1"],
            ["nothing there", images.classes[0], "1"],
        ]
    )


def test_pictures_are_the_worst_and_the_best(page):
    assert [
        each
        for each in page.headings
        if each in ("Highest loss", "Most objects missed", "Surest mistakes", "Best predictions")
    ] == [
        "Highest loss",
        "Most objects missed",
        "Surest mistakes",
        "Best predictions",
    ]
    words = [attributes["alt"] for attributes in page.all("img")]
    assert "val/0002.png: what was found in it; 1 missed, loss 1.500" in words
    assert "val/0003.png: what was found in it; 1 of another class, 1 found in vain, loss 2.500" in words
    assert "val/0001.png: what was found in it; all found, loss 0.500" in words
    found = [each for each in words if "what was found" in each]
    # The hardest are first, by their loss.
    assert [each[:12] for each in found[:3]] == ["val/0003.png", "val/0002.png", "val/0001.png"]


def test_everyone_can_use_the_page(page):
    page.check()


def test_a_report_written_in_haste_says_what_it_lacks(finished, tmp_path):
    page = Page(write_report(finished, tmp_path / "report.html", pictures=False))
    assert "by-class" in page.tables
    assert "confused" not in page.tables


def test_data_that_have_moved(data, finished, tmp_path):
    moved = data.rename(data.with_name("moved"))
    try:
        text = write_report(finished, tmp_path / "report.html").read_text()
        assert re.search(r"No pictures: .* does not exist", text)
        text = write_report(finished, tmp_path / "report.html", data=str(moved)).read_text()
        assert "No pictures" not in text
        assert "data:image/png;base64" in text
    finally:
        moved.rename(data)
