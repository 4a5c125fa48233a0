"""Patterns of shards, the files beside them, and what is refused in a tar file."""

import io
import json
import os
import pathlib
import tarfile
import tempfile

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acmix import InputError
from acmix.data.shards import is_pattern, list_folder, list_pattern
from acmix.data.shards.index import read_index
from acmix.data.shards.urls import expand
from tests.shards import png, write_shard, write_tar


def index_of(path, json_key=None):
    with path.open("rb") as file:
        return read_index(file, str(path), json_key)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/d/a.tar", ["/d/a.tar"]),
        ("/d/a-{08..11}.tar", ["/d/a-08.tar", "/d/a-09.tar", "/d/a-10.tar", "/d/a-11.tar"]),
        ("/d/a-{8..10}.tar", ["/d/a-8.tar", "/d/a-9.tar", "/d/a-10.tar"]),
        ("/d/a-{000..4..2}.tar", ["/d/a-000.tar", "/d/a-002.tar", "/d/a-004.tar"]),
        ("s3://b/{x,yz}-{0..1}.tar", ["s3://b/x-0.tar", "s3://b/x-1.tar", "s3://b/yz-0.tar", "s3://b/yz-1.tar"]),
        ("/d/a.tar::http://h/{1..2}.tar", ["/d/a.tar", "http://h/1.tar", "http://h/2.tar"]),
        ("file:///d/a.tar", ["/d/a.tar"]),
    ],
)
def test_patterns(pattern, expected):
    assert is_pattern(pattern)
    assert expand(pattern) == expected


def test_list_of_urls(tmp_path):
    (tmp_path / "list.txt").write_text("a-{0..1}.tar\n\ns3://b/c.tar\n")
    assert expand(str(tmp_path / "list.txt")) == [f"{tmp_path}/a-0.tar", f"{tmp_path}/a-1.tar", "s3://b/c.tar"]
    fsspec.filesystem("memory").pipe("/lists/list.txt", b"a.tar\n/d/b.tar\n")
    assert expand("memory://lists/list.txt") == ["memory://lists/a.tar", "/d/b.tar"]
    (tmp_path / "list.txt").write_bytes(b"\xff")
    for name, rule in (("absent.txt", "does not exist"), ("list.txt", "not text")):
        with pytest.raises(InputError, match=rf"{name}.* {rule}"):
            expand(str(tmp_path / name))


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        ("a-{3..1}.tar", "must count upwards"),
        ("{a,a}.tar", "twice"),
        ("a.tar.gz::b.tar", "uncompressed files that end in .tar"),
        ("a.tar::", "names ''"),
    ],
)
def test_unusable_patterns(pattern, rule):
    with pytest.raises(InputError, match=rule):
        expand(pattern)


def info_of(**splits):
    return {
        "splits": {
            name: {
                "name": name,
                "num_samples": sum(lengths.values()),
                "filenames": list(lengths),
                "shard_lengths": list(lengths.values()),
            }
            for name, lengths in splits.items()
        }
    }


def test_info_file_of_timm(tmp_path):
    info = info_of(train={"t-0.tar": 3, "t-1.tar": 2}, validation={"v-0.tar": 4}) | {"classes": ["ant", "bee"]}
    (tmp_path / "_info.json").write_text(json.dumps(info))
    splits = list_folder(str(tmp_path))
    assert splits["train"].urls == (f"{tmp_path}/t-0.tar", f"{tmp_path}/t-1.tar")
    assert (splits["train"].lengths, splits["validation"].lengths) == ((3, 2), (4,))
    assert splits["train"].classes == ("ant", "bee")
    listing = list_pattern(f"{tmp_path}/t-{{1..1}}.tar")
    assert (listing.lengths, listing.classes) == ((2,), ("ant", "bee"))
    assert list_pattern(f"{tmp_path}/u.tar").lengths is None


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("{", "not JSON"),
        ("[]", r"info.json is no description of shards: it must be an object, got \[\]"),
        ("{}", "splits missing"),
        ('{"splits": {}}', "names no splits"),
        ('{"splits": {"train": 3}}', "splits.train must be an object, got 3"),
        ('{"splits": {"train": {"filenames": [], "shard_lengths": []}}}', "needs filenames and as many"),
        (
            json.dumps(info_of(train={"a.tar": True})),
            r"splits.train.shard_lengths\[0\] must be a whole",
        ),
        (json.dumps(info_of(train={"a.tar": 3}) | {"classes": "ant"}), "classes must be a list or null, got 'ant'"),
        (json.dumps(info_of(train={"/etc/a.tar": 3})), "no file in the folder"),
        (json.dumps(info_of(train={"../a.tar": 3})), "no file in the folder"),
        (json.dumps(info_of(train={"a.tar": -3})), "shard_lengths"),
        (json.dumps(info_of(train={"a.tar": 3}) | {"classes": ["ant", "ant"]}), "each once"),
    ],
)
def test_unusable_info_file(tmp_path, content, rule):
    (tmp_path / "info.json").write_text(content)
    with pytest.raises(InputError, match=rule):
        list_folder(str(tmp_path))


def test_folder_without_info_file(tmp_path):
    write_shard(tmp_path / "train-0.tar", [0])
    write_shard(tmp_path / "validation-0.tar", [0])
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    splits = list_folder(str(tmp_path))
    assert {name: len(split.urls) for name, split in splits.items()} == {"train": 1, "validation": 1}
    assert splits["train"].classes == ("ant", "bee")
    write_shard(tmp_path / "other.tar", [0])
    with pytest.raises(InputError, match="other.tar belongs to no split"):
        list_folder(str(tmp_path))


def test_samples_and_labels(tmp_path):
    image = png()
    members = [
        ("a/0001.cls", b" 7\n"),
        ("a/0001.PNG", image),
        ("a/0001.json", b'{"label": 3}'),
        ("b.jpg", image),
        ("b.json", b'{"label": 3, "width": 5}'),
        ("c.webp", image),
        ("c.txt", b"cat\n"),
        ("d.json", b'{"class_name": "dog"}'),
        ("d.jpeg", image),
        ("e.png", image),
        ("e.cls", b"1"),
        ("e.mask.png", image),
        ("e.weights.pth", b"never read"),
        (".hidden.png", image),
        ("g/h.v2.JPG", image),
        ("g/h.v2.cls", b"4"),
        ("notes", b"without a key"),
        ("f.pickle", b"never read"),
    ]
    index = index_of(write_tar(tmp_path / "s.tar", members))
    assert list(index.keys) == ["a/0001", "b", "c", "d", "e", "g/h.v2"]
    assert index.labels == [7, 3, "cat", "dog", 1, 4]
    assert index.suffixes == [".png", ".jpg", ".webp", ".jpeg", ".png", ".jpg"]
    content = (tmp_path / "s.tar").read_bytes()
    assert all(
        content[offset : offset + size] == image for offset, size in zip(index.offsets, index.sizes, strict=True)
    )
    members = [("a.png", image), ("a.cls", b"7"), ("a.json", b'{"label": 3, "fine": 9}')]
    assert index_of(write_tar(tmp_path / "s.tar", members), "fine").labels == [9]
    with pytest.raises(InputError, match="an entry 'coarse' of its .json"):
        index_of(tmp_path / "s.tar", "coarse")


@pytest.mark.parametrize(
    ("members", "rule"),
    [
        ([("a.png", b"")], r"'a' is missing, expected .cls"),
        ([("a.cls", b"1")], "'a' has 0 images"),
        ([("a.cls", b"1"), ("a.png", b""), ("a.jpg", b"")], "'a' has 2 images"),
        ([("a.cls", b"1"), ("b.png", b""), ("a.png", b""), ("b.cls", b"1")], "'a' has 0 images"),
        ([("a.cls", b"1"), ("a.cls", b"1")], "a.cls is there twice"),
        ([("a.cls", b"cat"), ("a.png", b"")], "'a' cannot be read"),
        ([("a.cls", b"-1"), ("a.png", b"")], "at least 0 or a class name, got -1"),
        ([("a.json", b"{"), ("a.png", b"")], "'a' cannot be read"),
        ([("a.json", b'{"label": 1.5}'), ("a.png", b"")], "got 1.5"),
        ([("a.json", b'{"label": true}'), ("a.png", b"")], "got True"),
        ([("a.txt", b"\xff"), ("a.png", b"")], "'a' cannot be read"),
        ([("a.txt", bytes(2 << 20)), ("a.png", b"")], "too many for a label"),
        ([("a.cls", b"1"), ("a.png", b""), ("b.cls", b"1"), ("b.png", b"")] * 2, "two samples named 'a'"),
        ([("../a.png", b"")], r"member '\.\./a\.png' leaves the folder"),
        ([("b/../../a.png", b"")], "leaves the folder"),
        ([("/etc/a.png", b"")], "member '/etc/a.png' leaves the folder"),
    ],
)
def test_unusable_members(tmp_path, members, rule):
    with pytest.raises(InputError, match=rule) as caught:
        index_of(write_tar(tmp_path / "s.tar", members))
    assert f"shard {tmp_path}/s.tar" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("a.v2.jpg a.v2.cls", ["a.v2"]),
        ("a.v2.cls a.v2.jpg a.v3.jpg a.v3.cls", ["a.v2", "a.v3"]),
        ("a.jpg a.cls a.v2.jpg a.v2.cls", ["a", "a.v2"]),
        ("a.jpg a.v2.jpg a.cls a.v2.cls", ["a", "a.v2"]),
        ("b.jpg b.cls a.v2.jpg a.v2.cls c.jpg c.cls", ["b", "a.v2", "c"]),
        ("a.1.jpg a.1.cls b.jpg b.cls a.2.jpg a.2.cls", ["a.1", "b", "a.2"]),
        ("d/a.1.x.png d/a.1.x.cls", ["d/a.1.x"]),
        ("./d.e/a.png ./d.e/a.cls", ["./d.e/a"]),
        ("a..jpg a..cls", ["a."]),
        ("a.v2.webp a.v2.txt a.v2.json a.v2.npy", ["a.v2"]),
        ("a.jpg a.cls a.mask.png", ["a"]),
        ("a.mask.png a.edge.mask.png a.jpg a.cls", ["a"]),
        ("a.jpg a.cls a.crop.jpg a.crop.json", ["a"]),
        ("a.v2.jpg a.v2.cls a.v2.mask.png", ["a.v2"]),
        ("a.rgb.jpg a.cls", ["a"]),
        ("a.cls a.rgb.jpg a.depth.npy", ["a"]),
        ("a.jpg a.cls a.fine.cls a.caption.txt", ["a"]),
        ("a.jfif a.cls b.gif b.cls c.avif c.cls d.jpe d.cls e.jp2 e.cls", list("abcde")),
        ("a.notes.txt b.jpg b.cls", ["b"]),
        ("a.v2.npy a.v2.pth b.jpg b.cls", ["b"]),
    ],
)
def test_names_with_dots_are_paired(tmp_path, names, expected):
    image, labels = png(), {}
    members = []
    for number, name in enumerate(names.split()):
        content = str(number).encode()
        labels[name] = number
        members.append((name, image if name.endswith((".jpg", ".png")) else content))
    index = index_of(write_tar(tmp_path / "s.tar", members))
    assert list(index.keys) == expected
    content = (tmp_path / "s.tar").read_bytes()
    with tarfile.open(tmp_path / "s.tar") as archive:
        at = {member.offset_data: member.name for member in archive}
    for key, suffix, offset, label in zip(index.keys, index.suffixes, index.offsets, index.labels, strict=True):
        assert at[offset].startswith(key)
        assert at[offset].endswith(suffix)
        assert str(label).encode() in content
        assert labels.get(f"{key}.cls", labels.get(f"{key}.txt")) == int(label)


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        ("a.v1.jpg a.v2.jpg a.cls", r"'a' has 0 images, expected one, among a\.v1\.jpg, a\.v2\.jpg, a\.cls"),
        ("a.v1.jpg b.jpg b.cls a.v1.cls", r"label of sample 'a\.v1' is missing"),
        ("a.v1.jpg", r"label of sample 'a\.v1' is missing"),
        ("a.jpg a.fine.cls", "label of sample 'a' is missing"),
        ("a.v1.jpg a.v2.cls", r"label of sample 'a\.v1' is missing"),
        ("a.jpg a.cls a.v2.jpg a.v2.cls a.v3.jpg", r"label of sample 'a\.v3' is missing"),
        ("a.jpg a.cls a.v2.jpg a.v2.cls a.v3.cls", r"sample 'a\.v3' has 0 images"),
        ("a.v2.jpg a.v2.cls a.cls", "sample 'a' has 0 images"),
        ("a.v2.jpg a.v2.png a.v2.cls", r"sample 'a\.v2' has 2 images"),
        ("a.v2.jpg a.v2.jpg a.v2.cls", r"a\.v2\.jpg is there twice"),
        ("a.v2.jpg a.v2.JPG a.v2.cls", r"a\.v2\.JPG is there twice"),
        ("a.v2.jpg a.v2.cls b.jpg b.cls a.v2.jpg a.v2.cls", r"two samples named 'a\.v2'"),
        ("a.rgb.jpg a.cls b.jpg b.cls a.jpg a.cls", "two samples named 'a'"),
    ],
)
def test_names_with_dots_that_could_be_paired_otherwise_are_refused(tmp_path, names, rule):
    with pytest.raises(InputError, match=rule):
        index_of(write_tar(tmp_path / "s.tar", [(name, b"1") for name in names.split()]))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.binary(min_size=1, max_size=20).filter(
            lambda name: not {0, ord("/")} & {*name} and not name.startswith(b".")
        ),
        min_size=1,
        max_size=8,
        unique=True,
    ),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]),
)
def test_any_file_name_is_the_name_of_a_sample(names, form):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "s.tar"
        with tarfile.open(path, "w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
            for number, name in enumerate(names):
                for suffix in (b".jpg", b".cls"):
                    member = tarfile.TarInfo(os.fsdecode(name + suffix))
                    content = str(number).encode()
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        index = index_of(path)
    assert [os.fsencode(key) for key in index.keys] == names
    assert index.labels == list(range(len(names)))


def test_long_names_of_bytes(tmp_path):
    name = os.fsdecode(b"d\xe9/" * 60 + b"caf\xe9.v2")
    index = index_of(write_tar(tmp_path / "s.tar", [(f"{name}.jpg", b""), (f"{name}.cls", b"1")]))
    assert list(index.keys) == [name]


@pytest.mark.parametrize("content", [b"[" * 100_000, b"1" * 5000, b'{"label": ' * 50_000])
@pytest.mark.parametrize("suffix", ["cls", "json"])
def test_absurd_labels_are_refused(tmp_path, suffix, content):
    with pytest.raises(InputError, match="label of sample 'a' "):
        index_of(write_tar(tmp_path / "s.tar", [(f"a.{suffix}", content), ("a.png", b"")]))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    member = tarfile.TarInfo("a.png")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(InputError, match="'a.png' is a link, a device"):
        index_of(write_tar(tmp_path / "s.tar", [member]))


def with_size(content, size):
    """A tar file whose first header claims a size, with a valid checksum."""
    header = bytearray(content[:512])
    header[124:136] = (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content[512:]


def test_damaged_archives(tmp_path):
    path = write_shard(tmp_path / "s.tar", [0, 1, 2])
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[2048:2560] = b"x" * 512
    for cut in (content[:1024], content[:1536], content[:1600], content[:700], b"", b"text" * 300, bytes(damaged)):
        path.write_bytes(cut)
        with pytest.raises(InputError, match=r"not a whole, uncompressed tar file|truncated or damaged"):
            index_of(path)
    for size in (-512, 1 << 62, 1 << 70):
        path.write_bytes(with_size(content, size))
        with pytest.raises(InputError, match="damaged|not a whole"):
            index_of(path)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz"):
        pass
    path.write_bytes(file.getvalue())
    with pytest.raises(InputError, match="uncompressed"):
        index_of(path)
