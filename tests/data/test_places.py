import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acmix import InputError
from acmix.data.places import Ground, as_path, words_of


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "..",
        "../a",
        "a/../../b",
        "a/..",
        "C:\\a",
        "c:a",
        "\\a",
        "..\\a",
        "a\\..\\b",
        "\\\\host\\a",
        "a\0",
    ],
)
def test_paths_that_lead_out_are_refused(name):
    with pytest.raises(InputError, match="leads out of the data folder"):
        as_path(name)


@pytest.mark.parametrize(
    ("name", "path"), [("a.png", "a.png"), ("a\\b.png", "a/b.png"), ("./a", "a"), ("a//b/.", "a/b"), ("a..b", "a..b")]
)
def test_paths_within_stay(name, path):
    assert as_path(name) == path


@given(st.text())
def test_no_path_leads_out(name):
    try:
        path = as_path(name)
    except InputError:
        return
    root = "/a/b"
    assert os.path.normpath(os.path.join(root, path)).startswith(root)


def test_what_lies_in_a_folder_is_told_from_what_does_not(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    for folder in (outside, root / "inner"):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (root / "inside").symlink_to("inner/file")
    (root / "dangling").symlink_to("nowhere")
    (root / "out").symlink_to(outside / "file")
    (root / "folder").symlink_to(outside)
    (root / "rooted").symlink_to("../root-beside")
    (tmp_path / "root-beside").touch()
    ground = Ground(root)
    assert ground.holds(root / "inner/file")
    assert ground.holds(root / "inside")
    assert not ground.holds(root / "inner")
    assert not ground.holds(root / "dangling")
    assert not ground.holds(root / "gone")
    assert not ground.holds(root / ("n" * 5000))
    for name in ("out", "folder/file", "rooted"):
        with pytest.raises(InputError, match="by a link"):
            ground.holds(root / name)
    # A folder that is a link itself is the data.
    (tmp_path / "link").symlink_to(root)
    assert Ground(tmp_path / "link").holds(tmp_path / "link/inner/file")


def test_files_of_annotations_name_their_images(tmp_path):
    assert words_of(tmp_path / "annotations" / "instances_train2017.json") == "train2017"
    assert words_of(tmp_path / "valid" / "_annotations.coco.json") == "valid"
    assert words_of(tmp_path / "val.json") == "val"


def test_images_that_may_be_in_two_folders_are_refused(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").touch()
    with pytest.raises(InputError, match=r"its images may be in .*one or in .*two"):
        Ground(tmp_path).folder_of(tmp_path / "all.json", ["a.png"])
    (tmp_path / "two" / "b.png").touch()
    assert Ground(tmp_path).folder_of(tmp_path / "all.json", ["a.png", "b.png"]) == tmp_path / "two"
