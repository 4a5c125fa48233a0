"""Images with masks, opened: split by names, labelled alike, known again."""

import re

import numpy as np
import pytest
from PIL import Image

from acmix import InputError
from acmix.data.masks.coding import IGNORED
from acmix.data.masks.opening import find_masked_evaluation, open_masked
from tests.data.masks.pictures import pairs


def test_undivided_images_are_split_by_their_names_wherever_they_lie(tmp_path):
    one = open_masked(str(pairs(tmp_path / "one", 10)), seed=3)
    other = open_masked(str(pairs(tmp_path / "other", 10)), seed=3)
    assert (len(one.train), len(one.validation), one.was_split) == (8, 2, True)
    assert list(one.validation.pairs.names) == list(other.validation.pairs.names)
    assert one.fingerprint == other.fingerprint
    assert not {*one.train.pairs.names} & {*one.validation.pairs.names}
    with pytest.raises(InputError, match="val_fraction must lie between 0 and 1, got 1.0"):
        one.train.split(1.0, 0)
    with pytest.raises(InputError, match="too few images to split: 1; at least 2 are needed"):
        one.train.choose([0]).split(0.5, 0)


def test_what_is_no_folder_is_told_what_masks_need(tmp_path):
    (tmp_path / "file").touch()
    for name, rule in (("absent", "does not exist"), ("file", "is not a folder")):
        with pytest.raises(InputError, match=f"{name}' {rule}; expected images/ and masks/"):
            open_masked(str(tmp_path / name))


def test_an_index_is_one_image_and_its_mask(tmp_path):
    root = pairs(tmp_path, 5)
    images = open_masked(str(root)).train
    picture, labels = images[2]
    assert np.array_equal(labels, np.asarray(Image.open(root / "masks" / images.name(2))))
    assert picture.size == labels.shape[::-1]
    assert images.choose([2]).read(0)[1].tolist() == labels.tolist()


def test_a_file_names_classes_and_what_says_nothing(tmp_path):
    root = pairs(tmp_path, 5, values=(0, 1, 2, 255))
    with pytest.raises(InputError, match="ignore_value must be given"):
        open_masked(str(root))
    (root / "classes.txt").write_text("sky\nsea\nsand\n")
    images = open_masked(str(root), ignore_value="sea")
    assert images.train.classes == ("sky", "sand")
    assert images.taken["training"].endswith("2 classes (sky, sand), 1, 255 say nothing")
    masks = np.asarray(Image.open(root / "masks" / images.train.name(0)))
    assert np.array_equal(images.train.read(0)[1] == IGNORED, (masks == 1) | (masks == 255))
    assert np.array_equal(open_masked(str(root)).train.read(0)[1] == IGNORED, masks == 255)


def test_other_validation_images_are_labelled_alike(tmp_path):
    root, other = pairs(tmp_path / "one", 4), pairs(tmp_path / "other", 4, values=(1, 2))
    images = open_masked(str(root), validation=str(other))
    assert images.validation.classes == images.train.classes == ("0", "1", "2")
    assert images.validation_location == str(other)
    (other / "classes.json").write_text('{"1": 2, "2": 1}')
    swapped = open_masked(str(root), validation=str(other)).validation
    assert np.array_equal(swapped.read(0)[1], 3 - images.validation.read(0)[1])
    (other / "classes.json").write_text('{"moon": 1, "2": 2}')
    with pytest.raises(InputError, match="classes that the training images have not: moon"):
        open_masked(str(root), validation=str(other))


def test_evaluation_takes_what_values_stood_for_in_training(tmp_path):
    root, other = pairs(tmp_path / "one", 4), pairs(tmp_path / "other", 4, values=(0, 2))
    known = open_masked(str(root)).train.coding
    found = find_masked_evaluation(str(other), known.classes, None, known=known)
    assert found.images.classes == ("0", "1", "2")
    assert {*np.unique(found.images.read(0)[1])} == {0, 2}
    assert "does not say what it was trained on" in found.notes[0]


def test_masks_that_differ_in_size_are_refused(tmp_path):
    root = pairs(tmp_path, 4)
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(root / "masks" / "01.png")
    with pytest.raises(InputError, match=r"1 of 4 images cannot be read: .*01.png: has 8 x 6 pixels, its mask 2 x 2"):
        open_masked(str(root))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "F"])
def test_masks_none_of_which_has_numbers_say_why(tmp_path, mode):
    root = pairs(tmp_path, 4)
    for mask in (root / "masks").iterdir():
        suffix = ".tiff" if mode == "F" else ".png"
        Image.open(mask).convert(mode).save(mask.with_suffix(suffix))
        if suffix != mask.suffix:
            mask.unlink()
    with pytest.raises(InputError) as raised:
        open_masked(str(root))
    assert "at least two classes" not in str(raised.value)
    assert re.search(r"00\.(png|tiff): .*mask", str(raised.value))
