import pytest
import torch
from PIL import Image

from acmix import InputError
from acmix.data.annotated import open_annotated
from acmix.data.annotated.finding import find_annotated
from acmix.data.annotated.opening import open_part
from tests.drawn_shapes import write_yolo


@pytest.fixture
def folder(tmp_path):
    """Two images of 40 x 20 pixels in each split, of which the first has an object."""
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        for number in (1, 2):
            Image.new("RGB", (40, 20)).save(tmp_path / "images" / split / f"{split}{number}.jpg")
        (tmp_path / "labels" / split / f"{split}1.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    describe(tmp_path)
    return tmp_path


def describe(folder, text="train: images/train\nval: images/val\nnames: [cat, dog]\n"):
    (folder / "data.yaml").write_text(text)


def opened(folder):
    return open_part(find_annotated(str(folder)).train)


@pytest.mark.parametrize("masks", [False, True])
def test_drawn_shapes_come_back(tmp_path, pictures, masks):
    data = open_annotated(str(write_yolo(tmp_path, pictures, masks=masks)))
    assert (len(data.train), len(data.validation), data.was_split) == (12, 4, False)
    assert data.train.classes == ("circle", "square", "triangle")
    assert data.train.has_masks is masks
    for index in range(12):
        image, found = data.train.read(index)
        shapes = pictures[index].shapes
        assert image.tobytes() == pictures[index].image.tobytes()
        assert found.labels.tolist() == [shape.label for shape in shapes]
        assert torch.allclose(found.boxes, torch.tensor([shape.box for shape in shapes]), atol=1e-3)
        if masks:
            assert torch.allclose(found.areas, torch.tensor([shape.area for shape in shapes]), atol=0.01)


def test_shares_are_of_the_image_as_it_is_shown(folder):
    image = Image.new("RGB", (20, 40))
    image.getexif()[274] = 6
    image.save(folder / "images" / "train" / "train1.jpg", exif=image.getexif())
    images = opened(folder)
    assert images.sizes.tolist() == [[20, 40], [20, 40]]
    assert images.annotations(0).boxes.tolist() == [[15, 5, 25, 15]]
    assert images.read(0)[0].size == (40, 20)


def test_images_without_labels_have_no_objects(folder):
    images = opened(folder)
    assert [len(images.annotations(index).labels) for index in range(2)] == [1, 0]


DESCRIPTIONS = {
    "dictionary": "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\nnc: 2\n",
    "roboflow": "train: ../images/train\nval: ../images/val\nnc: 2\nnames: ['cat', 'dog']\n",
    "elsewhere": "path: /home/someone/data\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n",
    "above": "path: ../datasets/this\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n",
    "lists": "train: [images/train]\nval: [images/val]\ntest:\nnames: [cat, dog]\n",
    "within": "train: FOLDER/images/train\nval: FOLDER/images/val\nnames: [cat, dog]\n",
    "text": "train: train.txt\nval: val.txt\nnames: [cat, dog]\n",
}


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_descriptions_as_people_write_them(folder, kind):
    describe(folder, DESCRIPTIONS[kind].replace("FOLDER", str(folder)))
    (folder / "train.txt").write_text(f"./images/train/train1.jpg\n{folder}/images/train/train2.jpg\n\n")
    (folder / "val.txt").write_text("./images/val/val1.jpg\nimages/val/val2.jpg")
    data = open_annotated(str(folder))
    assert data.train.classes == ("cat", "dog")
    assert [data.train.name(index) for index in range(2)] == ["images/train/train1.jpg", "images/train/train2.jpg"]
    assert len(data.validation) == 2
    assert not data.train.left_out.counts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: images/train\nnames: [cat, dog]\nnc: 3", "nc is 3, but there are 2 names"),
        ("train: images/train\nnames: {1: cat, 2: dog}", "names must be a list, or say 0: NAME"),
        ("train: images/train\nnames: [cat, cat]", "two classes have one name"),
        ("train: images/train\nnames: [cat, yes]", "names must be text, got True"),
        ("train: images/train\nnames: [cat, [dog]]", "names must be text, got ['dog']"),
        ("train: images/train\nnames: {0: cat, 0: dog}", "a key is there twice"),
        ("train: images/train\nnames: [&a cat, *a]", "references are not read"),
        ("train: images/train\nnames: [cat, ' ']", "names must not be empty"),
        ("train: images/train/\nval: ./images/train\nnames: [cat, dog]", "val is train"),
        ("train: images/gone\nnames: [cat, dog]", "train: there is no images/gone"),
        ("train: /etc\nnames: [cat, dog]", "'/etc' is absolute or leads out of the data folder"),
        ("train: ../../etc\nnames: [cat, dog]", "'../../etc' is absolute or leads out of the data folder"),
        ("train: images/../../x\nnames: [cat, dog]", "leads out of the data folder"),
        ("train: images/train\nval: images/train\nnames: [cat, dog]", "val is train"),
        ("train: images/train\nnames: [cat, dog]\nkpt_shape: [17, 3]", "keypoints are not learned"),
        ("train: 5\nnames: [cat, dog]", "train must be a folder or a list of them, got 5"),
        ("train: images/train\nnames: !!python/object/apply:os.system ['touch x']", "is no YAML"),
        ("train: images/train\nnames: " + "[" * 5000, "is no YAML"),
        ("[" * 100_000, "is no YAML"),
        ("\ttrain: x", "is no YAML"),
        ("names: [cat]\ntrain: images/train\nx: " + "y" * (1 << 20), "has more than 1,048,576 bytes"),
        ("- names\n- train", "must say names, train and val"),
    ],
)
def test_descriptions_that_cannot_be_used_are_refused_by_name(folder, text, words):
    describe(folder, text)
    with pytest.raises(InputError) as caught:
        open_annotated(str(folder / "data.yaml"))
    assert words in str(caught.value)
    assert str(caught.value).count(str(folder / "data.yaml")) == 1
    assert len(str(caught.value)) < 700
    assert not (folder / "x").exists()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("2 0.5 0.5 0.1 0.1", "object of an unknown category (labels/train/train1.txt:2)"),
        ("-1 0.5 0.5 0.1 0.1", "object of an unknown category"),
        ("0.5 0.5 0.5 0.1 0.1", "object of an unknown category"),
        ("1e300 0.5 0.5 0.1 0.1", "object of an unknown category"),
        ("nan 0.5 0.5 0.1 0.1", "object of an unknown category"),
        ("0 12 8 4 4", "outside of 0..1"),
        ("0 nan 0.5 0.1 0.1", "outside of 0..1"),
        ("0 inf 0.5 0.1 0.1", "outside of 0..1"),
        ("0 1e999 0.5 0.1 0.1", "outside of 0..1"),
        ("0 0.5 0.5 0.1", "neither a box nor a polygon"),
        ("0 0.5 0.5 0.1 0.1 0.9", "neither a box nor a polygon"),
        ("cat 0.5 0.5 0.1 0.1", "something else than numbers"),
        ("0," * 5, "something else than numbers"),
        (b"0 0.5 0.5 0.1 \xe9", "is not UTF-8"),
    ],
)
def test_rows_that_would_be_learned_wrongly_are_refused_by_name(folder, row, words):
    file = folder / "labels" / "train" / "train1.txt"
    file.write_bytes(file.read_bytes() + (row if isinstance(row, bytes) else row.encode()))
    with pytest.raises(InputError) as caught:
        open_annotated(str(folder))
    assert words in str(caught.value)
    assert "train1.txt" in str(caught.value)


def test_what_is_no_object_is_left_out_and_counted(folder):
    (folder / "labels" / "train" / "train2.txt").write_text("0 0.5 0.5 0 0.1\n")
    (folder / "labels" / "train" / "gone.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (folder / "labels" / "train" / "classes.txt").write_text("cat\ndog\n")
    assert open_annotated(str(folder)).train.left_out.counts == {
        "box without area": 1,
        "file of labels without an image": 1,
    }


def test_what_stands_there_twice_counts_once(folder):
    (folder / "labels" / "train" / "train2.txt").write_text(
        "0 0.5 0.5 0.1 0.1\r\n0.0  0.50 .5 0.1 0.1\r\n1 0.5 0.5 0.1 0.1"
    )
    images = opened(folder)
    assert images.annotations(1).labels.tolist() == [0, 1]
    assert str(images.left_out) == "1 row equal to another (labels/train/train2.txt:2)"


@pytest.mark.parametrize("train", ["images", "[images/train, images/val]", "train.txt"])
def test_one_image_is_not_learned_from_and_validated_with(folder, train):
    describe(folder, f"train: {train}\nval: images/val\nnames: [cat, dog]\n")
    (folder / "train.txt").write_text("images/train/train1.jpg\nimages/val/val1.jpg\nimages/val/val2.jpg\n")
    with pytest.raises(InputError, match=r"2 images to validate with, such as .*val1.jpg, are learned from, too"):
        open_annotated(str(folder))


def test_labels_beside_images_are_labels(folder):
    (folder / "images").rename(folder / "pictures")
    for split in ("train", "val"):
        (folder / "labels" / split / f"{split}1.txt").rename(folder / "pictures" / split / f"{split}1.txt")
    (folder / "pictures" / "train" / "gone.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (folder / "labels" / "train" / "train2.TXT").write_text("")
    describe(folder, "train: pictures/train\nval: pictures/val\nnames: [cat, dog]\n")
    images = opened(folder)
    assert images.annotations(0).labels.tolist() == [1]
    assert str(images.left_out) == "1 file of labels without an image (pictures/train/gone.txt)"


def test_a_suffix_in_capitals_is_no_label_and_told(folder):
    (folder / "labels" / "train" / "train2.TXT").write_text("0 0.5 0.5 0.1 0.1\n")
    assert str(opened(folder).left_out) == "1 file of labels without an image (labels/train/train2.TXT)"


def test_labels_that_links_lead_nowhere_for_are_not_taken_for_none(folder):
    (folder / "labels" / "train" / "train2.txt").symlink_to("fetched-later.txt")
    with pytest.raises(InputError, match=r"file of labels that cannot be read \(labels/train/train2.txt"):
        open_annotated(str(folder))


def test_images_of_which_none_has_labels_are_refused(folder):
    (folder / "labels" / "train" / "train1.txt").unlink()
    with pytest.raises(InputError, match=r"none of the images of train has labels; .* in labels/train/train1.txt"):
        open_annotated(str(folder))


def test_images_of_too_many_objects_are_refused(folder):
    (folder / "labels" / "train" / "train2.txt").write_text(
        "".join(f"0 0.5 0.5 0.1 {share / 1e5}\n" for share in range(1, 25_002))
    )
    with pytest.raises(
        InputError, match=r"25,001 objects of an image with more than 25,000 \(labels/train/train2.txt:1"
    ):
        open_annotated(str(folder))


def test_unreadable_images_are_refused_by_name(folder):
    (folder / "images" / "train" / "train2.jpg").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"1 of 4 images cannot be read: .*train2.jpg"):
        open_annotated(str(folder))


def test_links_out_of_the_folder_are_refused(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.jpg"
    Image.new("RGB", (40, 20)).save(outside)
    (folder / "images" / "train" / "train3.jpg").symlink_to(outside)
    with pytest.raises(InputError, match=r"train3.jpg leads out of .* by a link"):
        open_annotated(str(folder))
    (folder / "images" / "train" / "train3.jpg").unlink()
    (folder / "labels" / "train" / "train2.txt").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match=r"train2.txt leads out of .* by a link"):
        open_annotated(str(folder))


def test_lists_that_lead_out_of_the_folder_are_refused(folder):
    describe(folder, "train: train.txt\nval: images/val\nnames: [cat, dog]\n")
    for path in ("/etc/passwd", "../x.jpg", "./../x.jpg"):
        (folder / "train.txt").write_text(path)
        with pytest.raises(InputError, match="leads out of"):
            open_annotated(str(folder))
