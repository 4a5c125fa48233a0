import io
import json
import os
import tarfile
from types import SimpleNamespace

import pytest
from PIL import Image
from timm.data.readers import reader_wds

from acmix import InputError
from acmix.data import Digits, EncodedImage, ImageSource, LabelledImages, open_dataset
from acmix.data import writing as module
from acmix.data.shards import list_folder, open_shards
from acmix.data.writing import check_outside, write_shards

SIZES = {"train": 25, "validation": 7}


def parts(seed=0):
    train, validation = Digits().split(0.2, seed)
    return {"train": train.subset(range(25)), "validation": validation.subset(range(7))}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_hold_every_image_as_it_was(tmp_path):
    source = parts()
    written = write_shards(source, tmp_path / "new" / "out", images_per_shard=10)
    assert {name: (split.shards, split.images) for name, split in written.items()} == {
        "train": (3, 25),
        "validation": (1, 7),
    }
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    data = open_dataset(str(tmp_path / "new" / "out"))
    assert data.train.shard_lengths == (10, 10, 5)
    assert data.train.classes == source["train"].classes
    for name, images in (("train", data.train), ("validation", data.validation)):
        before = sorted((source[name].encoded(i).content, source[name].labels[i]) for i in range(SIZES[name]))
        after = [(images.encoded(i).content, images.read(i)[1]) for i in range(len(images))]
        assert sorted(after) == before
        assert after != before


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_shards(parts(), tmp_path / name, images_per_shard=10, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a")["train-000000.tar"] != contents(tmp_path / "c")["train-000000.tar"]
    assert contents(tmp_path / "a")["_info.json"] == contents(tmp_path / "c")["_info.json"]


def test_timm_reads_them(tmp_path):
    source = parts()
    write_shards(source, tmp_path / "out", images_per_shard=10)
    info = json.loads((tmp_path / "out" / "_info.json").read_text())
    split = reader_wds._parse_split_info("train", info)
    assert (split.name, split.num_samples, sum(split.shard_lengths)) == ("train", 25, 25)
    seen = []
    for file in split.filenames:
        with tarfile.open(tmp_path / "out" / file) as archive:
            members = [(member.name, archive.extractfile(member).read()) for member in archive]
        # What webdataset makes of a tar file: samples of adjacent members with one key.
        for (image, content), (label, digits) in zip(members[::2], members[1::2], strict=True):
            assert image.partition(".")[0] == label.partition(".")[0]
            assert (image.partition(".")[2], label.partition(".")[2]) == ("png", "cls")
            with Image.open(io.BytesIO(content)) as decoded:
                seen.append((decoded.tobytes(), int(digits)))
    assert sorted(seen) == sorted((source["train"].read(i)[0].tobytes(), source["train"].labels[i]) for i in range(25))


class Encoded(ImageSource):
    classes = ("ant", "bee")

    def __init__(self, *stored):
        self.stored = stored

    def __len__(self):
        return len(self.stored)

    def name(self, index):
        return f"image {index}"

    def encoded(self, index):
        if self.stored[index] is None:
            raise InputError(f"image {index}: cannot be read")
        return EncodedImage(*self.stored[index], 0)

    def fingerprint(self):
        return ""


def encoded(kind):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    return file.getvalue()


def test_suffixes_are_those_that_timm_looks_for(tmp_path):
    jpeg = encoded("JPEG")
    source = Encoded((jpeg, ".jpeg"), (jpeg, ""), (jpeg, ".jpg"), (encoded("WEBP"), ""), (encoded("PNG"), ".x"))
    write_shards({"train": source}, tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as archive:
        names = [name for name in archive.getnames() if not name.endswith(".cls")]
    assert sorted(name.partition(".")[2] for name in names) == ["jpg", "jpg", "jpg", "png", "webp"]


@pytest.mark.parametrize(
    ("stored", "rule"),
    [
        (None, "image 1: cannot be read"),
        ((b"no image", ""), "image 1: not a readable image"),
    ],
)
def test_nothing_is_left_where_an_image_cannot_be_written(tmp_path, stored, rule):
    with pytest.raises(InputError, match=rule):
        write_shards({"train": Encoded((b"", ".png"), stored)}, tmp_path / "out", images_per_shard=1)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def stop(*arguments):
        if len(list(tmp_path.glob(".acmix-*/train-*.tar"))) == 1:
            raise KeyboardInterrupt
        return suffix(*arguments)

    suffix = module._suffix
    monkeypatch.setattr(module, "_suffix", stop)
    with pytest.raises(KeyboardInterrupt):
        write_shards(parts(), tmp_path / "out", images_per_shard=10)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_is_swept_by_the_next(tmp_path):
    (tmp_path / ".acmix-0.partial").mkdir()
    (tmp_path / ".acmix-0.partial" / "train-000000.tar").write_bytes(b"half")
    write_shards(parts(), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_unusable_outputs(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for output, rule in (
        ("full", "must be a new or empty folder"),
        ("full/file", "must be a new or empty folder"),
        ("full/file/out", "cannot be written: Not a directory"),
    ):
        with pytest.raises(InputError, match=rule):
            write_shards(parts(), tmp_path / output)
    with pytest.raises(InputError, match="images_per_shard must be at least 1, got 0"):
        write_shards(parts(), tmp_path / "out", images_per_shard=0)
    (tmp_path / "empty").mkdir()
    write_shards(parts(), tmp_path / "empty")
    assert (tmp_path / "empty" / "_info.json").is_file()


def test_nothing_is_written_into_what_is_read_whatever_the_way(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for output in ("data/out", "link/out", "other/../data/out", "data"):
        with pytest.raises(InputError, match="is read; give a folder outside of it"):
            check_outside(tmp_path / output, str(tmp_path / "data"))
    check_outside(tmp_path / "out", str(tmp_path / "data"))


def test_what_is_written_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "read_index", lambda *_: SimpleNamespace(labels=[0]))
    with pytest.raises(InputError, match="reads back with other labels"):
        write_shards({"train": LabelledImages("ab", [Image.new("RGB", (2, 2))] * 2, [0, 1], "pq")}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_files_of_any_name_and_format_are_read_back(tmp_path):
    names = [b"a.b.jpg", b"a.jpg", b"caf\xe9.JPG", b"c d.v2.PNG", b"\xff.gif", b"line\nbreak.png", b"e.jfif", b"f.avif"]
    files = [tmp_path / os.fsdecode(name) for name in names]
    for number, file in enumerate(files):
        kind = {".png": "PNG", ".gif": "GIF", ".avif": "AVIF"}.get(file.suffix.lower(), "JPEG")
        with file.open("wb") as opened:
            Image.new("L", (4, 4), 10 * number).save(opened, kind)
    labels = [number % 2 for number in range(len(names))]
    images = LabelledImages([file.name for file in files], files, labels, ["p", "q"])
    write_shards({"train": images}, tmp_path / "out", images_per_shard=3)
    written = open_shards({"train": list_folder(str(tmp_path / "out"))["train"]})["train"]
    before = sorted((images.encoded(i).content, images.classes[images.encoded(i).label]) for i in range(len(images)))
    after = sorted((written.encoded(i).content, written.classes[written.encoded(i).label]) for i in range(len(images)))
    assert after == before
    assert {written.encoded(index).suffix for index in range(len(written))} == {".jpg", ".png", ".gif", ".avif"}
    assert len({images.read(index)[0].getpixel((0, 0)) for index in range(len(images))}) == len(images)
    assert all(written.read(index)[0].size == (4, 4) for index in range(len(written)))
