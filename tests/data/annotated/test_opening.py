import json
import shutil

import pytest

from acmix import InputError
from acmix.data import DataRecord, TrainedImages
from acmix.data.annotated import find_annotated_evaluation, open_annotated
from acmix.data.annotated.finding import find_annotated
from acmix.data.kinds import kind_of, kinds_of
from acmix.data.trained import examine
from tests.drawn_shapes import write_yolo


def test_what_was_taken_is_said(coco_folder):
    taken = open_annotated(str(coco_folder)).taken
    assert "instances_train.json: 12 images, " in taken["training"]
    assert "objects with masks of 3 classes (circle, square, triangle)" in taken["training"]
    assert "instances_val.json: 4 images" in taken["validation"]
    assert "left out" not in taken


def test_one_file_is_split(coco_folder):
    file = str(coco_folder / "annotations" / "instances_val.json")
    data = open_annotated(file, val_fraction=0.5)
    assert (len(data.train), len(data.validation), data.was_split) == (2, 2, True)
    assert "0.5 of the images by seed 0" in data.taken["validation"]


def test_the_folder_of_the_annotations_stands_for_the_data(coco_folder):
    data = open_annotated(str(coco_folder / "annotations"))
    assert (len(data.train), len(data.validation), data.train.name(0)) == (12, 4, "train/0001.png")


def test_validation_may_lie_elsewhere(coco_folder, yolo_folder, tmp_path, pictures):
    data = open_annotated(str(coco_folder), validation=str(yolo_folder))
    assert data.validation.name(0) == "images/val/0001.png"
    assert data.validation_location == str(yolo_folder)
    assert data.train.classes == data.validation.classes
    other = write_yolo(tmp_path, pictures)
    (other / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [circle, square, star]\n")
    with pytest.raises(InputError, match="classes that the training images have not: star"):
        open_annotated(str(coco_folder), validation=str(other))


def test_what_was_left_out_is_said(small, write):
    small["annotations"].append(small["annotations"][0] | {"id": 2, "bbox": [0, 0, 0, 0]})
    assert open_annotated(write(small)).taken["left out"] == "1 box without area (all annotation 2)"


def test_data_without_objects_is_refused(small, write):
    del small["annotations"]
    with pytest.raises(InputError, match="no objects to learn from in 2 images"):
        open_annotated(write(small))


def test_test_images_are_left_aside(coco_folder, tmp_path):
    root = shutil.copytree(coco_folder, tmp_path / "data")
    (root / "val").rename(root / "test")
    (root / "annotations" / "instances_val.json").rename(root / "annotations" / "instances_test.json")
    data = open_annotated(str(root))
    assert (len(data.train), len(data.validation), data.was_split) == (9, 3, True)
    assert "test images: not trained on" in data.taken["left aside"]


def test_two_ways_to_read_one_folder_are_refused_until_a_file_is_given(coco_folder, yolo_folder, tmp_path):
    root = shutil.copytree(coco_folder, tmp_path / "data")
    shutil.copytree(yolo_folder, root, dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"has both data.yaml and annotations/instances_train.json"):
        open_annotated(str(root))
    assert open_annotated(str(root / "data.yaml")).train.name(0) == "images/train/0001.png"


def test_two_files_of_one_split_are_refused(coco_folder, tmp_path):
    root = shutil.copytree(coco_folder, tmp_path / "data")
    shutil.copy(root / "annotations" / "instances_val.json", root / "annotations" / "instances_valid.json")
    with pytest.raises(InputError, match="two files of one split"):
        find_annotated(str(root))


def test_images_that_were_trained_on_are_not_measured(coco_folder, yolo_folder, tmp_path):
    data = open_annotated(str(coco_folder))
    record = DataRecord.of(data, val_fraction=0.2, seed=0)
    trained = TrainedImages.of(data.train, examine(data.train).contents)
    found = find_annotated_evaluation(str(coco_folder), data.train.classes, record, trained)
    assert (len(found.images), found.trained_on) == (4, 0)
    # The same pictures under other names and in another form.
    text = (yolo_folder / "data.yaml").read_text().replace("val: images/val", "val: images")
    root = shutil.copytree(yolo_folder, tmp_path / "data")
    (root / "data.yaml").write_text(text)
    found = find_annotated_evaluation(str(root), data.train.classes, record, trained)
    assert (len(found.images), found.trained_on) == (4, 12)
    with pytest.raises(InputError, match="is what the checkpoint was trained on"):
        find_annotated_evaluation(
            str(coco_folder / "annotations" / "instances_train.json"), data.train.classes, record, trained
        )


def test_held_out_images_are_found_again(coco_folder):
    file = str(coco_folder / "annotations" / "instances_train.json")
    data = open_annotated(file)
    record = DataRecord.of(data, val_fraction=0.2, seed=0)
    trained = TrainedImages.of(data.train, examine(data.train).contents)
    images = find_annotated_evaluation(file, data.train.classes, record, trained).images
    assert [*map(images.name, range(len(images)))] == [*map(data.validation.name, range(len(data.validation)))]


@pytest.fixture
def classes(tmp_path, pictures):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            pictures[0].image.save(tmp_path / split / name / "a.png")
    return tmp_path


def test_kinds_of_data_are_told_apart(coco_folder, yolo_folder, classes):
    assert kind_of(str(coco_folder)) == "detection"
    assert kind_of(str(coco_folder / "annotations" / "instances_val.json")) == "detection"
    assert kind_of(str(yolo_folder)) == "detection"
    assert kind_of(str(yolo_folder / "data.yaml")) == "detection"
    assert kind_of(str(classes)) == "classification"
    assert kind_of(str(classes / "train")) == "classification"
    assert kind_of("digits") == "classification"
    assert kind_of("s3://bucket/train-{000..127}.tar") == "classification"


def test_data_of_two_kinds_or_of_none_are_refused(classes, small, tmp_path_factory):
    (classes / "train.json").write_text(json.dumps(small))
    assert [*kinds_of(str(classes))] == ["classification", "detection"]
    with pytest.raises(InputError, match=r"may be data of classification \(.*\) or of detection \(train.json\)"):
        kind_of(str(classes))
    (classes / "train.json").write_text('{"settings": 1}')
    assert kind_of(str(classes)) == "classification"
    with pytest.raises(InputError, match="is no data to learn from"):
        kind_of(str(tmp_path_factory.mktemp("empty")))
    with pytest.raises(InputError, match="does not exist; expected folders of classes"):
        kind_of("nowhere")


# A validation split that is left out unsaid would be made of the training images.
def test_annotations_that_cannot_be_read_are_not_left_out(coco_folder, tmp_path):
    root = shutil.copytree(coco_folder, tmp_path / "data")
    file = root / "annotations" / "instances_val.json"
    file.unlink()
    file.symlink_to("fetched-later.json")
    with pytest.raises(InputError, match="instances_val.json: cannot be read"):
        open_annotated(str(root))


def test_files_of_other_kinds_are_refused_by_what_data_may_be(classes, small):
    file = classes / "picture.png"
    file.write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match="picture.png is no data to learn from: expected folders of classes"):
        kind_of(str(file))
    with pytest.raises(InputError, match="picture.png has no annotations of objects; expected annotations/"):
        open_annotated(str(file))
    for name in ("a.tar", "shards.txt"):
        (classes / name).touch()
        assert kind_of(str(classes / name)) == "classification"
    bare = classes / "annotations"
    bare.write_text(json.dumps(small))
    assert kind_of(str(bare)) == "detection"


@pytest.mark.parametrize(
    ("file", "words"),
    [("labels/train/a.txt", "add data.yaml"), ("Annotations/a.xml", "PASCAL VOC"), ("annotations/a.json", "COCO's")],
)
def test_annotations_that_are_not_read_are_named(tmp_path, pictures, file, words):
    (tmp_path / "images").mkdir()
    pictures[0].image.save(tmp_path / "images" / "a.png")
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).touch()
    with pytest.raises(InputError, match=words):
        kind_of(str(tmp_path))
