"""What is measured is never what was trained on, wherever it lies and whatever it is called now."""

import shutil

import numpy as np
import pytest
from PIL import Image

from acmix import InputError
from acmix.data import DataRecord, TrainedImages, find_evaluation, open_dataset
from acmix.data.trained import examine
from acmix.data.writing import write_shards

CLASSES = ("ant", "bee")


def fill(root, count=10, seed=0, classes=CLASSES):
    """Images of noise: no two are alike."""
    random = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(root / name / f"{index}.png")
    return root


class Trained:
    """What a checkpoint remembers after training on a folder."""

    def __init__(self, root, **options):
        self.images = open_dataset(str(root), **options)
        self.record = DataRecord.of(self.images, val_fraction=0.2, seed=0)
        self.known = TrainedImages.of(self.images.train, examine(self.images.train).contents)

    def find(self, data, **options):
        return find_evaluation(str(data), CLASSES, self.record, self.known, **options)


@pytest.fixture
def data(tmp_path):
    return fill(tmp_path / "data")


def names(images):
    return {images.name(index) for index in range(len(images))}


def test_the_training_data_gives_what_was_held_out(data, tmp_path):
    trained = Trained(data)
    data.rename(tmp_path / "moved")
    found = trained.find(tmp_path / "moved")
    assert names(found.images) == names(trained.images.validation)
    assert (found.measured, found.trained_on, found.changed, found.notes) == (
        f"the images of {tmp_path / 'moved'} that training held out",
        0,
        0,
        [],
    )


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("place", ["data", "copy"])
def test_a_changed_copy_gives_what_was_not_trained_on(data, tmp_path, place, check):
    trained = Trained(data)
    root = data if place == "data" else tmp_path / "copy"
    if root != data:
        shutil.copytree(data, root)
    train = trained.images.train
    first, second, third = (root / train.name(index) for index in range(3))
    first.unlink()
    second.rename(second.with_name("renamed.png"))
    Image.open(third).resize((9, 9)).save(third)
    fill(root / "more", 1, seed=5)
    for name in CLASSES:
        (root / "more" / name / "0.png").rename(root / name / "new.png")
    shutil.rmtree(root / "more")
    found = trained.find(root, check_images=check)
    assert names(found.images) == names(trained.images.validation) | {"ant/new.png", "bee/new.png"}
    assert (found.trained_on, found.changed, found.notes) == (len(train) - 2, 1, [])
    assert found.measured == str(root)
    assert [found.images.read(i)[1] for i in range(len(found.images))] == [
        CLASSES.index(found.images.name(i)[:3]) for i in range(len(found.images))
    ]


def test_a_copy_of_trained_images_alone_is_refused(data, tmp_path):
    trained = Trained(data)
    for index in range(5):
        target = tmp_path / "copy" / trained.images.train.name(index)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / trained.images.train.name(index), target.with_name(f"other {index}.png"))
    with pytest.raises(InputError, match="is what the checkpoint was trained on: all 5 images; give its validation"):
        trained.find(tmp_path / "copy")


def test_copies_among_held_out_images_are_left_out(data):
    shutil.copy(data / "ant" / "0.png", data / "bee" / "copy.png")
    for index in range(1, 9):
        shutil.copy(data / "ant" / "0.png", data / "ant" / f"copy {index}.png")
    trained = Trained(data)
    found = trained.find(data)
    assert found.trained_on > 0
    assert found.trained_on + len(found.images) == len(trained.images.validation)


def test_images_of_the_same_names_with_other_contents_count_and_are_said(data, tmp_path):
    trained = Trained(data)
    # Of noise, PNG files have equal sizes.
    other = fill(tmp_path / "other", seed=9)
    assert open_dataset(str(other)).fingerprint == trained.record.fingerprint
    found = trained.find(other)
    assert (len(found.images), found.trained_on, found.changed) == (20, 0, 0)
    assert found.notes == ["16 images of a name that was trained on, and other contents: counted here"]


def test_validation_and_test_images_beside_training_images(tmp_path):
    for seed, name in enumerate(("Train", "val", "test")):
        fill(tmp_path / name, 3 + seed, seed)
    trained = Trained(tmp_path)
    found = trained.find(tmp_path)
    assert (len(found.images), found.measured) == (8, str(tmp_path / "val"))
    assert found.notes == [f"{tmp_path / 'test'} is not measured; give it as DATA to measure it"]
    tested = trained.find(tmp_path / "test")
    assert (len(tested.images), tested.measured) == (10, str(tmp_path / "test"))
    with pytest.raises(InputError, match="Train is what the checkpoint was trained on; give its validation images"):
        trained.find(tmp_path / "Train")
    (tmp_path / "Train" / "ant" / "0.png").unlink()
    with pytest.raises(InputError, match="was trained on: all 5 images"):
        trained.find(tmp_path / "Train")


def test_test_images_of_data_without_validation_images(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "test", 3, seed=1)
    trained = Trained(tmp_path)
    found = trained.find(tmp_path)
    assert found.measured == f"the images of {tmp_path / 'train'} that training held out"
    assert names(found.images) == names(trained.images.validation)
    assert found.notes == [f"{tmp_path / 'test'} is not measured; give it as DATA to measure it"]
    elsewhere = Trained(fill(tmp_path / "other", seed=3))
    assert elsewhere.find(tmp_path).measured == str(tmp_path / "test")


def test_one_class_and_empty_folders_can_be_measured(data, tmp_path):
    trained = Trained(data)
    fill(tmp_path / "one", 2, seed=7, classes=["bee"])
    (tmp_path / "one" / "ant").mkdir()
    found = trained.find(tmp_path / "one")
    assert [found.images.read(index)[1] for index in range(2)] == [1, 1]


def test_shards_of_the_training_data_are_recognised(data, tmp_path):
    trained = Trained(data)
    every = open_dataset(str(data), val_fraction=0.5)
    write_shards({"validation": every.validation}, tmp_path / "shards")
    found = trained.find(tmp_path / "shards")
    assert found.trained_on == len(names(every.validation) & names(trained.images.train))
    assert found.trained_on + len(found.images) == len(every.validation)


def test_without_a_record_of_images_it_is_said(data, tmp_path):
    trained = Trained(data)
    trained.known = TrainedImages.nothing()
    other = fill(tmp_path / "other", 4, seed=9)
    assert trained.find(other).notes == [
        "the checkpoint does not remember its training images one by one: copies of them are not recognised"
    ]
    assert trained.find(data).notes == []
    (data / "ant" / "3.png").unlink()
    with pytest.raises(InputError, match="changed since training"):
        trained.find(data)


def test_unreadable_images_are_refused_unless_the_check_is_off(data, tmp_path):
    trained = Trained(data)
    other = fill(tmp_path / "other", seed=9)
    (other / "ant" / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="1 of 20 images cannot be read"):
        trained.find(other)
    assert len(trained.find(other, check_images=False).images) == 20


def test_a_checkpoint_without_a_record_measures_what_is_there_and_says_so(data, tmp_path):
    note = "the checkpoint does not say what it was trained on: such images are not left out"
    found = find_evaluation(str(data), CLASSES, None)
    assert (len(found.images), found.notes) == (20, [note])
    for part, count in (("train", 4), ("val", 3), ("test", 2)):
        fill(tmp_path / "parts" / part, count)
    found = find_evaluation(str(tmp_path / "parts"), CLASSES, None)
    assert (len(found.images), len(found.notes)) == (6, 2)
    # What was trained on is the last to be taken.
    shutil.rmtree(tmp_path / "parts" / "val")
    found = find_evaluation(str(tmp_path / "parts"), CLASSES, None)
    assert (len(found.images), found.notes) == (4, [note])
