import pickle

import pytest

from acmix import InputError
from acmix.data.annotated import open_annotated
from acmix.data.annotated.finding import find_annotated
from acmix.data.annotated.opening import open_part
from tests.data.annotated.conftest import BOX, SQUARE
from tests.drawn_shapes import write_coco


@pytest.fixture(scope="module")
def images(coco_folder):
    return open_annotated(str(coco_folder)).train


def same(one, other):
    return (
        one.boxes.equal(other.boxes) and one.labels.equal(other.labels) and one.masks(64, 64).equal(other.masks(64, 64))
    )


def test_some_images_keep_what_is_theirs(images):
    some = images.subset([7, 2, 2])
    assert len(some) == 3
    for position, index in enumerate((7, 2, 2)):
        assert some.name(position) == images.name(index)
        assert some.image_ids[position] == images.image_ids[index]
        assert same(some.annotations(position), images.annotations(index))
    assert len(images.subset([])) == 0


def test_images_are_the_same_in_another_process(images):
    twin = pickle.loads(pickle.dumps(images))  # noqa: S301
    assert twin.fingerprint() == images.fingerprint()
    assert same(twin.read(3)[1], images.read(3)[1])


def test_other_classes_give_other_labels(images):
    other = images.with_classes(("triangle", "star", "circle", "square"))
    assert other.category_ids == (3, 5, 1, 2)
    names = [images.classes[label] for label in images.annotations(0).labels]
    assert [other.classes[label] for label in other.annotations(0).labels] == names
    with pytest.raises(InputError, match="unknown classes: triangle"):
        images.with_classes(("circle", "square"))


def test_a_fingerprint_tells_changes(tmp_path, pictures, images):
    assert open_annotated(str(write_coco(tmp_path / "same", pictures))).train.fingerprint() == images.fingerprint()
    other = write_coco(tmp_path / "other", pictures[1:])
    assert open_annotated(str(other)).train.fingerprint() != images.fingerprint()


@pytest.mark.parametrize("change", ["bbox", "area", "iscrowd", "segmentation", "category_id"])
def test_a_fingerprint_tells_changes_of_objects(small, write, change):
    small["annotations"][0] |= {"segmentation": [SQUARE]}
    before = open_part(find_annotated(write(small)).whole).fingerprint()
    others = {"bbox": [2, 3, 11, 12], "area": 121, "iscrowd": 1, "segmentation": [[*SQUARE[:-1], 14]], "category_id": 3}
    small["annotations"][0][change] = others[change]
    assert open_part(find_annotated(write(small)).whole).fingerprint() != before


def test_a_split_depends_on_seed_and_names_alone(images):
    train, validation = images.split(0.25, 3)
    assert len(validation) in (3, 4)
    names = {*map(validation.name, range(len(validation)))}
    assert names | {*map(train.name, range(len(train)))} == {*map(images.name, range(12))}
    again, other = images.subset(range(11, -1, -1)).split(0.25, 3)[1], images.split(0.25, 4)[1]
    assert names == {*map(again.name, range(len(again)))}
    assert names != {*map(other.name, range(len(other)))}
    with pytest.raises(InputError, match="between 0 and 1"):
        images.split(1.0, 0)
    with pytest.raises(InputError, match="too few images to split: 1; at least 2 are needed"):
        images.subset([0]).split(0.5, 0)


def test_masks_that_do_not_fit_into_memory_are_refused(small, write):
    runs = {"size": [30, 40], "counts": [100, 20, 1080]}
    small["annotations"] = [BOX | {"id": number, "segmentation": runs} for number in range(10)]
    found = open_part(find_annotated(write(small)).whole).annotations(0)
    assert found.masks(30, 40).shape == (10, 30, 40)
    with pytest.raises(InputError, match="exceed 4 GiB"):
        found.masks(30_000, 40_000)
