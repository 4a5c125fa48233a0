"""Augmented examples: boxes stay with what they are of, whatever shape an image has."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from acmix.data.annotated import Annotations, Polygons
from acmix.tasks.detection.augmentation import Augmentation
from tests.tasks.detection.conftest import SETTINGS


def annotations(left, top, right, bottom):
    corners = torch.tensor([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=torch.float64)
    return Annotations(
        boxes=torch.tensor([[left, top, right, bottom]], dtype=torch.float32),
        labels=torch.tensor([1]),
        areas=torch.tensor([1.0]),
        crowd=torch.tensor([False]),
        segments=(Polygons((corners.numpy(),)),),
    )


@pytest.mark.parametrize("size", [(5000, 30), (30, 5000), (1, 190), (1, 1)])
def test_of_a_line_something_is_left(size):
    augmentation = Augmentation(replace(SETTINGS, smallest_scale=0.1, largest_scale=2.0), masks=True)
    for seed in range(5):
        torch.manual_seed(seed)
        image, target = augmentation((Image.new("RGB", size), annotations(0, 0, *size)))
        assert image.shape == (3, SETTINGS.image_size, SETTINGS.image_size)
        assert target["masks"].shape[1:] == image.shape[1:]
        assert len(target["boxes"]) == len(target["labels"]) == len(target["masks"])


def test_scaling_moves_no_mask_on_its_image():
    """An edge at many places and scales: in the mean it lies in the mask where it lies in the box."""
    settings = replace(SETTINGS, image_size=64, smallest_scale=0.5, largest_scale=1.0, flip=0.0)
    augmentation = Augmentation(settings, masks=True)
    apart = []
    for seed in range(60):
        torch.manual_seed(seed)
        _, target = augmentation((Image.new("RGB", (100, 100)), annotations(30 + seed % 40, 0, 100, 100)))
        left, _, right, bottom = target["boxes"][0].tolist()
        apart.append(right - left - float(target["masks"][0, int(bottom) - 2].sum()))
    assert sum(apart) / len(apart) == pytest.approx(0, abs=0.1)


def test_images_without_objects_stay_examples():
    nothing = annotations(0, 0, 9, 9)
    nothing.crowd[:] = True
    _, target = Augmentation(SETTINGS, masks=True)((Image.new("RGB", (64, 48)), nothing))
    side = SETTINGS.image_size
    assert {name: tuple(each.shape) for name, each in target.items()} == {
        "boxes": (0, 4),
        "labels": (0,),
        "masks": (0, side, side),
    }


@pytest.mark.parametrize("seed", range(8))
def test_boxes_go_where_their_objects_go(seed):
    """A white square on black: what is white is what the box and the mask are of."""
    picture = Image.new("RGB", (64, 48))
    picture.paste((255, 255, 255), (20, 10, 44, 30))
    torch.manual_seed(seed)
    image, target = Augmentation(SETTINGS, masks=True)((picture, annotations(20, 10, 44, 30)))
    white = (image > 200).all(0)
    (left, top, right, bottom) = target["boxes"][0].tolist()
    rows, columns = white.any(1).nonzero(), white.any(0).nonzero()
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert [left, top, right, bottom] == pytest.approx([float(each) for each in found], abs=1.5)
    assert (target["masks"][0].bool() == white).float().mean() > 0.95
