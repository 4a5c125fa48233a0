import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acmix.data.annotated.checking import check_annotated
from acmix.data.annotated.segments import crosses
from tests.commands import call
from tests.data.annotated.conftest import BOX, SQUARE

STAR = [10, 2, 16, 18, 2, 8, 18, 8, 4, 18]


def findings(folder, kind, part="images"):
    return getattr(check_annotated(folder).objects[part].findings, kind).counts


def test_sound_data_are_sound(coco_folder, yolo_folder):
    for folder in (coco_folder, yolo_folder):
        report = check_annotated(str(folder))
        assert report.sound
        assert [*report.objects] == ["train", "validation"]
        assert report.unused == []
        counts = [sum(part.classes.values()) for part in report.images.parts.values()]
        assert counts == [found.objects for found in report.objects.values()]


# A change of the annotations, the kind of finding, what is counted, whether the data stay sound.
FOUND = {
    "unknown category": (BOX | {"id": 2, "category_id": 9}, "refused", {"object of an unknown category": 1}),
    "no area": (BOX | {"id": 2, "bbox": [1, 1, 0, 4]}, "left_out", {"box without area": 1}),
    "outside": (BOX | {"id": 2, "bbox": [50, 1, 2, 4]}, "left_out", {"box outside of the image": 1}),
    "id twice": (
        BOX,
        "noted",
        {
            "annotation of another's id": 1,
            "object of the image, class and box of another": 1,
            "image without objects": 1,
        },
    ),
    "beyond": (
        BOX | {"id": 2, "image_id": 2, "bbox": [30, 1, 20, 4]},
        "noted",
        {"box reaching beyond the image": 1},
    ),
    "runs": (
        BOX | {"id": 2, "segmentation": {"size": [30, 40], "counts": [1, 2]}},
        "refused",
        {"mask of run lengths that do not fit": 1},
    ),
    "twice": (
        BOX | {"id": 2},
        "noted",
        {"object of the image, class and box of another": 1, "image without objects": 1},
    ),
    "crossing": (
        BOX | {"id": 2, "image_id": 2, "segmentation": [STAR]},
        "noted",
        {"polygon of edges that cross": 1, "object without a segment, so that masks are not learned": 1},
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_is_wrong_is_counted_with_examples(small, write, name):
    entry, kind, counts = FOUND[name]
    small["annotations"].append(entry)
    folder = write(small)
    assert findings(folder, kind) == counts
    assert check_annotated(folder).sound is (kind == "noted")


def test_unused_classes_and_images_without_objects_are_told(small, write):
    report = check_annotated(write(small))
    assert report.unused == ["dog"]
    assert report.objects["images"].empty == 1
    assert report.sound


def test_images_that_are_in_training_and_validation_are_told(coco_folder, tmp_path, capsys):
    root = shutil.copytree(coco_folder, tmp_path / "data")
    shutil.copy(root / "train" / "0001.png", root / "val" / "0002.png")
    code, out, err = call(capsys, "data", "check", root)
    assert (code, err) == (1, "")
    assert "identical files in training and validation: 1\n  train: train/0001.png = validation: val/0002.png\n" in out
    assert out.splitlines()[-1] == "the images are NOT sound"


def test_the_command_names_what_is_wrong(small, write, tmp_path, capsys):
    small["annotations"] += [BOX | {"id": 2, "category_id": 9}, BOX | {"id": 3, "bbox": [1, 1, 0, 4]}]
    small["images"].append({"id": 3, "file_name": "gone.png", "width": 40, "height": 30})
    folder = write(small)
    (tmp_path / "images" / "b.png").write_bytes(b"no image")
    code, out, err = call(capsys, "data", "check", folder)
    assert (code, err) == (1, "")
    assert "refused in training, images: 1 object of an unknown category (all annotation 2)\n" in out
    assert "left out of training, images: 1 box without area (all annotation 3)\n" in out
    assert "left out of training, images: 1 image not there (images/gone.png)\n" in out
    assert "unreadable: 1\n  images/b.png: not a readable image" in out
    assert "classes without objects: dog\n" in out
    code, out, err = call(capsys, "data", "check", folder, "--json")
    assert (code, err) == (1, "")
    content = json.loads(out)
    assert content["parts"]["images"]["refused"] == {
        "object of an unknown category": {"count": 1, "first": ["all annotation 2"]}
    }
    assert content["unused_classes"] == ["dog"]
    assert not content["sound"]


def test_the_command_refuses_damaged_files_in_one_line(write, capsys):
    code, out, err = call(capsys, "data", "check", write('{"images": ['))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "instances_all.json: not JSON" in err


def ring(numbers):
    return np.array(numbers, float).reshape(-1, 2)


def test_outlines_that_cross_themselves_are_told():
    assert crosses(ring(STAR))
    assert crosses(ring([0, 0, 4, 4, 4, 0, 0, 4]))
    assert not crosses(ring(SQUARE))
    assert not crosses(ring([0, 0, 4, 0, 0, 4]))


@given(st.integers(3, 30), st.integers(0, 1000))
@settings(deadline=None)
def test_outlines_around_a_point_do_not_cross(count, seed):
    generator = np.random.default_rng(seed)
    angles = np.sort(generator.uniform(0, 2 * np.pi, count))
    radius = generator.uniform(1, 9, count)
    # A gap of more than half a turn could lead back past the point.
    if np.diff(np.append(angles, angles[0] + 2 * np.pi)).max() < np.pi:
        assert not crosses(np.stack((radius * np.cos(angles), radius * np.sin(angles)), 1))
