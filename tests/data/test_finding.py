"""What DATA names: its parts by split, under whatever names they have there."""

from pathlib import Path

import pytest
from PIL import Image

from acmix import InputError
from acmix.data import Digits
from acmix.data.finding import find
from acmix.data.shards.urls import Listing
from tests.shards import write_shard


def images(*files):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(file)


def split(root, name, *classes):
    images(*(root / name / folder / f"{index}.png" for folder in classes or ("ant", "bee") for index in range(3)))


def named(found):
    parts = {key: getattr(found, key) for key in ("whole", "train", "validation", "test", "unlabelled")}
    return {key: part.name for key, part in parts.items() if part is not None}


def test_undivided_data_is_one_part(tmp_path):
    found = find("digits")
    assert (named(found), found.location, found.whole.words) == ({"whole": ""}, "digits", "digits")
    assert isinstance(found.whole.content, Digits)
    images(*(tmp_path / folder / "0.png" for folder in ("ant", "bee")))
    found = find(str(tmp_path))
    assert (named(found), found.whole.words, found.whole.content) == ({"whole": ""}, str(tmp_path), tmp_path)
    shard = str(write_shard(tmp_path / "s.tar", [0, 1]))
    assert find(shard).whole.content.urls == (shard,)


def test_parts_are_known_by_split(tmp_path):
    for name in ("Training", "dev", "test_set"):
        split(tmp_path, name)
    split(tmp_path, "unrelated")
    found = find(str(tmp_path))
    assert named(found) == {"train": "Training", "validation": "dev", "test": "test_set"}
    assert found.names == ["Training", "dev", "test_set"]
    assert (found.train.words, found.train.content) == (f"{tmp_path}/Training", tmp_path / "Training")
    assert found.held_out() is found.validation
    assert found.left_out.counts == {"folder beside the splits": 1}


def test_test_images_without_classes_are_no_part_to_open(tmp_path):
    split(tmp_path, "train")
    images(tmp_path / "test" / "0.png")
    found = find(str(tmp_path))
    assert named(found) == {"train": "train", "unlabelled": "test"}
    assert found.usable == [found.train]
    assert found.names == ["train", "test"]


def test_shards_of_several_splits(tmp_path):
    for name in ("train", "test"):
        write_shard(tmp_path / f"{name}-0.tar", [0, 1])
    found = find(str(tmp_path))
    assert (named(found), found.train.words) == ({"train": "train", "test": "test"}, f"train of {tmp_path}")
    with pytest.raises(InputError, match="has the parts train, test, none of them called val or validation"):
        found.held_out()
    write_shard(tmp_path / "both" / "val" / "validation-0.tar", [0, 1])
    split(tmp_path / "both", "train")
    found = find(str(tmp_path / "both"))
    assert isinstance(found.train.content, Path)
    assert isinstance(found.validation.content, Listing)


def test_the_only_part_is_held_out(tmp_path):
    write_shard(tmp_path / "train-0.tar", [0, 1])
    found = find(str(tmp_path))
    assert found.held_out() is found.train


@pytest.mark.parametrize(("data", "rule"), [("absent", "does not exist"), ("file", "is not a folder")])
def test_what_is_not_there(tmp_path, data, rule):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"{data}' {rule}; give a folder of class folders"):
        find(str(tmp_path / data))
