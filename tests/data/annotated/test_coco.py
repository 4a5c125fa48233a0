import json
import os

import pytest
import torch
from PIL import Image

from acmix import InputError
from acmix.data.annotated import Polygons, Runs, open_annotated
from acmix.data.annotated.finding import find_annotated
from acmix.data.annotated.opening import open_part
from tests.data.annotated.conftest import BOX, SQUARE


def opened(folder):
    return open_part(find_annotated(folder).usable[0])


def test_drawn_shapes_come_back(coco_folder, pictures):
    data = open_annotated(str(coco_folder))
    assert (len(data.train), len(data.validation), data.was_split) == (12, 4, False)
    assert data.train.classes == ("circle", "square", "triangle")
    assert data.train.category_ids == (1, 2, 3)
    assert data.train.has_masks
    for index in range(12):
        image, found = data.train.read(index)
        shapes = pictures[index].shapes
        assert image.tobytes() == pictures[index].image.tobytes()
        assert found.labels.tolist() == [shape.label for shape in shapes]
        assert torch.allclose(found.boxes, torch.tensor([shape.box for shape in shapes]))
        assert torch.allclose(found.areas, torch.tensor([shape.area for shape in shapes]))
        assert not found.crowd.any()
        for mask, shape in zip(found.masks(64, 64), shapes, strict=True):
            assert (mask.numpy() != shape.mask(64)).sum() <= 0.15 * shape.area + 3


def test_ids_are_those_of_the_file(small, write):
    small["images"][0]["id"] = 99
    small["annotations"] = [BOX | {"image_id": 99}, BOX | {"id": 2, "image_id": 99, "category_id": 3, "iscrowd": 1}]
    images = opened(write(small))
    assert images.image_ids.tolist() == [99, 2]
    # In the order of their ids.
    assert images.classes == ("dog", "cat")
    assert images.category_ids == (3, 7)
    found = images.annotations(0)
    assert found.labels.tolist() == [1, 0]
    assert found.crowd.tolist() == [False, True]
    assert found.boxes.tolist() == [[2, 3, 12, 15]] * 2
    assert len(images.annotations(1).labels) == 0
    assert not images.has_masks


def test_annotations_may_come_before_images(small, write):
    assert opened(write(dict(reversed(small.items())))).annotations(0).boxes.shape == (1, 4)


RUNS = {"size": [30, 40], "counts": [100, 20, 1080]}


@pytest.mark.parametrize("segment", [RUNS, RUNS | {"counts": "T3d0hQ1"}])
def test_run_lengths_are_read_in_both_forms(small, write, segment):
    small["annotations"][0]["segmentation"] = segment
    del small["annotations"][0]["area"]
    found = opened(write(small)).annotations(0)
    assert isinstance(found.segments[0], Runs)
    assert found.masks(30, 40).sum() == found.areas.item() == 20


def test_polygons_are_read(small, write):
    small["annotations"][0] |= {"segmentation": [SQUARE, [0, 0, 5, 0]]}
    del small["annotations"][0]["area"]
    found = opened(write(small)).annotations(0)
    assert isinstance(found.segments[0], Polygons)
    assert len(found.segments[0].rings) == 1
    assert found.areas.item() == 120
    assert found.masks(30, 40).shape == (1, 30, 40)


# What training would learn wrongly, and a word of what is said of it.
REFUSED = {
    "unknown category": (lambda data: data["annotations"][0].update(category_id=5), "1 object of an unknown category"),
    "image twice": (lambda data: data["images"][1].update(id=1), "1 image of another's id"),
    "name twice": (lambda data: data["images"][1].update(file_name="a.png"), "1 image of another's name (a.png)"),
    "category twice": (lambda data: data["categories"][1].update(id=7), "two categories have the id 7"),
    "class twice": (lambda data: data["categories"][1].update(name="cat"), "two categories are called cat"),
    "runs of another size": (
        lambda data: data["annotations"][0].update(segmentation={"size": [40, 30], "counts": [100, 20, 1080]}),
        "mask of run lengths of another size than the image (all annotation 1)",
    ),
    "too many runs": (
        lambda data: data["annotations"][0].update(segmentation={"size": [30, 40], "counts": [100, 20, 1081]}),
        "mask of run lengths that do not fit",
    ),
    "negative runs": (
        lambda data: data["annotations"][0].update(segmentation={"size": [30, 40], "counts": [-1, 1201]}),
        "a run of -1 pixels",
    ),
    "runs of text": (
        lambda data: data["annotations"][0].update(segmentation={"size": [30, 40], "counts": "é"}),
        "characters that no run lengths have",
    ),
    "runs of a huge size": (
        lambda data: data["annotations"][0].update(segmentation={"size": [10**9, 10**9], "counts": [10**18]}),
        "1000000000 x 1000000000 pixels are refused",
    ),
    "more runs than pixels": (
        lambda data: data["annotations"][0].update(segmentation={"size": [30, 40], "counts": [0] * 1203}),
        "more than 1,202 runs",
    ),
    "more text than pixels": (
        lambda data: data["annotations"][0].update(segmentation={"size": [30, 40], "counts": "1" * 9000}),
        "more than 1,202 runs",
    ),
    "polygon of too many corners": (
        lambda data: data["annotations"][0].update(segmentation=[[1, 2] * 2_000_001]),
        "outline of more than 2,000,000 pixels",
    ),
    "runs of huge numbers": (
        lambda data: data["annotations"][0].update(segmentation={"size": [30, 40], "counts": [10**30]}),
        "segmentation.counts",
    ),
    "odd polygon": (lambda data: data["annotations"][0].update(segmentation=[SQUARE[1:]]), "odd number of coordinates"),
    "flat polygon": (lambda data: data["annotations"][0].update(segmentation=SQUARE), "a list of polygons"),
    "segment of a number": (lambda data: data["annotations"][0].update(segmentation=5), "a list of polygons"),
    "segment of text": (lambda data: data["annotations"][0].update(segmentation="5"), "a list of polygons"),
    "runs of nothing": (lambda data: data["annotations"][0].update(segmentation={"size": [30, 40]}), "counts must be"),
    "size of nothing": (lambda data: data["annotations"][0].update(segmentation={"counts": [1200]}), "size must be"),
    "crowd of text": (lambda data: data["annotations"][0].update(iscrowd="1"), "iscrowd must be 0 or 1"),
    "area of text": (lambda data: data["annotations"][0].update(area="1"), "where numbers must be"),
    "too many categories": (
        lambda data: data.update(categories=[{"id": number, "name": str(number)} for number in range(50_001)]),
        "more than 50,000 categories",
    ),
    "polygon of text": (lambda data: data["annotations"][0].update(segmentation=[["1"] * 8]), "where numbers must be"),
    "polygon of huge numbers": (
        lambda data: data["annotations"][0].update(segmentation=[[*SQUARE[:-1], 1e30]]),
        "polygon of numbers that no image has",
    ),
    "polygon without end": (
        lambda data: data["annotations"][0].update(segmentation=[[0, 0, 1e5, 1e5] * 20]),
        "outline of more than 2,000,000 pixels",
    ),
    "box of huge numbers": (lambda data: data["annotations"][0].update(bbox=[0, 0, 1e300, 1]), "1 box of numbers"),
    "box of three": (lambda data: data["annotations"][0].update(bbox=[0, 0, 1]), "bbox must be four numbers"),
    "box of true": (lambda data: data["annotations"][0].update(bbox=[True, 0, 1, 1]), "bbox must be four numbers"),
    "box of text": (lambda data: data["annotations"][0].update(bbox=["0", 0, 1, 1]), "where numbers must be"),
    "no box": (lambda data: data["annotations"][0].pop("bbox"), "annotations[0].bbox must be a list, got None"),
    "area below zero": (lambda data: data["annotations"][0].update(area=-1), "area that no object has"),
    "id of text": (lambda data: data["images"][0].update(id="1"), "images[0].id must be a whole number, got '1'"),
    "id of no computer": (lambda data: data["images"][0].update(id=10**40), "images[0].id must be a whole number"),
    "no name": (lambda data: data["images"][0].pop("file_name"), "images[0].file_name must be text, got None"),
    "entry of text": (lambda data: data["images"].append("c.png"), "images[2] must be an object, got 'c.png'"),
    "huge image": (lambda data: data["images"][0].update(width=10**9, height=10**9), "pixels are refused"),
    "large image": (lambda data: data["images"][0].update(width=60000, height=60000), "pixels are refused"),
    "negative image": (lambda data: data["images"][0].update(width=-4), "pixels are refused"),
    "parent": (lambda data: data["images"][0].update(file_name="../../a.png"), "leads out of the data folder"),
    "root": (lambda data: data["images"][0].update(file_name="/etc/passwd"), "leads out of the data folder"),
    "drive": (lambda data: data["images"][0].update(file_name="C:\\a.png"), "leads out of the data folder"),
    "backslashes": (lambda data: data["images"][0].update(file_name="..\\a.png"), "leads out of the data folder"),
    "end of text": (lambda data: data["images"][0].update(file_name="a\0.png"), "leads out of the data folder"),
    "name twice in another form": (
        lambda data: data["images"][1].update(file_name="./a.png"),
        "1 image of another's name (a.png)",
    ),
    "class without a name": (lambda data: data["categories"][0].update(name=" "), "name must not be empty"),
    "shares": (lambda data: data["annotations"][0].update(bbox=[0.1, 0.2, 0.5, 0.5]), "1 box within one pixel"),
    "corners": (
        lambda data: data.update(annotations=[BOX | {"id": at, "bbox": [25, 5 + at, 38, 20]} for at in range(10)]),
        "10 boxes reaching beyond the image, as most do",
    ),
    "polygon of another object": (
        lambda data: data["annotations"][0].update(segmentation=[[30, 20, 38, 20, 38, 28]]),
        "1 polygon apart from the box (all annotation 1)",
    ),
    "no images": (lambda data: data.update(images=[]), "got no images or no categories"),
    "no categories": (lambda data: data.pop("categories"), "got no images or no categories"),
    "elsewhere": (lambda data: [image.update(file_name="c.png") for image in data["images"]], "are nowhere in"),
    "too many": (
        lambda data: data.update(annotations=[BOX] * 25_001),
        "25,001 objects of an image with more than 25,000",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_learned_wrongly_is_refused_by_name(small, write, name):
    change, words = REFUSED[name]
    change(small)
    folder = write(small)
    with pytest.raises(InputError) as caught:
        opened(folder)
    assert words in str(caught.value)
    assert "instances_all.json" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 700


DAMAGED = {
    "deep": ('{"images": [' + "[" * 200_000, "not JSON"),
    "deep objects": ('{"images": [' + '{"a":' * 200_000, "not JSON"),
    "cut": ('{"images": [{"id": 1', "not JSON"),
    "no object": ('{"info": 1}, 2', "not JSON"),
    "key twice": ('{"images": [], "images": []}', "'images' twice"),
    "key twice within": ('{"images": [{"id": 1, "id": 2}]}', "'id' twice"),
    "no number": ('{"annotations": [{"bbox": [NaN, 0, 1, 1]}]}', "NaN is no number"),
    "infinite": ('{"annotations": [{"bbox": [-Infinity, 0, 1, 1]}]}', "Infinity is no number"),
    "no text": (b'{"images": [{"file_name": "\xe9.png"}]}', "is not UTF-8"),
    "number without end": ('{"images": [{"id": ' + "9" * 5000 + "}]}", "not JSON"),
    "entries in an object": ('{"images": {"1": "a.png"}}', "images[0].id must be a whole number"),
    "empty object": ('{"images": [], "annotations": [], "categories": []}', "got no images"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_and_hostile_files_are_refused_by_name(write, name):
    content, words = DAMAGED[name]
    folder = write(content)
    with pytest.raises(InputError, match="instances_all.json") as caught:
        opened(folder)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 700


def test_infinite_numbers_that_json_can_write_are_refused(small, write):
    text = json.dumps(small).replace("[2, 3, 10, 12]", "[1e999, 3, 10, 12]")
    folder = write(text)
    with pytest.raises(InputError, match="box of numbers that no image has"):
        opened(folder)


LEFT_OUT = {
    "box without area": BOX | {"bbox": [2, 3, 0, 12]},
    "box outside of the image": BOX | {"bbox": [41, 3, 10, 12]},
    "object of an image not listed": BOX | {"image_id": 5},
    "segment without a pixel in the image": BOX | {"segmentation": {"size": [30, 40], "counts": [1200]}},
    "segment of fewer than three corners": BOX | {"segmentation": [[1, 1, 2, 2]]},
}


@pytest.mark.parametrize("reason", LEFT_OUT)
def test_what_is_no_object_is_left_out_and_counted(small, write, reason):
    small["annotations"].append(LEFT_OUT[reason] | {"id": 8})
    images = opened(write(small))
    assert len(images.objects.labels) == 1
    assert images.left_out.counts == {reason: 1}
    assert images.left_out.names[reason] == ["all annotation 8"]


def test_images_that_are_not_there_are_left_out_and_counted(small, write):
    small["images"].append({"id": 5, "file_name": "c.png", "width": 40, "height": 30})
    small["annotations"].append(BOX | {"id": 2, "image_id": 5})
    images = opened(write(small))
    assert [images.name(index) for index in range(len(images))] == ["images/a.png", "images/b.png"]
    assert images.left_out.counts == {"image not there": 1, "object of an image not there": 1}


def test_masks_are_not_learned_where_an_object_has_none(small, write):
    small["annotations"] = [BOX | {"segmentation": [SQUARE]}, BOX | {"id": 2, "segmentation": []}]
    images = opened(write(small))
    assert not images.has_masks
    assert images.annotations(0).segments is None
    with pytest.raises(InputError, match="boxes alone"):
        images.annotations(0).masks(30, 40)


def test_an_image_of_another_size_is_refused_where_it_is_read(small, write):
    small["images"][0]["width"] = 41
    folder = write(small)
    with pytest.raises(InputError, match=r"a.png: has 40 x 30 pixels as it is shown, its annotations count in 41 x 30"):
        open_annotated(folder)
    images = opened(folder)
    with pytest.raises(InputError, match="a.png"):
        images.read(0)
    assert images.read(1)[0].size == (40, 30)


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff"])
def test_annotations_count_in_the_image_as_it_is_shown(small, write, tmp_path, kind):
    folder = write(small)
    image = Image.new("RGB", (30, 40), "red")
    image.getexif()[274] = 6
    image.save(tmp_path / "images" / f"a.{kind}", exif=image.getexif())
    small["images"][0]["file_name"] = f"a.{kind}"
    write(small)
    assert opened(folder).read(0)[0].size == (40, 30)
    open_annotated(folder)
    for side in ("width", "height"):
        del small["images"][0][side]
    write(small)
    assert opened(folder).sizes.tolist() == [[30, 40], [30, 40]]
    open_annotated(folder)


def test_links_out_of_the_folder_are_refused(small, write, tmp_path_factory, tmp_path):
    folder = write(small)
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    Image.new("RGB", (40, 30)).save(outside)
    (tmp_path / "images" / "a.png").unlink()
    (tmp_path / "images" / "a.png").symlink_to(outside)
    with pytest.raises(InputError, match=r"a.png leads out of .* by a link"):
        opened(folder)
    (tmp_path / "images" / "a.png").unlink()
    (tmp_path / "images" / "b.png").unlink()
    (tmp_path / "images").rmdir()
    (tmp_path / "images").symlink_to(outside.parent)
    outside.rename(outside.with_name("a.png"))
    with pytest.raises(InputError, match=r"leads out of .* by a link"):
        opened(folder)


def test_a_file_of_annotations_lies_in_the_folder(small, write, tmp_path_factory, tmp_path):
    folder = write(small)
    file = tmp_path / "annotations" / "instances_all.json"
    file.rename(outside := tmp_path_factory.mktemp("outside") / "secret.json")
    file.symlink_to(outside)
    with pytest.raises(InputError, match=r"instances_all.json leads out of .* by a link"):
        opened(folder)


def test_an_absolute_name_within_the_folder_is_a_name(small, write, tmp_path):
    for image in small["images"]:
        image["file_name"] = str(tmp_path / "images" / image["file_name"])
    images = opened(write(small))
    assert [images.name(index) for index in range(2)] == ["images/a.png", "images/b.png"]


def test_one_image_is_not_learned_from_and_validated_with(small, write):
    write(small, "instances_train.json")
    with pytest.raises(InputError, match=r"2 images to validate with, such as .*a.png, are learned from, too"):
        open_annotated(write(small, "instances_val.json"))


@pytest.mark.parametrize("missing", ["width", "height"])
def test_one_side_is_no_size(small, write, missing):
    del small["images"][0][missing]
    assert opened(write(small)).sizes.tolist() == [[30, 40], [30, 40]]


@pytest.mark.parametrize("first", [{"type": "instances"}, {"version": 1, "year": "2014"}, {"info": {}}])
def test_files_of_coco_are_known_by_what_is_in_them(small, write, first):
    assert len(opened(write(first | small, "objects.json"))) == 2


def test_files_of_no_encoding_and_packed_ones_are_named(small, write, tmp_path):
    with pytest.raises(InputError, match=r"instances_all.json: is not UTF-8"):
        opened(folder := write(json.dumps(small).encode("utf-16")))
    (tmp_path / "annotations" / "instances_all.json").rename(tmp_path / "annotations" / "instances_all.json.gz")
    with pytest.raises(InputError, match=r"annotations/ holds .gz files, packed; unpack them"):
        opened(folder)


def test_links_within_the_folder_are_followed(small, write, tmp_path):
    folder = write(small)
    (tmp_path / "images").rename(tmp_path / "kept")
    (tmp_path / "images").symlink_to("kept")
    os.link(tmp_path / "kept" / "a.png", tmp_path / "kept" / "c.png")
    assert len(opened(folder)) == 2


# How people lay out the same images: annotations and images of training, then of validation.
LAYOUTS = {
    "coco": "annotations/instances_train2017.json train2017 annotations/instances_val2017.json val2017",
    "images": "annotations/instances_train2017.json images/train2017 annotations/instances_val2017.json images/val2017",
    "roboflow": "train/_annotations.coco.json train valid/_annotations.coco.json valid",
    "short": "annotations/train.json train annotations/val.json val",
    "together": "annotations/instances_train.json images annotations/instances_val.json images",
    "inner": "train.json train/images val.json val/images",
    "voc": "annotations/instances_train.json JPEGImages annotations/instances_val.json JPEGImages",
    "capitals": "Annotations/instances_Training.json Training Annotations/instances_Validation.json Validation",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_found_as_people_have_them(tmp_path, small, layout):
    places = LAYOUTS[layout].split()
    for split, file, folder in zip(("train", "val"), places[::2], places[1::2], strict=True):
        images = [f"{split}{number}.png" for number in (1, 2)]
        for place in (tmp_path / file, tmp_path / folder / images[0]):
            place.parent.mkdir(parents=True, exist_ok=True)
        for entry, name in zip(small["images"], images, strict=True):
            entry["file_name"] = name
            Image.new("RGB", (40, 30)).save(tmp_path / folder / name)
        (tmp_path / file).write_text(json.dumps(small))
    data = open_annotated(str(tmp_path))
    assert data.train.name(0).endswith("train1.png")
    assert data.validation.name(0).endswith("val1.png")
    assert not data.was_split


def test_images_of_another_split_are_not_taken_for_those_that_are_missing(tmp_path, small):
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(small))
    (tmp_path / "train").mkdir()
    for letter in "ab":
        Image.new("RGB", (40, 30)).save(tmp_path / "train" / f"{letter}.png")
    with pytest.raises(InputError, match=r"instances_val.json: its images are nowhere"):
        open_annotated(str(tmp_path))
