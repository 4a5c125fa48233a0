"""Images in shards: random access, classes, data sets made of them."""

import json
import os
import pickle
from dataclasses import replace

import pytest
import torch
from PIL import Image

from acmix import InputError
from acmix.data import ImageSource, data_record, image_loader, open_dataset, open_evaluation
from acmix.data.evaluation import DataRecord
from acmix.data.shards import ShardedImages, list_pattern, open_shards
from acmix.data.shards import source as module
from tests.shards import png, write_shard, write_tar, write_three


def opened(pattern):
    return open_shards({"train": list_pattern(pattern)})["train"]


def reds(images, indices):
    return [images.read(index)[0].getpixel((0, 0))[0] for index in indices]


def red(image):
    return torch.tensor(image.getpixel((0, 0))[0])


def test_random_access(tmp_path):
    images = opened(write_three(tmp_path))
    assert isinstance(images, ImageSource)
    assert (len(images), images.shard_lengths, images.classes) == (9, (3, 2, 4), ("0", "1", "2"))
    assert reds(images, [8, 0, 4, 3, 2, 5]) == [8, 0, 4, 3, 2, 5]
    assert [images.read(index)[1] for index in range(9)] == [0, 1, 2, 1, 1, 2, 0, 0, 1]
    assert images.name(4) == "train-1.tar/0004"
    assert images.encoded(4).suffix == ".png"
    assert images.encoded(4).content == png(4)
    for index in (-1, 9):
        with pytest.raises(IndexError):
            images.read(index)


def test_names_differ_where_files_have_one_name(tmp_path):
    for part in ("a", "b"):
        write_shard(tmp_path / part / "0.tar", [0, 1])
    images = opened(f"{tmp_path}/{{a,b}}/0.tar")
    assert len({images.name(index) for index in range(4)}) == 4


def test_few_shards_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_OPEN_SHARDS", 2)
    images = opened(write_three(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    assert reds(images, range(9)) == list(range(9))
    assert reds(images, [0, 8, 0, 8, 4]) == [0, 8, 0, 8, 4]
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del images
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_workers_read_what_is_open_in_the_parent(tmp_path):
    images = opened(write_three(tmp_path))
    images.read(0)
    loader = image_loader(images.with_transform(red), batch_size=4, workers=2, multiprocessing_context="fork")
    assert [value for batch, _ in loader for value in batch.tolist()] == list(range(9))


def test_pickled_sources_read_the_same(tmp_path):
    images = opened(write_three(tmp_path))
    images.read(0)
    twin = pickle.loads(pickle.dumps(images))  # noqa: S301
    assert reds(twin, range(9)) == list(range(9))
    assert twin.fingerprint() == images.fingerprint()


def test_fingerprint_tells_other_images_and_not_other_places(tmp_path):
    first = opened(write_three(tmp_path / "a")).fingerprint()
    assert opened(write_three(tmp_path / "b")).fingerprint() == first
    write_shard(tmp_path / "b" / "train-0.tar", [0, 1, 1])
    assert opened(f"{tmp_path}/b/train-{{0..2}}.tar").fingerprint() != first


def test_a_damaged_image_is_named_and_the_others_read(tmp_path):
    members = [("a.png", png(1)), ("a.cls", b"0"), ("b.png", b"no image"), ("b.cls", b"1")]
    images = opened(str(write_tar(tmp_path / "s.tar", members)))
    with pytest.raises(InputError, match=r"^s\.tar/b: not a readable image"):
        images.read(1)
    assert reds(images, [0]) == [1]


def test_what_the_info_file_says_is_held_against_the_shards(tmp_path):
    write_shard(tmp_path / "s.tar", [0, 5])
    images = ShardedImages([str(tmp_path / "s.tar")], [3], ["ant", "bee"])
    with pytest.raises(InputError, match=r"s\.tar holds 2 images, 3 were expected"):
        images.read(0)
    images = ShardedImages([str(tmp_path / "s.tar")], [2], ["ant", "bee"])
    assert images.read(0)[1] == 0
    with pytest.raises(InputError, match=r"s\.tar/0001: its label 5 is none of the 2 classes"):
        images.read(1)
    os.truncate(tmp_path / "s.tar", 100)
    with pytest.raises(InputError, match=r"s\.tar/0000: cannot be read, .* was written anew since"):
        images.read(0)


def test_a_shard_that_is_written_anew_is_refused(tmp_path):
    labels, path = [0, 1, 1], tmp_path / "s.tar"
    write_shard(path, labels)
    images = opened(str(path))
    assert images.read(0)[1] == 0
    size, before = path.stat().st_size, path.stat().st_mtime_ns
    write_shard(path, [1, 0, 0])
    # Times of some file systems are no finer than what a test takes.
    os.utime(path, ns=(before, before + 10**9))
    assert path.stat().st_size == size
    with pytest.raises(InputError, match=r"s\.tar/0000: cannot be read, .*s\.tar was written anew since"):
        images.read(0)


def named_shard(path, names):
    members = [
        member
        for number, name in enumerate(names)
        for member in ((f"{number}.txt", name.encode()), (f"{number}.png", png(number)))
    ]
    return write_tar(path, members)


def test_classes_are_the_names_that_shards_give(tmp_path):
    named_shard(tmp_path / "a.tar", ["cat", "ant"])
    named_shard(tmp_path / "b.tar", ["bee"])
    images = opened(f"{tmp_path}/{{a,b}}.tar")
    assert images.classes == ("ant", "bee", "cat")
    assert [images.read(index)[1] for index in range(3)] == [2, 0, 1]
    write_shard(tmp_path / "b.tar", [0])
    with pytest.raises(InputError, match="some labels are numbers and some are names"):
        opened(f"{tmp_path}/{{a,b}}.tar")
    named_shard(tmp_path / "b.tar", ["ant"])
    with pytest.raises(InputError, match="the shards hold 1 classes, at least two"):
        opened(f"{tmp_path}/b.tar")
    write_tar(tmp_path / "b.tar", [])
    with pytest.raises(InputError, match="classes, at least two"):
        opened(f"{tmp_path}/b.tar")


def test_images_that_are_fields_of_a_sample_are_counted(tmp_path):
    suffixes = {"png": png(), "cls": b"1", "mask.png": png(), "edge.png": png()}
    members = [(f"{key}.{suffix}", content) for key in "abc" for suffix, content in suffixes.items()]
    images = opened(str(write_tar(tmp_path / "s.tar", members)))
    assert len(images) == 3
    assert str(images.left_out) == "6 images among the fields of a sample (s.tar/a.mask.png, ...)"
    assert str(opened(write_three(tmp_path)).left_out) == ""


def test_a_pattern_needs_validation_images(tmp_path):
    pattern = write_three(tmp_path)
    with pytest.raises(InputError, match=r"has no validation images.*give validation \(--validation\)"):
        open_dataset(pattern)
    write_shard(tmp_path / "held" / "out.tar", [0, 4])
    data = open_dataset(pattern, validation=f"{tmp_path}/held/out.tar")
    assert not data.was_split
    assert (data.location, data.validation_location) == (pattern, f"{tmp_path}/held/out.tar")
    # No list of classes lies beside either: the highest label of both counts.
    assert data.train.classes == data.validation.classes == ("0", "1", "2", "3", "4")


def test_a_folder_with_the_info_file(tmp_path):
    write_three(tmp_path)
    write_shard(tmp_path / "validation-0.tar", [2, 1])
    split = {"filenames": [f"train-{number}.tar" for number in range(3)], "shard_lengths": [3, 2, 4]}
    info = {"train": split, "validation": {"filenames": ["validation-0.tar"], "shard_lengths": [2]}}
    (tmp_path / "_info.json").write_text(json.dumps({"splits": info, "classes": ["ant", "bee", "cat"]}))
    data = open_dataset(str(tmp_path))
    assert (len(data.train), len(data.validation), data.validation_location) == (9, 2, None)
    images = open_evaluation(str(tmp_path), ("cat", "bee", "ant"), DataRecord.of(data, val_fraction=0.2, seed=0))
    assert [images.read(index)[1] for index in range(2)] == [0, 1]
    assert images.shard_lengths == (2,)
    assert images.with_transform(red)[1][0] == 1
    with pytest.raises(InputError, match="does not know: ant"):
        open_evaluation(str(tmp_path), ("cat", "bee"), DataRecord.of(data, val_fraction=0.2, seed=0))


def test_folders_of_shards_named_train_and_val(tmp_path):
    write_three(tmp_path / "train")
    write_shard(tmp_path / "val" / "0.tar", [1])
    data = open_dataset(str(tmp_path))
    assert (len(data.train), len(data.validation), data.validation.classes) == (9, 1, ("0", "1", "2"))


def test_shards_beside_class_folders(tmp_path):
    for name in ("1", "0", "2"):
        (tmp_path / "folders" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "folders" / name / "image.png")
    pattern = write_three(tmp_path)
    data = open_dataset(pattern, validation=str(tmp_path / "folders"))
    assert list(data.validation.names) == ["0/image.png", "1/image.png", "2/image.png"]
    images = open_evaluation(str(tmp_path / "folders"), ("2", "1", "0"), DataRecord.of(data, val_fraction=0.2, seed=0))
    assert [images.read(index)[1] for index in range(3)] == [2, 1, 0]
    (tmp_path / "folders" / "bee").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "folders" / "bee" / "image.png")
    with pytest.raises(InputError, match="classes that the training images have not: bee"):
        open_dataset(pattern, validation=str(tmp_path / "folders"))


def test_evaluation_never_takes_the_trained_shards(tmp_path):
    pattern = write_three(tmp_path)
    held_out = str(write_shard(tmp_path / "held" / "out.tar", [0, 1]))
    data = open_dataset(pattern, validation=held_out)
    assert len(open_evaluation(pattern, data.train.classes, DataRecord.of(data, val_fraction=0.2, seed=0))) == 2
    with pytest.raises(InputError, match="is what the checkpoint was trained on"):
        open_evaluation(
            pattern,
            data.train.classes,
            replace(DataRecord.of(data, val_fraction=0.2, seed=0), validation_location=None),
        )


def test_records_of_older_checkpoints_are_read():
    old = {"location": "digits", "was_split": True, "val_fraction": 0.2, "seed": 0, "fingerprint": "abc"}
    assert data_record({"data": old}) == DataRecord(**old)
    for wrong in ({"seed": True}, {"validation_location": 3}):
        with pytest.raises(InputError, match=f"damaged: {next(iter(wrong))}"):
            data_record({"data": old | wrong})
    with pytest.raises(InputError, match="damaged: age unknown"):
        data_record({"data": old | {"age": 1}})
