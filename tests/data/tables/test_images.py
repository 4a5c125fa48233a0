import os
import pickle

import pytest
import torch
from PIL import Image

from acmix import InputError
from acmix.data.tables import open_tables, unnamed_images
from tests.tables import write_table

SEVERAL = "image,labels\na.jpg,cat;dog\nb.jpg,dog\nc.jpg,\n"
ONE = "image,label\na.jpg,cat\nb.jpg,dog\nc.jpg,dog\n"
FILES = ("a.jpg", "b.jpg", "c.jpg")


def opened(file, **options):
    return open_tables({"train": file}, train="train", **options)["train"]


def test_labels_become_targets(tmp_path):
    images = opened(write_table(tmp_path / "labels.csv", SEVERAL, FILES))
    assert images.multi_label
    assert list(images.labels) == [(0, 1), (1,), ()]
    targets = [images.with_transform(lambda image: image)[index][1] for index in range(3)]
    assert torch.equal(torch.stack(targets), torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]))
    turned = images.with_classes(("dog", "ant", "cat"))
    assert list(turned.labels) == [(0, 2), (0,), ()]
    assert list(pickle.loads(pickle.dumps(turned.subset([2, 0]))).labels) == [(), (0, 2)]  # noqa: S301
    assert list(turned.choose([2, 0])[1][1]) == [1, 0, 1]


def test_one_label_an_image_is_single_label(tmp_path):
    images = opened(write_table(tmp_path / "labels.csv", ONE, FILES))
    assert not images.multi_label
    assert list(images.labels) == [0, 1, 1]


def test_a_table_may_be_read_as_a_checkpoint_has_labels(tmp_path):
    images = opened(write_table(tmp_path / "labels.csv", ONE, FILES), multi_label=True)
    assert list(images.labels) == [(0,), (1,), (1,)]


@pytest.mark.parametrize("place", ["", "images", "train", "train/images", "images/train"])
def test_images_lie_beside_the_table_or_in_a_folder(tmp_path, place):
    file = write_table(tmp_path / "train.csv", SEVERAL, FILES, folder=tmp_path / place)
    images = opened(file)
    assert list(images.names) == list(FILES)
    assert images.place(0) == str(tmp_path / place / "a.jpg")
    assert images[0][0].size == (12, 12)


@pytest.mark.parametrize("suffix", [".jpg", ".PNG", ".webp"])
def test_names_may_lack_the_suffix_of_the_files(tmp_path, suffix):
    files = [f"{name}{suffix}" for name in "abc"]
    file = write_table(tmp_path / "train.csv", SEVERAL.replace(".jpg", ""), files, folder=tmp_path / "train")
    assert list(opened(file).names) == files


def test_names_may_have_the_slashes_of_windows(tmp_path):
    text = SEVERAL.replace("a.jpg", "x\\a.jpg")
    assert opened(write_table(tmp_path / "labels.csv", text, ("x/a.jpg", "b.jpg", "c.jpg"))).name(0) == "x/a.jpg"


def test_missing_images_are_named(tmp_path):
    file = write_table(tmp_path / "labels.csv", SEVERAL, FILES[:1])
    with pytest.raises(InputError, match=r"labels.csv: 2 images of 3 not in .*: b.jpg, c.jpg; add them"):
        opened(file)
    with pytest.raises(InputError, match=r"labels.csv: its images are nowhere in .*, such as a.jpg"):
        opened(write_table(tmp_path / "other" / "labels.csv", SEVERAL))


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    file = write_table(tmp_path / "data" / "labels.csv", SEVERAL, FILES[:2])
    Image.new("RGB", (9, 9)).save(tmp_path / "c.jpg")
    os.symlink(tmp_path / "c.jpg", tmp_path / "data" / "c.jpg")
    with pytest.raises(InputError, match=r"c.jpg leads out of .* by a link"):
        opened(file)


def test_images_in_two_folders_are_refused(tmp_path):
    file = write_table(tmp_path / "labels.csv", SEVERAL, FILES, folder=tmp_path / "old")
    write_table(file, SEVERAL, FILES, folder=tmp_path / "new")
    with pytest.raises(InputError, match="its images may be in .*new or in .*old"):
        opened(file)


def test_images_without_a_label_need_a_table_of_several(tmp_path):
    file = write_table(tmp_path / "labels.csv", ONE.replace("c.jpg,dog", "c.jpg,"), FILES)
    with pytest.raises(InputError, match=r"1 image without a label \(c.jpg\), and none with several"):
        opened(file)
    assert list(opened(file, multi_label=True).labels) == [(0,), (1,), ()]


def test_classes_need_images_to_learn_from(tmp_path):
    file = write_table(tmp_path / "labels.csv", "image,a,b\nx.jpg,1,0\ny.jpg,0,0\n", ("x.jpg", "y.jpg"))
    with pytest.raises(InputError, match="labels.csv has classes without images: b"):
        opened(file)
    assert open_tables({"test": file})["test"].classes == ("a", "b")
    with pytest.raises(InputError, match="names 1 class; at least two are needed"):
        opened(write_table(file, "image,label\nx.jpg,cat\ny.jpg,cat\n"))


def test_the_table_that_is_trained_on_tells_how_all_are_read(tmp_path):
    train = write_table(tmp_path / "train.csv", "image,labels\na.jpg,big cat\nb.jpg,cat\nc.jpg,big\n", FILES)
    other = write_table(tmp_path / "val.csv", "image,labels\na.jpg,big cat\n")
    found = open_tables({"val": other, "train": train}, train="train")
    assert found["val"].classes == ("big", "cat")
    assert found["val"].multi_label


def test_the_fingerprint_is_that_of_labels_too(tmp_path):
    before = opened(write_table(tmp_path / "a" / "labels.csv", SEVERAL, FILES))
    moved = opened(write_table(tmp_path / "b" / "labels.csv", SEVERAL, FILES))
    changed = opened(write_table(tmp_path / "c" / "labels.csv", SEVERAL.replace("b.jpg,dog", "b.jpg,cat"), FILES))
    assert before.fingerprint() == moved.fingerprint() == moved.with_classes(("dog", "cat")).fingerprint()
    assert before.fingerprint() != changed.fingerprint()


def test_images_that_no_row_names_are_counted_over_all_tables(tmp_path):
    write_table(tmp_path / "train.csv", ONE, [*FILES, "x.jpg", "y.jpg", ".hidden.jpg"], folder=tmp_path / "images")
    write_table(tmp_path / "val.csv", "image,label\ny.jpg,cat\n")
    (tmp_path / "images/notes.txt").write_text("no image")
    tables = open_tables({part: tmp_path / f"{part}.csv" for part in ("train", "val")}, train="train")
    left_out = unnamed_images(list(tables.values()))
    assert str(left_out) == "1 image that no row names (x.jpg)"
    assert not unnamed_images([]).counts
