"""What training makes of images and masks: together, at random, and the same for one seed."""

import numpy as np
import pytest
import torch
from PIL import Image

from acmix.data.masks.augmentation import Augmentation, Seen
from acmix.data.masks.coding import IGNORED

PREPROCESSING = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "short_side": None}


def example(height=40, width=60):
    """A picture that shows its labels."""
    labels = np.zeros((height, width), np.int16)
    labels[5:20, 10:30], labels[25:35, 35:55] = 1, 2
    pixels = np.stack([100 * labels] * 3, 2).astype(np.uint8)
    return Image.fromarray(pixels), labels


def augmentation(**options):
    given = {"side": 24, "scales": (0.5, 2.0), "turn": 0.0, "most_of_a_class": 1.0, "flip": 0.5, "color_jitter": 0.0}
    return Augmentation(PREPROCESSING | {"short_side": options.pop("short_side", None)}, **given | options)


@pytest.mark.parametrize("seed", range(4))
def test_masks_turn_with_their_images(seed):
    torch.manual_seed(seed)
    image, labels = augmentation(side=60, scales=(1.0, 1.0), turn=180.0)(example(60, 60))
    known = labels != IGNORED
    assert 0.6 < known.float().mean() < 1
    # Edges of a turned image are between two labels.
    assert ((image[0] * 255 / 100).round().short() == labels)[known].float().mean() > 0.9


@pytest.mark.parametrize("seed", range(8))
def test_masks_go_where_their_images_go(seed):
    torch.manual_seed(seed)
    image, labels = augmentation(scales=(1.0, 1.0))(example())
    assert (image.shape, labels.shape, labels.dtype) == ((3, 24, 24), (24, 24), torch.int16)
    assert torch.equal((image[0] * 255 / 100).round().short(), labels)


def test_scaling_moves_no_mask_on_its_image():
    """An edge at many places and scales: in the mean it lies in the mask where it lies in the image."""
    scaled = augmentation(side=200, flip=0.0)
    apart = []
    for seed in range(100):
        torch.manual_seed(seed)
        edge = 30 + seed % 40
        labels = np.zeros((8, 100), np.int16)
        labels[:, edge:] = 1
        image, found = scaled((Image.fromarray(np.stack([255 * labels] * 3, 2).astype(np.uint8)), labels))
        row = (found == 1).any(1).nonzero()[0]
        apart.append(float(image[0, row].sum() - (found[row] == 1).sum()))
    assert np.mean(apart) == pytest.approx(0, abs=0.1)


def test_one_seed_is_one_crop_and_others_are_others():
    def made(seed):
        torch.manual_seed(seed)
        return augmentation(color_jitter=0.4)(example())[0]

    assert torch.equal(made(1), made(1))
    assert not torch.equal(made(1), made(2))


def test_what_lies_beside_an_image_says_nothing():
    image, labels = augmentation(side=100, scales=(1.0, 1.0), flip=0.0)(example())
    assert int((labels == IGNORED).sum()) == 100 * 100 - 40 * 60
    assert image[:, labels == IGNORED].abs().max() == 0


def test_crops_of_several_classes_are_sought():
    def largest(most):
        torch.manual_seed(0)
        made = augmentation(side=16, scales=(1.0, 1.0), most_of_a_class=most)
        return np.mean([made(example())[1].flatten().long().bincount().max().item() for _ in range(30)])

    assert largest(0.6) < largest(1.0)


@pytest.mark.parametrize(("size", "expected"), [((60, 40), (30, 20)), ((400, 10), (80, 2)), ((10, 20), (20, 40))])
def test_the_short_side_is_as_wanted_and_the_long_one_bounds_it(size, expected):
    seen = Seen(PREPROCESSING | {"short_side": 20})(Image.new("RGB", size))
    assert seen.shape[-2:][::-1] == expected
