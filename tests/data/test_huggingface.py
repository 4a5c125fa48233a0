import gc
import hashlib
import io
import json
import pickle

import datasets
import pytest
import torch
from PIL import Image

from acmix import InputError
from acmix.data import HuggingFaceImages, image_loader, open_dataset, open_evaluation
from acmix.data.evaluation import DataRecord


@pytest.fixture(autouse=True)
def _no_progress_bars():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def png(red):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (red, 0, 0)).save(file, "PNG")
    return file.getvalue()


def table(labels, kind=None, paths=None, **columns):
    images = [{"bytes": png(red), "path": path} for red, path in enumerate(paths or [None] * len(labels))]
    kind = kind or datasets.ClassLabel(names=["ant", "bee"])
    features = {"image": datasets.Image(), "label": kind} | {
        name: datasets.Value("int64") for name, values in columns.items()
    }
    return datasets.Dataset.from_dict(
        {"image": images, "label": labels} | columns, features=datasets.Features(features)
    )


def saved(folder, content):
    # With one shard old versions do not divide by the number of rows to find how many.
    shards = None if isinstance(content, datasets.DatasetDict) else 1
    content.save_to_disk(str(folder), num_shards=shards)
    return str(folder)


def red(image):
    return torch.tensor(image.getpixel((0, 0))[0])


def test_splits(tmp_path):
    parts = {"train": table([0, 1, 1], size=[1, 2, 3]), "test": table([1]), "validation": table([1, 0])}
    data = open_dataset(saved(tmp_path / "set", datasets.DatasetDict(parts)))
    assert (len(data.train), len(data.validation), data.was_split) == (3, 2, False)
    assert data.train.classes == ("ant", "bee")
    assert data.validation.name(1) == "validation/1"
    assert data.validation.encoded(1).content == png(1)
    image, label = data.train.read(2)
    assert (image.mode, image.getpixel((0, 0)), label) == ("RGB", (2, 0, 0), 1)
    images = open_evaluation(str(tmp_path / "set"), ("bee", "ant"), DataRecord.of(data, val_fraction=0.2, seed=0))
    assert [images.read(index)[1] for index in range(2)] == [0, 1]


def test_parts_are_known_by_their_usual_names(tmp_path):
    named = saved(tmp_path / "named", datasets.DatasetDict(Training=table([0, 1] * 3), dev=table([0, 1, 1])))
    assert [len(part) for part in (open_dataset(named).train, open_dataset(named).validation)] == [6, 3]
    with_test = saved(tmp_path / "test", datasets.DatasetDict(train=table([0, 1] * 5), test=table([0, 1])))
    data = open_dataset(with_test)
    assert data.was_split
    assert {data.validation.name(index)[:6] for index in range(len(data.validation))} == {"train/"}
    twice = saved(tmp_path / "twice", datasets.DatasetDict(train=table([0, 1]), val=table([0]), valid=table([1])))
    with pytest.raises(InputError, match="both val and valid"):
        open_dataset(twice)


def test_parts_of_other_names_are_not_passed_over(tmp_path):
    content = datasets.DatasetDict(train=table([0, 1] * 3), extra=table([0, 1]))
    with pytest.raises(InputError, match="has the parts train, extra, none of them called val or validation"):
        open_dataset(saved(tmp_path / "set", content))
    alone = saved(tmp_path / "alone", datasets.DatasetDict(train=table([0, 1] * 3)))
    data = open_dataset(alone)
    assert (data.was_split, data.train.name(0)[:6]) == (True, "train/")
    assert len(open_dataset(alone, validation=saved(tmp_path / "other", table([1, 0]))).validation) == 2


def test_a_single_table_is_split_by_class_and_row(tmp_path):
    path = saved(tmp_path / "set", table([0, 1] * 10, paths=[f"{number}.PNG" for number in range(20)]))
    data = open_dataset(path)
    assert data.was_split
    assert (len(data.train), sorted(data.validation.labels)) == (16, [0, 0, 1, 1])
    names = [{part.name(index) for index in range(len(part))} for part in (data.train, data.validation)]
    assert names[0] | names[1] == {str(row) for row in range(20)}
    assert not names[0] & names[1]
    assert data.train.encoded(3).suffix == ".png"
    held_out = open_evaluation(path, ("ant", "bee"), DataRecord.of(data, val_fraction=0.2, seed=0))
    assert [held_out.name(index) for index in range(4)] == [data.validation.name(index) for index in range(4)]
    (tmp_path / "set").rename(tmp_path / "moved")
    assert open_dataset(str(tmp_path / "moved")).fingerprint == data.fingerprint


def test_rows_take_no_object_each():
    labels = [row % 3 for row in range(500)]
    part = HuggingFaceImages(table([]), "train", "image", labels, "abc", rows=range(499, -1, -1)).subset(
        range(0, 500, 2)
    )
    assert [(part.name(index), part.labels[index]) for index in range(250)] == [
        (f"train/{row}", row % 3) for row in range(499, 0, -2)
    ]
    assert sum(len(gc.get_referents(values)) for values in (part.rows, part.labels)) < 5
    whole = HuggingFaceImages(table([]), "", "image", [1, 0], "ab")
    rows = HuggingFaceImages(table([]), "", "image", [1, 0], "ab", rows=[0, 1])
    assert whole.fingerprint() == rows.fingerprint() == hashlib.sha256(b"([0, 1], [1, 0], ('a', 'b'), [])").hexdigest()


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_processes_read_the_table(tmp_path):
    images = open_dataset(saved(tmp_path / "set", table([0, 1] * 5)), val_fraction=0.2).train.with_transform(red)
    expected = [int(images[index][0]) for index in range(len(images))]
    loader = image_loader(images, batch_size=3, workers=2, multiprocessing_context="fork")
    assert [value for batch, _ in loader for value in batch.tolist()] == expected
    twin = pickle.loads(pickle.dumps(images))  # noqa: S301
    assert [int(twin[index][0]) for index in range(len(twin))] == expected


@pytest.mark.parametrize(
    ("kind", "labels", "classes"),
    [
        (datasets.Value("int64"), [2, 0, 2, 0, 1, 1], ("0", "1", "2")),
        (datasets.Value("string"), ["owl", "ant", "owl", "ant"], ("ant", "owl")),
    ],
)
def test_labels_without_class_names(tmp_path, kind, labels, classes):
    data = open_dataset(saved(tmp_path / "set", table(labels, kind)))
    assert data.train.classes == classes


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (lambda: table([0, -1, 1]), "column 'label' has no label in 1 of 3 rows"),
        (lambda: table([0, None], datasets.Value("int64")), "no label in 1 of 2 rows"),
        (lambda: table([0, -2], datasets.Value("int64")), "labels of -2 to 0 for 1 classes"),
        (lambda: table([0, 0], datasets.Value("int64")), "one class, '0'"),
        (lambda: table([0, 10**12], datasets.Value("int64")), "'label' has the label 1,000,000,000,000; labels count"),
        (lambda: table([]), "cannot be read|has no rows"),
        (lambda: table([0, 1]).remove_columns("label"), "needs one label column; it has none"),
        (lambda: table([0, 1]).remove_columns("image"), "needs one image column; it has none"),
        (
            lambda: table([0, 1], datasets.Value("int64"), fine=[1, 2]).rename_column("label", "coarse"),
            "needs one label column; it has coarse, fine; name one of them 'label'",
        ),
    ],
)
def test_unusable_tables(tmp_path, content, rule):
    path = saved(tmp_path / "set", content())
    with pytest.raises(InputError, match=rule):
        open_dataset(path)


def test_damaged_folders_and_rows(tmp_path):
    path = saved(tmp_path / "set", table([0, 1] * 3))
    (tmp_path / "set" / "data-00000-of-00001.arrow").write_bytes(b"no table")
    with pytest.raises(InputError, match=f"saved dataset {path} cannot be read"):
        open_dataset(path)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})
    images = [{"bytes": b"no image", "path": None}, None] * 2 + [{"bytes": png(0), "path": None}] * 2
    broken = datasets.Dataset.from_dict({"image": images, "label": [0, 0, 1, 1, 0, 1]}, features=features)
    train = open_dataset(saved(tmp_path / "broken", datasets.DatasetDict(train=broken, val=broken))).train
    with pytest.raises(InputError, match="^train/0: not a readable image"):
        train.read(0)
    with pytest.raises(InputError, match="^train/1: the row holds no image"):
        train.read(1)
    assert train.read(4)[1] == 0


def test_nothing_in_the_folder_is_run(tmp_path):
    path = saved(tmp_path / "set", table([0, 1] * 3))
    (tmp_path / "set" / "set.py").write_text("raise SystemExit('run')")
    info = tmp_path / "set" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"builder_name": "set"}))
    assert len(open_dataset(path).train) == 4
