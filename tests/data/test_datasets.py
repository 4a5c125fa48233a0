import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from acmix import InputError
from acmix.data import export_digits, open_dataset, training_transform
from acmix.data.datasets import open_parts
from acmix.data.evaluation import DataRecord, data_record, open_evaluation
from tests.tables import write_table


def class_folders(root, **counts):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(root / name / f"{index}.png")
    return root


def test_one_folder_is_split_by_class_and_seed(tmp_path):
    root = class_folders(tmp_path / "data", ant=10, bee=20)
    opened = open_dataset(str(root))
    assert opened.was_split
    assert Counter(opened.validation.labels) == {0: 2, 1: 4}
    assert not set(opened.train.names) & set(opened.validation.names)
    assert len(opened.train) + len(opened.validation) == 30
    assert open_dataset(str(root)).validation.names == opened.validation.names
    assert open_dataset(str(root), seed=1).validation.names != opened.validation.names


def test_split_keeps_an_image_of_every_class_on_both_sides(tmp_path):
    root = class_folders(tmp_path / "data", ant=2, bee=40)
    for fraction in (0.01, 0.99):
        opened = open_dataset(str(root), val_fraction=fraction)
        assert set(opened.train.labels) == set(opened.validation.labels) == {0, 1}


@pytest.mark.parametrize("name", ["val", "validation", "Valid", "dev"])
def test_train_and_validation_folders(tmp_path, name):
    class_folders(tmp_path / "train", ant=3, bee=4)
    class_folders(tmp_path / name, ant=1, bee=2)
    opened = open_dataset(str(tmp_path))
    assert not opened.was_split
    assert (len(opened.train), len(opened.validation)) == (7, 3)
    image, label = opened.validation[0]
    assert (image.mode, label) == ("RGB", 0)


def test_validation_is_preferred_to_test(tmp_path):
    for name, count in (("train", 3), ("val", 1), ("test", 2)):
        class_folders(tmp_path / name, ant=count, bee=count)
    assert len(open_dataset(str(tmp_path)).validation) == 2


def test_test_images_are_neither_trained_on_nor_chosen_on(tmp_path):
    class_folders(tmp_path / "train", ant=10, bee=10)
    class_folders(tmp_path / "test", ant=3, bee=3)
    opened = open_dataset(str(tmp_path))
    assert opened.was_split
    files = [Path(image) for part in (opened.train, opened.validation) for image in part.images]
    assert len(files) == 20
    assert {file.relative_to(tmp_path).parts[0] for file in files} == {"train"}
    assert opened.taken == {
        "training": f"{tmp_path}/train: 16 images of 2 classes (ant, bee)",
        "validation": f"the images of {tmp_path}/train that training held out: 4 images, 0.2 of each class by seed 0",
        "left aside": f"{tmp_path}/test, test images: not trained on, not chosen on",
    }
    assert open_parts(str(tmp_path)).test is None
    assert len(open_parts(str(tmp_path), test=True).test) == 6


def test_a_test_folder_without_classes_is_left_out(tmp_path):
    class_folders(tmp_path / "train", ant=10, bee=10)
    class_folders(tmp_path, test=3)
    opened = open_dataset(str(tmp_path))
    assert (len(opened.train), len(opened.validation)) == (16, 4)
    assert opened.taken["left aside"] == f"{tmp_path}/test, test images: not trained on, not chosen on"
    assert open_parts(str(tmp_path), test=True).test is None


@pytest.mark.parametrize("names", [("Training", "Testing"), ("training_set", "TEST_SET"), ("seg_train", "seg_test")])
def test_splits_are_no_classes(tmp_path, names):
    for name in names:
        class_folders(tmp_path / name, ant=10, bee=10)
    opened = open_dataset(str(tmp_path))
    assert opened.train.classes == ("ant", "bee")
    assert (len(opened.train), len(opened.validation)) == (16, 4)


def test_a_class_may_be_called_train(tmp_path):
    opened = open_dataset(str(class_folders(tmp_path, car=5, plane=5, train=5)))
    assert opened.train.classes == ("car", "plane", "train")


def test_validation_may_lack_classes(tmp_path):
    class_folders(tmp_path / "train", ant=3, bee=4, cat=2)
    class_folders(tmp_path / "val", bee=2, ant=0)
    opened = open_dataset(str(tmp_path))
    assert opened.validation.classes == ("ant", "bee", "cat")
    assert list(opened.validation.labels) == [1, 1]
    assert opened.taken["validation"] == f"{tmp_path}/val: 2 images, none of 2 classes (ant, cat)"


def test_one_class_in_two_unicode_forms(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    class_folders(tmp_path / "train", **{composed: 3, "tea": 3})
    class_folders(tmp_path / "val", **{decomposed: 2, "tea": 1})
    opened = open_dataset(str(tmp_path))
    assert opened.train.classes == opened.validation.classes == (composed, "tea")
    assert list(opened.validation.labels) == [0, 0, 1]
    class_folders(tmp_path / "train", **{decomposed: 1})
    with pytest.raises(InputError, match=r"several Unicode forms: 'cafe\\u0301', 'caf\\xe9'; join them"):
        open_dataset(str(tmp_path))


def test_names_that_are_not_utf8(tmp_path):
    class_folders(tmp_path, **{os.fsdecode(b"caf\xe9"): 10, "tea": 10})
    opened = open_dataset(str(tmp_path))
    assert opened.train.classes == (r"caf\xe9", "tea")
    assert all(name.encode() for name in opened.train.names)
    assert opened.train.read(0)[1] == 0
    assert (
        open_evaluation(str(tmp_path), opened.train.classes, DataRecord.of(opened, val_fraction=0.2, seed=0)).names
        == opened.validation.names
    )


def test_what_is_left_out_is_counted(tmp_path):
    class_folders(tmp_path / "train", ant=5, bee=5)
    class_folders(tmp_path / "val", ant=1, bee=1)
    for name in ("train/.DS_Store", "train/ant/._0.png", "train/ant/notes.txt", "val/Thumbs.db", "val/bee/b.txt"):
        (tmp_path / name).touch()
    Image.new("RGB", (8, 8)).save(tmp_path / "val" / "loose.png")
    (tmp_path / "train" / "bee" / "gone.png").symlink_to("nowhere")
    (tmp_path / "train" / "bee" / "loop").symlink_to("..")
    parts = open_parts(str(tmp_path))
    assert (len(parts.train), len(parts.validation)) == (10, 2)
    assert parts.left_out.counts == {
        "hidden": 3,
        "file ending in .txt": 2,
        "image in no class folder": 1,
        "link to nothing": 1,
        "link to a folder above it": 1,
    }
    assert "1 link to nothing (train/bee/gone.png)" in str(parts.left_out)
    assert open_dataset(str(tmp_path)).taken["left out"] == str(parts.left_out)


def test_hidden_folders_are_no_classes(tmp_path):
    class_folders(tmp_path, ant=3, bee=3)
    (tmp_path / ".cache").mkdir()
    assert open_dataset(str(tmp_path)).train.classes == ("ant", "bee")


@pytest.mark.parametrize(
    ("folders", "rule"),
    [
        ({"train": {"ant": 2, "bee": 2}}, "none of val/"),
        ({"val": {"ant": 2, "bee": 2}}, "no train/"),
        ({"train": {"ant": 2, "bee": 2}, "val": {"ant": 1, "cat": 1}}, "only in train/: bee; only in val/: cat"),
        ({"train": {"ant": 2, "bee": 0}, "val": {"ant": 1, "bee": 1}}, "without images: bee"),
        ({".": {"ant": 5}}, "one class"),
        ({".": {}}, "no class folders"),
        ({".": {"ant": 5, "bee": 1}}, "too few images to split.*: bee"),
        (
            {"train": {"a": 1, "b": 1}, "val": {"a": 1, "b": 1}, "validation": {"a": 1, "b": 1}},
            "both val/ and validation/",
        ),
        ({"Train": {"a": 1, "b": 1}, "train": {"a": 1, "b": 1}}, "both Train/ and train/"),
        ({"train": {"a": 2, "b": 2}, "val": {"a": 0, "b": 0}}, "val holds no images"),
        ({".": {"train": 2, "test": 2}}, "has test/ and train/ with images but without class folders"),
        ({"images/train": {"a": 2, "b": 2}, "images/val": {"a": 2}}, "images holds train/ and val/, splits within"),
        ({"cat": {"train": 2, "val": 2}, "dog": {"train": 2}}, "cat holds train/ and val/, splits within a class"),
        ({"train": {"steam": 2, "diesel": 2}, ".": {"plane": 2}}, "beside plane/, which holds images as a class does"),
        ({"only": {"ant": 2, "bee": 2}}, "one class, 'only'; .*if they are ant, bee, give .*only"),
    ],
)
def test_unusable_folders(tmp_path, folders, rule):
    for name, counts in folders.items():
        class_folders(tmp_path / name, **counts)
    with pytest.raises(InputError, match=rule):
        open_dataset(str(tmp_path))


def test_missing_path_and_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_dataset(str(tmp_path / "absent"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        open_dataset(str(tmp_path / "file"))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_fraction_out_of_range(fraction):
    with pytest.raises(InputError, match="val_fraction must lie between 0 and 1"):
        open_dataset("digits", val_fraction=fraction)


def test_unreadable_image_is_named_unless_the_check_is_off(tmp_path):
    class_folders(tmp_path, ant=3, bee=3)
    (tmp_path / "ant" / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"1 of 6 images cannot be read: .*ant/0\.png"):
        open_dataset(str(tmp_path))
    assert len(open_dataset(str(tmp_path), check_images=False).train) == 4


def test_digits():
    opened = open_dataset("digits")
    assert len(opened.train) + len(opened.validation) == 1797
    assert len(opened.validation) == pytest.approx(1797 / 5, abs=5)
    image, label = opened.train[0]
    assert (image.mode, image.size) == ("RGB", (8, 8))
    assert opened.train.names[0].startswith(f"{opened.train.classes[label]}/")


def test_mnist5k():
    opened = open_dataset("mnist5k")
    assert (len(opened.train), len(opened.validation)) == (4000, 1000)
    assert opened.location == "mnist5k"
    assert Counter(opened.validation.labels) == dict.fromkeys(range(10), 100)
    image, label = opened.train[0]
    assert (image.size, image.mode, label) == ((28, 28), "RGB", 0)


def of_eight_pixels():
    mean, std = (0.0,) * 3, (1.0,) * 3
    preprocessing = {"input_size": (3, 8, 8), "interpolation": "bilinear", "mean": mean, "std": std}
    return preprocessing | {"crop_pct": 1.0, "crop_mode": "center"}


def test_augmentation_may_be_as_weak_as_is_wanted():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(8, 8, 3, generator=generator).mul(255).byte().numpy()
    image, preprocessing = Image.fromarray(pixels), of_eight_pixels()
    plain = training_transform(preprocessing, smallest_crop=1.0, flip=0.0, color_jitter=0.0)(image)
    expected = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    torch.testing.assert_close(plain, expected)
    mirrored = training_transform(preprocessing, smallest_crop=1.0, flip=1.0, color_jitter=0.0)(image)
    torch.testing.assert_close(mirrored, expected.flip(-1))
    # Digits, too, where they are asked for.
    assert training_transform(preprocessing, digits=True, flip=1.0).transforms[1].p == 1
    assert training_transform(preprocessing, digits=True, smallest_crop=0.5).transforms[0].scale == (0.5, 1.0)
    assert training_transform(preprocessing).transforms[0].scale == (0.08, 1.0)


def test_digits_are_never_mirrored():
    preprocessing = of_eight_pixels()
    image = Image.new("RGB", (8, 8))
    for row in range(8):
        image.putpixel((0, row), (255, 255, 255))
    for _ in range(40):
        pixels = training_transform(preprocessing, digits=True)(image)
        assert pixels[..., -3:].max() == 0
    mirrored = [training_transform(preprocessing)(image)[..., -1].max() > 0 for _ in range(40)]
    assert any(mirrored)


def test_export_writes_held_out_digits(tmp_path):
    held_out = open_dataset("digits").validation
    known = {image.tobytes() for image in held_out.images}
    written = export_digits(tmp_path / "new" / "folder", count=12)
    assert len(written) == 12
    assert {path.stem[-1] for path in written} == set("0123456789")
    for path in written:
        with Image.open(path) as image:
            assert image.tobytes() in known
    with pytest.raises(InputError, match="count must lie between"):
        export_digits(tmp_path, count=0)


def test_evaluation_takes_the_held_out_part_of_the_training_data(tmp_path):
    root = class_folders(tmp_path / "data", ant=10, bee=10)
    opened = open_dataset(str(root))
    record = DataRecord.of(opened, val_fraction=0.2, seed=0)
    assert open_evaluation(str(root), ("ant", "bee"), record).names == opened.validation.names
    moved = root.rename(tmp_path / "moved")
    assert open_evaluation(str(moved), ("ant", "bee"), record).names == opened.validation.names


def test_evaluation_refuses_changed_training_data(tmp_path):
    root = class_folders(tmp_path / "data", ant=10, bee=10)
    record = DataRecord.of(open_dataset(str(root)), val_fraction=0.2, seed=0)
    (root / "ant" / "3.png").unlink()
    with pytest.raises(InputError, match="changed since training"):
        open_evaluation(str(root), ("ant", "bee"), record)


def test_evaluation_takes_other_folders_whole_and_maps_labels(tmp_path):
    record = DataRecord.of(open_dataset("digits"), val_fraction=0.2, seed=0)
    root = class_folders(tmp_path, bee=3, cat=2)
    images = open_evaluation(str(root), ("cat", "ant", "bee"), record)
    assert list(images.labels) == [2, 2, 2, 0, 0]
    assert images.classes == ("cat", "ant", "bee")
    with pytest.raises(InputError, match="does not know: cat"):
        open_evaluation(str(root), ("ant", "bee"), record)


def test_evaluation_takes_val_of_a_training_folder(tmp_path):
    class_folders(tmp_path / "train", ant=3, bee=4)
    class_folders(tmp_path / "val", ant=1, bee=2)
    record = DataRecord.of(open_dataset(str(tmp_path)), val_fraction=0.2, seed=0)
    assert len(open_evaluation(str(tmp_path), ("ant", "bee"), record)) == 3


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (None, "does not say which data"),
        ({}, "does not say which data"),
        ({"seed": 0}, "damaged: location, was_split, val_fraction, fingerprint missing"),
        ([3], r"damaged: it must be an object, got \[3\]"),
    ],
)
def test_malformed_data_record(data, rule):
    with pytest.raises(InputError, match=rule):
        data_record({"data": data})


def test_transform_is_applied():
    images = open_dataset("digits").validation.with_transform(lambda image: torch.tensor(image.size))
    assert images[0][0].tolist() == [8, 8]


def test_a_table_of_single_labels_may_be_multi_label(tmp_path):
    rows = [f"{index}.png,{'ant' if index % 2 else 'bee'}" for index in range(8)]
    write_table(tmp_path / "labels.csv", "\n".join(["image,label", *rows]), [f"{index}.png" for index in range(9)])
    assert not open_dataset(str(tmp_path)).train.multi_label
    opened = open_dataset(str(tmp_path), multi_label=True)
    assert opened.train.multi_label
    assert opened.validation.multi_label
    assert opened.taken["left out"] == "1 image that no row names (8.png)"


def test_class_folders_are_not_multi_label(tmp_path):
    root = class_folders(tmp_path / "data", ant=10, bee=10)
    with pytest.raises(InputError, match="gives every image one class; leave it out, or write such a table"):
        open_dataset(str(root), multi_label=True)


def test_images_of_a_test_table_are_somebodys(tmp_path):
    names = [f"{index}.png" for index in range(9)]
    for part, own in (("train", names[:5]), ("val", names[5:7]), ("test", names[7:8])):
        rows = [f"{name},{'ant' if int(name[0]) % 2 else 'bee'}" for name in own]
        write_table(tmp_path / f"{part}.csv", "\n".join(["image,label", *rows]), names, folder=tmp_path / "images")
    assert not open_parts(str(tmp_path)).left_out.counts
    assert str(open_parts(str(tmp_path), test=True).left_out) == "1 image that no row names (8.png)"
