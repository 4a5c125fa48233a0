import shutil

import numpy as np
import pytest
from PIL import Image

from acmix.data import Digits
from acmix.data.checking import Copy, Spread, Unreadable, check_data
from acmix.data.datasets import open_parts
from acmix.data.shards import list_pattern, open_shards
from tests.shards import png, write_shard, write_tar


def noise(path, seed, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path):
    """Different images in train/ and val/ of two classes."""
    for seed, name in enumerate(("train/ant/0", "train/ant/1", "train/bee/0", "val/ant/0", "val/bee/0")):
        noise(tmp_path / f"{name}.png", seed)
    return tmp_path


def checked(root):
    parts = open_parts(str(root))
    return check_data({"train": parts.train, "validation": parts.validation})


def test_sound_images(folders):
    noise(folders / "train" / "bee" / "wide.jpg", 9, (30, 7))
    report = checked(folders)
    train = report.parts["train"]
    assert report.sound
    assert (train.images, train.classes, train.empty, train.unreadable) == (4, {"ant": 2, "bee": 2}, [], [])
    assert train.width == Spread(smallest=8, median=8, largest=30)
    assert train.height == Spread(smallest=6, median=6, largest=7)
    assert (train.formats, train.modes) == ({"PNG": 3, "JPEG": 1}, {"RGB": 4})
    assert report.duplicates == []


def test_unreadable_images_are_all_named(folders):
    for name in ("0.png", "1.png"):
        (folders / "train" / "ant" / name).write_bytes(b"no image")
    report = checked(folders)
    assert not report.sound
    assert report.duplicates == []
    reason = "not a readable image (of no format that Pillow knows)"
    assert report.parts["train"].unreadable == [
        Unreadable(name=f"ant/{number}.png", reason=reason) for number in range(2)
    ]
    assert report.parts["train"].classes == {"ant": 2, "bee": 1}


def test_an_image_in_training_and_validation_leaks(folders):
    shutil.copy(folders / "val" / "bee" / "0.png", folders / "train" / "bee" / "copy.png")
    report = checked(folders)
    leak = [
        Copy(part="train", name="bee/copy.png", label="bee"),
        Copy(part="validation", name="bee/0.png", label="bee"),
    ]
    assert (report.leaked, report.conflicting, report.harmless, report.sound) == ([leak], [], [], False)


def test_an_image_in_two_classes_contradicts_itself(folders):
    shutil.copy(folders / "train" / "bee" / "0.png", folders / "train" / "ant" / "copy.png")
    report = checked(folders)
    assert [[copy.name for copy in group] for group in report.conflicting] == [["ant/copy.png", "bee/0.png"]]
    assert (report.leaked, report.harmless, report.sound) == ([], [], False)


def test_copies_in_one_class_are_said_and_sound(folders):
    for name in ("a", "b"):
        shutil.copy(folders / "train" / "ant" / "0.png", folders / "train" / "ant" / f"{name}.png")
    report = checked(folders)
    assert [[copy.name for copy in group] for group in report.harmless] == [["ant/0.png", "ant/a.png", "ant/b.png"]]
    assert report.sound


def test_shards_and_classes_without_images(tmp_path):
    write_shard(tmp_path / "a.tar", [0, 2])
    write_tar(tmp_path / "b.tar", [("x.png", b"no image"), ("x.cls", b"2"), ("y.png", png(1)), ("y.cls", b"0")])
    images = open_shards({"train": list_pattern(f"{tmp_path}/{{a,b}}.tar")})["train"]
    (tmp_path / "b.tar").write_bytes((tmp_path / "b.tar").read_bytes()[:1024])
    (part,) = check_data({"images": images}).parts.values()
    assert part.empty == ["1"]
    assert [fault.name for fault in part.unreadable] == ["image 2", "image 3"]
    assert f"shard {tmp_path}/b.tar is truncated or damaged" in part.unreadable[0].reason


def test_images_in_memory():
    report = check_data({"images": Digits().subset(range(300))})
    assert report.sound
    assert report.parts["images"].images == 300
