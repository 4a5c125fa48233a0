import os
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acmix import InputError
from acmix.data.folders import LeftOut, class_files, find_images, find_splits, look, part_of


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("train", "train Train TRAINING training_set trainset train-images images_train Train_Data train2017 trn"),
        ("validation", "val Val valid VALIDATION validation_set dev dev-set eval imagesval val2017 validation_split"),
        ("test", "test Testing test_set TestSet test-images holdout held_out images.test"),
        (None, "plane trainer freight_train validity tester eval1 devil valley contest data images set latest ttest"),
    ],
)
def test_names_of_splits(part, names):
    assert {name: part_of(name) for name in names.split()} == dict.fromkeys(names.split(), part)


@given(
    st.sampled_from(["train", "val", "test"]), st.lists(st.sampled_from(["set", "images", "_", "-", " "]), max_size=4)
)
def test_case_and_decorations_do_not_count(word, around):
    name = "".join([*around[:2], word, *around[2:]])
    assert part_of(name) == part_of(name.upper()) == part_of(word)


@given(st.text(string.ascii_letters + "_- .\udce9é", min_size=1, max_size=12))
def test_any_name_has_an_answer(name):
    assert part_of(name) in (None, "train", "validation", "test")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ("train/a/1.png val/a/1.png", {"train": "train", "validation": "val"}),
        ("Train/a/1.png Test/a/1.png extra/a/1.png", {"train": "Train", "test": "Test"}),
        ("train/a/1.png test/1.png", {"train": "train", "test": "test"}),
        ("train/a/deep/1.png", {"train": "train"}),
        ("train/1.png plane/1.png", {}),
        ("train/steam/1.png plane/jet/1.png", {}),
        ("train/a/1.png val/notes.txt", {"train": "train", "validation": "val"}),
        ("seg_train/a/1.png seg_test/a/1.png seg_pred/1.png", {"train": "seg_train", "test": "seg_test"}),
        ("freight_train/a/1.png test_tube/b/1.png", {}),
        ("ant/1.png bee/1.png .train/a/1.png", {}),
        ("train/a/1.png test/1.png unlabeled/1.png", {"train": "train", "test": "test"}),
    ],
)
def test_splits_are_told_from_classes(tmp_path, files, found):
    touch(tmp_path, *files.split())
    assert find_splits(tmp_path, look(tmp_path)) == found


def test_a_split_and_something_like_it_side_by_side(tmp_path):
    touch(tmp_path, "train/a/1.png", "other/a/1.png")
    assert find_splits(tmp_path, look(tmp_path)) == {"train": "train"}


def files_of(root):
    found, left_out = class_files(root)
    return {folder: list(files) for folder, files in found.items()}, left_out


def test_files_of_every_class_in_order(tmp_path):
    touch(tmp_path, "b/2.png", "b/1.JPG", "b/in/0.png", "a/x.gif", "c/none.txt")
    found, left_out = files_of(tmp_path)
    assert found == {"a": ["a/x.gif"], "b": ["b/1.JPG", "b/2.png", "b/in/0.png"], "c": []}
    assert left_out.counts == {"file ending in .txt": 1}


@pytest.mark.parametrize(
    "name", [".ipynb_checkpoints/0.png", "._0.png", "__MACOSX/0.png", "@eaDir/0.png", "Thumbs.db", "$RECYCLE.BIN/0.png"]
)
def test_hidden_files_and_folders_are_no_data_at_any_depth(tmp_path, name):
    touch(tmp_path, f"{name}", f"a/{name}", f"a/in/{name}", "a/in/1.png")
    found, left_out = files_of(tmp_path)
    assert found == {"a": ["a/in/1.png"]}
    assert left_out.counts == {"hidden": 3}


@pytest.mark.parametrize(
    ("link", "target"),
    [("a/loop", "../a"), ("a/loop", ".."), ("a/in/loop", "../.."), ("a/loop", "../.."), ("loop", "."), ("a/loop", "/")],
)
def test_links_that_lead_back_are_left_out_and_named_once(tmp_path, link, target):
    touch(tmp_path, "data/a/1.png", "data/a/in/2.png", "elsewhere/3.png")
    root = tmp_path / "data"
    (root / link).symlink_to(target)
    found, left_out = files_of(root)
    assert found == {"a": ["a/1.png", "a/in/2.png"]}
    assert str(left_out) == f"1 link to a folder above it ({link})"


def test_links_that_lead_to_each_other(tmp_path):
    touch(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "b").symlink_to("../b")
    (tmp_path / "b" / "a").symlink_to("../a")
    found, left_out = files_of(tmp_path)
    assert found == {"a": ["a/1.png", "a/b/2.png"], "b": ["b/2.png", "b/a/1.png"]}
    assert left_out.names == {"link to a folder above it": ["a/b/a", "b/a/b"]}


def test_links_to_other_folders_are_followed_once_in_a_class(tmp_path):
    touch(tmp_path, "store/cats/1.png", "store/cats/in/2.png", "data/dog/3.png")
    root = tmp_path / "data"
    (root / "cat").symlink_to("../store/cats")
    (root / "dog" / "a").symlink_to("../../store/cats/in")
    (root / "dog" / "b").symlink_to("../../store/cats/in")
    (root / "dog" / "4.png").symlink_to("../../store/cats/1.png")
    found, left_out = files_of(root)
    assert found == {"cat": ["cat/1.png", "cat/in/2.png"], "dog": ["dog/3.png", "dog/4.png", "dog/a/2.png"]}
    assert str(left_out) == "1 folder met before in the same class (dog/b)"


def test_doubling_links_end(tmp_path):
    for level in range(30):
        touch(tmp_path, f"store/{level}/{level}.png")
        for name in "xy":
            (tmp_path / "store" / str(level) / name).symlink_to(f"../{level + 1}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").symlink_to("../store/0")
    found, left_out = files_of(tmp_path / "data")
    assert len(found["a"]) == 30
    assert left_out.counts == {"folder met before in the same class": 29, "link to nothing": 2}


def test_what_cannot_be_read_is_left_out(tmp_path):
    touch(tmp_path, "a/1.png", "a/names", os.fsdecode(b"a/caf\xe9.csv"))
    (tmp_path / "a" / "gone.png").symlink_to("nowhere")
    (tmp_path / "a" / "self.png").symlink_to("self.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    found, left_out = files_of(tmp_path)
    assert found == {"a": ["a/1.png"]}
    assert left_out.names == {
        "link to nothing": ["a/gone.png", "a/self.png"],
        "file of a special kind": ["a/pipe.png"],
        "file without a suffix": ["a/names"],
        "file ending in .csv": [r"a/caf\xe9.csv"],
    }


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match="absent cannot be read: No such file"):
        class_files(tmp_path / "absent")


def test_what_is_left_out_is_said_in_a_line():
    left_out, more = LeftOut(), LeftOut()
    for index in range(7):
        more.add("hidden", f".{index}")
    more.add("link to nothing", "a")
    left_out.join(more, "train")
    left_out.join(more, "val")
    assert str(left_out) == "14 hidden (train/.0, ...), 2 links to nothing (train/a, val/a)"
    assert left_out.names["hidden"] == [f"train/.{index}" for index in range(5)]


def test_images_of_folders(tmp_path):
    for name in ("b/2.png", "b/1.JPG", "a.png", "b/.hidden/3.png", "b/c/4.png", "notes.txt", ".5.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "gone.png").symlink_to("nowhere")
    (tmp_path / "b" / "c" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "b")
    (tmp_path / "empty").mkdir()

    def found(*paths, **options):
        faults = []
        files = find_images([tmp_path / path for path in paths], faults, **options)
        return [str(file.relative_to(tmp_path)) for file in files], [fault.split(": ", 1)[1] for fault in faults]

    dangling = "the link leads to nothing"
    assert found("", "absent.png") == (["a.png", "absent.png"], [])
    assert found("b") == (["b/1.JPG", "b/2.png"], [dangling])
    assert found("", recursive=True) == (["a.png", "b/1.JPG", "b/2.png", "b/c/4.png"], [dangling])
    assert found("again", recursive=True) == (["again/1.JPG", "again/2.png", "again/c/4.png"], [dangling])
    missing = "the folder holds no image files"
    assert found("empty", recursive=True) == ([], [missing])
    assert found("empty", advice=" (try this)") == ([], [f"{missing} directly in it (try this)"])


def test_reasons_are_counted_as_people_count():
    left_out = LeftOut()
    for name, count in (("box without area", 1), ("image not there", 1_000), ("hidden", 2)):
        left_out.add(name, "a", count)
    assert str(left_out) == "1,000 images not there (a, ...), 2 hidden (a, ...), 1 box without area (a)"
