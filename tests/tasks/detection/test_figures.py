"""COCO's figures are pycocotools' own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from acmix.checkpoints.detector import Detections
from acmix.data.annotated import open_annotated
from acmix.tasks.detection.figures import Found, compare, encoded_masks, joined, rows_of
from acmix.tasks.detection.task import CocoFigures
from tests import drawn_shapes

# What pycocotools 2.0.11 makes of `disturbed`, by tests/tasks/detection/pycocotools_figures.py.
EXPECTED = json.loads((Path(__file__).parents[2] / "data/pycocotools.json").read_text())


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = drawn_shapes.write_coco(tmp_path_factory.mktemp("coco"), drawn_shapes.draw(40, side=120), share=0.5)
    return open_annotated(str(folder)).validation


def disturbed(images, seed=0):
    """Detections near the objects and elsewhere, with equal scores among them."""
    generator = np.random.default_rng(seed)
    for index in range(len(images)):
        annotations = images.annotations(index)
        height, width = (int(side) for side in images.sizes[index])
        boxes, classes, scores, masks = [], [], [], []
        truth = annotations.masks(height, width).numpy()
        for box, label, mask in zip(annotations.boxes.tolist(), annotations.labels.tolist(), truth, strict=True):
            for _ in range(generator.integers(0, 4)):
                boxes.append((np.array(box) + generator.normal(0, 2, 4)).astype(np.float32))
                classes.append(label if generator.random() < 0.8 else int(generator.integers(3)))
                scores.append(round(float(generator.random()), 1))
                masks.append(np.roll(mask, generator.integers(-2, 3, 2), (0, 1)))
        for _ in range(generator.integers(0, 3)):
            corner = generator.uniform(0, 80, 2)
            boxes.append(np.concatenate((corner, corner + generator.uniform(5, 40, 2))).astype(np.float32))
            classes.append(int(generator.integers(3)))
            scores.append(round(float(generator.random()), 1))
            masks.append(generator.random((height, width)) < 0.1)
        count = len(boxes)
        yield Detections(
            boxes=torch.from_numpy(np.array(boxes, np.float32).reshape(count, 4)),
            scores=torch.tensor(scores),
            classes=torch.tensor(classes, dtype=torch.int64),
            labels=[images.classes[label] for label in classes],
            masks=torch.from_numpy(np.array(masks, bool).reshape(count, height, width)),
        )


def packed(images):
    found = disturbed(images)
    return joined([Found(rows_of(index, each), encoded_masks(each)) for index, each in enumerate(found)])


@pytest.mark.parametrize("masks", [False, True])
def test_figures_are_those_of_pycocotools(images, masks):
    figures = compare(images, packed(images), masks=masks)
    expected = EXPECTED["segm" if masks else "bbox"]
    assert list(figures.overall.values()) == pytest.approx(expected["stats"], abs=1e-12)
    assert [ap for ap, _ in figures.by_class] == pytest.approx(expected["classes"], abs=1e-12)


def test_nothing_found_is_zero(images):
    figures = compare(images, Found(np.zeros((0, 7)), []))
    assert figures.overall["map"] == 0
    assert figures.overall["map_large"] == -1
    assert figures.by_class == [(0, 0)] * 3


def test_figures_of_processes_are_those_of_one(images):
    found = list(disturbed(images))
    raw = [
        {"boxes": each.boxes, "scores": each.scores, "labels": each.classes, "masks": each.masks[:, None].float()}
        for each in found
    ]
    one, parts = CocoFigures(images, masks=True), [CocoFigures(images, masks=True) for _ in range(2)]
    for index, each in enumerate(raw):
        one.update(index, each)
        parts[index % 2].update(index, each)
    # As torchmetrics joins the states of processes.
    together = CocoFigures(images, masks=True)
    together.update(
        0,
        {
            "boxes": torch.zeros(0, 4),
            "scores": torch.zeros(0),
            "labels": torch.zeros(0).long(),
            "masks": torch.zeros(0, 1, 120, 120),
        },
    )
    for name in ("rows", "masks", "lengths"):
        setattr(together, name, torch.cat([torch.cat(getattr(part, name)) for part in parts]))
    assert {name: float(each) for name, each in together.compute().items()} == {
        name: float(each) for name, each in one.compute().items()
    }
    assert float(one.compute()["val_map"]) == pytest.approx(EXPECTED["bbox"]["stats"][0])
