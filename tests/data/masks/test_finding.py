"""Folders of images and masks as people have them, and pairs that are not there."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from acmix import InputError
from acmix.data.kinds import kind_of
from acmix.data.masks.finding import find_masks, find_pairs

PICTURE = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) % 3)


def make(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        PICTURE.save(root / path)


LAYOUTS = {
    "ade20k": [
        "images/training/a.jpg", "annotations/training/a.png",
        "images/validation/b.jpg", "annotations/validation/b.png",
    ],
    "cityscapes": [
        "leftImg8bit/train/x/x_1_leftImg8bit.png", "gtFine/train/x/x_1_gtFine_labelIds.png",
        "leftImg8bit/val/y/y_1_leftImg8bit.png", "gtFine/val/y/y_1_gtFine_labelIds.png",
        "gtFine/val/y/y_1_gtFine_color.png",
    ],
    "camvid": ["train/a.png", "train_labels/a_L.png", "val/b.png", "val_labels/b_L.png"],
    "segnet": ["train/a.png", "trainannot/a.png", "val/b.png", "valannot/b.png"],
    "by split": ["train/images/a.png", "train/masks/a.png", "valid/images/b.png", "valid/masks/b.png"],
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    make(tmp_path, *LAYOUTS[layout])
    assert kind_of(str(tmp_path)) == "segmentation"
    found = find_masks(tmp_path)
    assert sorted(found) == ["train", "validation"]
    for folders in found.values():
        assert len(find_pairs(folders).names) == 1


def test_two_parallel_folders(tmp_path):
    make(tmp_path, "Images/x/a.jpg", "Images/b.jpg", "Masks/x/a.png", "Masks/b_mask.png")
    ((split, folders),) = find_masks(tmp_path).items()
    pairs = find_pairs(folders)
    assert (split, list(pairs.names), list(pairs.masks.names)) == ("", ["b.jpg", "x/a.jpg"], ["b_mask.png", "x/a.png"])


def test_lists_of_voc_divide(tmp_path):
    make(tmp_path, *(f"JPEGImages/{name}.jpg" for name in "abcd"), *(f"SegmentationClass/{name}.png" for name in "abd"))
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nc\nmissing\ngone\n")
    (lists / "val.txt").write_text("b\n")
    found = find_masks(tmp_path)
    pairs = find_pairs(found["train"])
    assert list(pairs.names) == ["a.jpg"]
    assert pairs.left_out.counts["image without a mask"] == 1
    assert f"2 names in {lists / 'train.txt'} without an image (gone, ...)" in str(pairs.left_out)
    (lists / "val.txt").write_text("../../b\n")
    with pytest.raises(InputError, match="leads out of the data"):
        find_pairs(found["validation"])
    (lists / "val.txt").unlink()
    (lists / "val.txt").symlink_to("fetched-later.txt")
    with pytest.raises(InputError, match="val.txt cannot be read"):
        find_pairs(find_masks(tmp_path)["validation"])


def test_cityscapes_trains_on_train_ids_where_there_are_any(tmp_path):
    make(tmp_path, *LAYOUTS["cityscapes"], "gtFine/train/x/x_1_gtFine_labelTrainIds.png")
    pairs = find_pairs(find_masks(tmp_path)["train"])
    assert list(pairs.masks.names) == ["x/x_1_gtFine_labelTrainIds.png"]


def test_what_has_no_counterpart_is_counted(tmp_path):
    make(tmp_path, "images/a.jpg", "images/b.jpg", "masks/a.png", "masks/c.png")
    left_out = find_pairs(find_masks(tmp_path)[""]).left_out
    assert left_out.counts == {"image without a mask": 1, "mask without an image": 1}
    assert left_out.names == {"image without a mask": ["b.jpg"], "mask without an image": ["c.png"]}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["images/a.jpg", "images/a.png", "masks/a.png"], "a.jpg and a.png, images of one name"),
        (["images/a.jpg", "masks/a_mask.png", "masks/a-label.png"], "masks of one name"),
        (["images/a.jpg", "masks/b.png"], "no image in .* has a mask of its name"),
    ],
)
def test_pairs_that_are_not_certain_are_refused(tmp_path, paths, message):
    make(tmp_path, *paths)
    with pytest.raises(InputError, match=message):
        find_pairs(find_masks(tmp_path)[""])


def test_two_folders_of_masks_are_refused(tmp_path):
    make(tmp_path, "images/a.jpg", "masks/a.png", "labels/a.png")
    with pytest.raises(InputError, match="two folders of masks"):
        find_masks(tmp_path)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_links_that_leave_the_data_are_refused_by_name(tmp_path, what):
    root, outside = tmp_path / "data", tmp_path / "outside"
    make(root, "images/a.jpg", "masks/a.png")
    make(outside, "b.png")
    if what == "file":
        os.symlink(outside / "b.png", root / "masks" / "b.png")
    else:
        os.symlink(outside, root / "masks" / "more")
    with pytest.raises(InputError, match=r"masks/.* leads out of"):
        find_pairs(find_masks(root)[""])


def test_a_link_to_the_data_is_the_data(tmp_path):
    make(tmp_path / "data", "images/a.jpg", "masks/a.png")
    os.symlink(tmp_path / "data", tmp_path / "link")
    assert len(find_pairs(find_masks(tmp_path / "link")[""]).names) == 1


def test_classes_called_images_and_masks_are_classes(tmp_path):
    """They have no names in common."""
    make(tmp_path, "images/a.jpg", "masks/b.jpg")
    assert kind_of(str(tmp_path)) == "classification"
    shutil.rmtree(tmp_path / "masks")
    assert find_masks(tmp_path) == {}
