import gzip
import json
import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acmix import InputError, cli
from acmix.data import image_loader, open_dataset
from acmix.data.idx import open_idx
from acmix.data.kinds import kind_of


def header(*shape, kind=8):
    return bytes((0, 0, kind, len(shape))) + b"".join(size.to_bytes(4) for size in shape)


def write(folder, split, labels, *, size=(5, 4), images="-images-idx3-ubyte", ends=("", ""), seed=0):
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), *size), np.uint8)
    for name, values, end in (
        (images, pixels, ends[0]),
        (images.replace("images", "labels").replace("3", "1"), np.uint8(labels), ends[1]),
    ):
        content = header(*values.shape) + values.tobytes()
        (folder / f"{split}{name}{end}").write_bytes(gzip.compress(content) if end else content)
    return pixels


@settings(max_examples=20, deadline=None)
@given(
    labels=st.lists(st.integers(0, 255), min_size=1, max_size=9),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    ends=st.tuples(*[st.sampled_from(["", ".gz"])] * 2),
)
def test_what_is_written_is_read(tmp_path_factory, labels, size, ends):
    folder = tmp_path_factory.mktemp("idx")
    pixels = write(folder, "train", labels, size=size, ends=ends)
    images = open_idx(folder)["train"]
    assert [images.classes[label] for label in images.labels] == [str(label) for label in labels]
    assert images.classes == tuple(map(str, sorted(set(labels))))
    for index, expected in enumerate(pixels):
        image, label = images.read(index)
        assert image.mode == "RGB"
        assert (np.asarray(image) == expected[..., None]).all()
        assert label == images.labels[index]


def test_the_files_of_mnist_are_training_and_test_images(tmp_path):
    write(tmp_path, "train", [0, 1] * 10, ends=(".gz", ".gz"))
    write(tmp_path, "t10k", [1, 0, 1], ends=(".gz", ".gz"))
    assert kind_of(str(tmp_path)) == "classification"
    data = open_dataset(str(tmp_path))
    assert (len(data.train), len(data.validation), data.was_split) == (16, 4, True)
    assert "test images: not trained on" in data.taken["left aside"]
    assert data.train.name(0).startswith("train/")
    assert data.fingerprint == open_dataset(str(tmp_path), seed=3).fingerprint
    write(tmp_path, "train", [1, 0] * 10, ends=(".gz", ".gz"))
    assert data.fingerprint != open_dataset(str(tmp_path)).fingerprint


def test_images_go_through_readers_and_pickles(tmp_path):
    pixels = write(tmp_path, "train", [3, 7, 3, 7])
    images = open_idx(tmp_path)["train"].subset([3, 0])
    seen = pickle.loads(pickle.dumps(images)).with_transform(lambda image: torch.tensor(np.asarray(image)))  # noqa: S301
    found = torch.cat([batch for batch, _ in image_loader(seen, batch_size=1, workers=1)])
    assert (found.numpy() == pixels[[3, 0]][..., None]).all()
    assert [images.name(index) for index in range(2)] == ["train/3", "train/0"]
    assert images.encoded(0).content.startswith(b"\x89PNG")


def test_names_of_other_datasets_and_copies(tmp_path):
    write(tmp_path / "emnist", "emnist-letters-train", [1, 2])
    write(tmp_path / "emnist", "emnist-letters-test", [2, 1])
    assert [*open_idx(tmp_path / "emnist")] == ["test", "train"]
    write(tmp_path / "dots", "train", [0, 1], images="-images.idx3-ubyte")
    assert [*open_idx(tmp_path / "dots")] == ["train"]
    # torchvision leaves both; the plain ones are read.
    write(tmp_path / "both", "train", [0, 1], ends=(".gz", ".gz"))
    write(tmp_path / "both", "train", [0, 1, 1])
    assert len(open_idx(tmp_path / "both")["train"]) == 3
    write(tmp_path / "emnist", "emnist-digits-train", [1, 2])
    with pytest.raises(InputError, match="is of the split train, as another file of"):
        open_idx(tmp_path / "emnist")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "begins with nothing, not 00000803"),
        (header(2, 5, 4, kind=13) + bytes(160), "begins with 00000d03"),
        (header(2, 20) + bytes(40), "begins with 00000802"),
        (header(2, 5, 4)[:9], "ends within its header"),
        (header(2, 5, 4) + bytes(39), "promises 40 values, it holds 39"),
        (header(2, 5, 4) + bytes(41), "promises 40 values, it holds more"),
        (header(2, 0, 4), "promises 2 x 0 x 4 values"),
        (header(2, 2**31, 2**31) + bytes(9), "at most 4,294,967,296 are read"),
        (header(3, 5, 4) + bytes(60), "holds 3 images, train-labels-idx1-ubyte 2 labels"),
    ],
)
@pytest.mark.parametrize("end", ["", ".gz"])
def test_damaged_files_are_refused_by_name(tmp_path, content, fault, end):
    write(tmp_path, "train", [0, 1])
    file = tmp_path / f"train-images-idx3-ubyte{end}"
    (tmp_path / "train-images-idx3-ubyte").unlink()
    file.write_bytes(gzip.compress(content) if end else content)
    with pytest.raises(InputError, match=fault) as caught:
        open_dataset(str(tmp_path))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_gzip_and_missing_labels(tmp_path):
    write(tmp_path, "train", [0, 1], ends=(".gz", ""))
    file = tmp_path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[-6] ^= 1
    for content in (whole[:-9], b"no gzip", bytes(changed)):
        file.write_bytes(content)
        with pytest.raises(InputError, match="train-images-idx3-ubyte.gz cannot be read"):
            open_idx(tmp_path)
    file.write_bytes(whole)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match="has no labels: there is no train-labels-idx1-ubyte beside it"):
        open_idx(tmp_path)


def test_a_bomb_is_not_unpacked(tmp_path):
    write(tmp_path, "train", [0, 1])
    (tmp_path / "train-images-idx3-ubyte").unlink()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header(2, 5, 4) + bytes(2**28)))
    tracemalloc.start()
    with pytest.raises(InputError, match="holds more"):
        open_idx(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_commands_take_them(tmp_path, capsys):
    write(tmp_path / "set", "train", [0, 1] * 8, size=(32, 32))
    write(tmp_path / "set", "t10k", [0, 1], size=(32, 32), seed=1)
    run = str(tmp_path / "run")
    size = ["--model", "acmix_resnet14_small", "--epochs", "1", "--batch-size", "8", "--image-size", "32"]
    size += ["--workers", "0"]
    assert cli.main(["data", "check", str(tmp_path / "set"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts"]["test"]["images"] == 2
    assert cli.main(["train", str(tmp_path / "set"), "--output", run, "--device", "cpu", *size]) == 0
    capsys.readouterr()
    assert cli.main(["validate", run, str(tmp_path / "set"), "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 4
