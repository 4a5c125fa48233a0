import pytest

from acmix import InputError
from acmix.data.checking import check_data
from acmix.data.datasets import open_dataset, open_parts
from acmix.data.evaluation import DataRecord, find_evaluation
from acmix.data.finding import find
from acmix.data.kinds import kind_of
from acmix.data.trained import TrainedImages, examine
from acmix.data.writing import write_shards
from tests.tables import multi_label, write_table

ROWS = [f"{index}.jpg,{label}\n" for index, label in enumerate(["cat;dog", "dog", "", "cat", "dog", "cat;dog"])]
FILES = [f"{index}.jpg" for index in range(6)]
ALL = "image,labels\n" + "".join(ROWS)


@pytest.mark.parametrize("name", ["labels.csv", "annotations.csv", "_classes.csv", "Labels.CSV"])
def test_a_folder_with_a_table_is_split(tmp_path, name):
    file = write_table(tmp_path / name, ALL, FILES, folder=tmp_path / "images")
    for data in (tmp_path, file):
        opened = open_dataset(str(data), val_fraction=0.34)
        assert opened.location == str(data)
        assert opened.was_split
        assert opened.train.multi_label
        assert opened.validation.multi_label
        assert len(opened.train) + len(opened.validation) == 6
        assert "6 images" not in opened.taken["training"]
        assert "2 classes (cat, dog), any number an image, labels separated by ;" in opened.taken["training"]


@pytest.mark.parametrize("names", [("train.csv", "val.csv"), ("Training.csv", "valid_labels.csv")])
def test_tables_of_splits(tmp_path, names):
    write_table(tmp_path / names[0], "image,labels\n" + "".join(ROWS[:4]), FILES)
    write_table(tmp_path / names[1], "image,labels\n" + "".join(ROWS[4:]))
    opened = open_dataset(str(tmp_path))
    assert not opened.was_split
    assert list(opened.validation.labels) == [(1,), (0, 1)]


# Else validation images would be split off those that are learned from, unsaid.
def test_a_table_that_a_link_leads_nowhere_for_is_not_left_out(tmp_path):
    write_table(tmp_path / "train.csv", ALL, FILES)
    (tmp_path / "val.csv").symlink_to("fetched-later.csv")
    with pytest.raises(InputError, match="val.csv cannot be read: No such file"):
        open_dataset(str(tmp_path))


def test_tables_in_the_folders_of_splits(tmp_path):
    for part, rows in (("train", ROWS[:4]), ("valid", ROWS[4:])):
        write_table(tmp_path / part / "_classes.csv", "image,labels\n" + "".join(rows), FILES)
    opened = open_dataset(str(tmp_path))
    assert (len(opened.train), len(opened.validation), opened.was_split) == (4, 2, False)


def test_test_images_without_labels_are_left_aside(tmp_path):
    write_table(tmp_path / "train.csv", ALL, FILES)
    write_table(tmp_path / "test.csv", "image\n0.jpg\n")
    opened = open_dataset(str(tmp_path))
    assert opened.was_split
    assert "test.csv, test images: not trained on" in opened.taken["left aside"]


def test_what_may_be_two_things_is_refused(tmp_path):
    write_table(tmp_path / "labels.csv", ALL, FILES)
    for folder in ("ants", "bees"):
        write_table(tmp_path / folder / "note.txt", "", ["a.png"])
    with pytest.raises(InputError, match="labels.csv beside ants/ and bees/ with images: .* give labels.csv as DATA"):
        find(str(tmp_path))
    assert find(str(tmp_path / "labels.csv")).whole is not None


def test_a_table_beside_splits_of_class_folders_is_refused(tmp_path):
    write_table(tmp_path / "train.csv", ALL, FILES)
    for folder in ("ants", "bees"):
        write_table(tmp_path / "train" / folder / "note.txt", "", ["a.png"])
    with pytest.raises(InputError, match="train.csv beside train/ with folders of images"):
        find(str(tmp_path))


@pytest.mark.parametrize(
    "names", [("labels.csv", "train.csv"), ("train.csv", "training.csv"), ("train.csv", "train.tsv")]
)
def test_two_tables_of_one_split_are_refused(tmp_path, names):
    for name in names:
        write_table(tmp_path / name, ALL, FILES)
    with pytest.raises(InputError, match=f"has both {names[0]} and {names[1]}"):
        find(str(tmp_path))


def test_other_tables_and_class_folders_stay_as_they_are(tmp_path):
    for folder in ("ants", "bees"):
        write_table(tmp_path / folder / "note.txt", "", ["a.png", "b.png"])
    write_table(tmp_path / "sizes.csv", "a,b\n1,2\n")
    assert open_dataset(str(tmp_path)).train.classes == ("ants", "bees")


def test_unknown_classes_of_validation_are_named(tmp_path):
    write_table(tmp_path / "train.csv", ALL, FILES)
    write_table(tmp_path / "val.csv", "image,labels\n0.jpg,cat;cow\n")
    with pytest.raises(InputError, match="the validation images have classes that the training images have not: cow"):
        open_dataset(str(tmp_path))


def test_validation_with_several_labels_needs_training_with_several(tmp_path):
    write_table(tmp_path / "train.csv", "image,label\n0.jpg,cat\n1.jpg,dog\n", FILES)
    write_table(tmp_path / "val.csv", "image,label\n2.jpg,cat;dog\n")
    with pytest.raises(InputError, match="training images have one label each, the validation images .* any number"):
        open_dataset(str(tmp_path))


def test_validation_without_any_label_is_refused(tmp_path):
    write_table(tmp_path / "train.csv", ALL, FILES)
    write_table(tmp_path / "val.csv", "image,cat,dog\n2.jpg,0,0\n")
    with pytest.raises(InputError, match=r"no image of .*val.csv has a label"):
        open_dataset(str(tmp_path))


def test_split_has_every_class_on_both_sides_where_it_can(tmp_path):
    multi_label(tmp_path, count=40)
    text = (tmp_path / "labels.csv").read_text().replace("\n7.png,red;green;blue", "\n7.png,red;lone")
    (tmp_path / "labels.csv").write_text(text)
    for seed in range(4):
        opened = open_dataset(str(tmp_path), seed=seed)
        sides = [{opened.train.classes[each] for labels in side.labels for each in labels} for side in
                 (opened.train, opened.validation)]  # fmt: skip
        assert sides == [{"blue", "green", "lone", "red"}, {"blue", "green", "red"}]
        assert 6 <= len(opened.validation) <= 10
        assert "none of 1 class (lone)" in opened.taken["validation"]
        again = open_dataset(str(tmp_path), seed=seed)
        assert list(again.validation.names) == list(opened.validation.names)


def test_checking_counts_labels(tmp_path):
    write_table(tmp_path / "labels.csv", ALL, FILES)
    (tmp_path / "1.jpg").write_bytes((tmp_path / "0.jpg").read_bytes())
    parts = open_parts(str(tmp_path))
    report = check_data({"images": parts.train})
    part = report.parts["images"]
    assert part.classes == {"cat": 3, "dog": 4}
    assert part.unlabelled == 1
    assert [[copy.label for copy in group] for group in report.conflicting] == [["cat, dog", "dog"]]


def test_shards_hold_one_label(tmp_path):
    write_table(tmp_path / "data" / "labels.csv", ALL, FILES)
    with pytest.raises(InputError, match="shards hold one label an image"):
        write_shards({"train": open_parts(str(tmp_path / "data")).train}, tmp_path / "shards")


def test_the_held_out_images_of_a_table_are_found_again(tmp_path):
    write_table(tmp_path / "a" / "labels.csv", ALL, FILES)
    opened = open_dataset(str(tmp_path / "a"), val_fraction=0.34)
    record = DataRecord.of(opened, val_fraction=0.34, seed=0)
    trained = TrainedImages.of(opened.train, examine(opened.train).contents)
    (tmp_path / "a").rename(tmp_path / "b")
    found = find_evaluation(str(tmp_path / "b"), opened.train.classes, record, trained, multi_label=True)
    assert list(found.images.names) == list(opened.validation.names)
    assert (found.trained_on, found.changed) == (0, 0)


def test_evaluation_needs_labels_of_the_checkpoints_kind(tmp_path):
    write_table(tmp_path / "several" / "labels.csv", ALL, FILES)
    write_table(tmp_path / "one" / "labels.csv", "image,label\n0.jpg,cat\n1.jpg,dog\n", FILES)
    for folder in ("cat", "dog"):
        write_table(tmp_path / "folders" / folder / "note.txt", "", ["a.png"])
    classes = ("cat", "dog")
    with pytest.raises(InputError, match="gives each image one label, and the checkpoint any number"):
        find_evaluation(str(tmp_path / "folders"), classes, None, multi_label=True)
    with pytest.raises(InputError, match="gives images any number of labels, and the checkpoint one"):
        find_evaluation(str(tmp_path / "several"), classes, None)
    assert list(find_evaluation(str(tmp_path / "one"), classes, None).images.labels) == [0, 1]
    found = find_evaluation(str(tmp_path / "one"), classes, None, multi_label=True)
    assert list(found.images.labels) == [(0,), (1,)]


def test_tables_are_data_of_classification(tmp_path):
    file = write_table(tmp_path / "labels.csv", ALL, FILES)
    assert kind_of(str(tmp_path)) == kind_of(str(file)) == "classification"


@pytest.mark.parametrize("name", ["classes.csv", "class_dict.csv", "train_classes.csv", "sizes.csv", "._labels.csv"])
def test_other_tables_beside_class_folders_are_no_labels(tmp_path, name):
    for folder in ("ants", "bees"):
        write_table(tmp_path / folder / "note.txt", "", ["a.png", "b.png"])
    write_table(tmp_path / name, "id,name\n0,ants\n")
    assert open_dataset(str(tmp_path)).train.classes == ("ants", "bees")
