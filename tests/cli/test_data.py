import io
import json
import os
import shutil
import warnings
from contextlib import redirect_stdout

import numpy as np
import pytest
from PIL import Image

from acmix.cli import main
from tests.commands import call


def test_data_is_sharded_and_checked(capsys, tmp_path):
    code, out, err = call(capsys, "data", "shard", "digits", tmp_path / "out")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"acmix train {tmp_path / 'out'}"
    code, _, err = call(capsys, "data", "shard", tmp_path / "out", tmp_path / "out" / "again")
    assert code == 2
    assert "give a folder outside of it" in err
    code, out, err = call(capsys, "data", "check", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "1,438" in out
    assert out.splitlines()[-1] == "the images are sound"
    pattern = f"{tmp_path}/out/{{train-000001,validation-000000}}.tar"
    code, out, _ = call(capsys, "data", "check", pattern, "--validation", f"{tmp_path}/out/validation-000000.tar")
    assert code == 1
    assert "identical files in training and validation: 359\n" in out
    assert "and 354 more: see --json" in out
    assert out.splitlines()[-1] == "the images are NOT sound"


def test_data_check_names_all_in_json(capsys, tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for index in range(7):
            (tmp_path / name / f"{index}.png").write_bytes(b"no image")
    code, out, err = call(capsys, "data", "check", tmp_path, "--json")
    assert (code, err) == (1, "")
    content = json.loads(out)
    assert not content["sound"]
    assert len(content["parts"]["images"]["unreadable"]) == 14
    code, out, _ = call(capsys, "data", "check", tmp_path)
    assert code == 1
    assert "unreadable: 14\n  ant/0.png: not a readable image" in out
    assert "and 9 more" in out


# A name that is not UTF-8, and one of letters that few fonts have.
CLASSES = (b"caf\xe9", "\u6c34".encode(), b"[tea]")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a folder as people have them, by the commands' own words: the folder, the run, and what was printed."""
    root = tmp_path_factory.mktemp("as-people-have-them")
    random = np.random.default_rng(0)
    for part, count in ((b"Training", 6), (b"TEST_SET", 2)):
        for name in CLASSES:
            folder = os.fsencode(root) + b"/data/" + part + b"/" + name
            os.makedirs(folder)
            for index in range(count):
                Image.fromarray(random.integers(0, 255, (9, 7 + index, 3), dtype=np.uint8)).save(
                    os.fsdecode(folder + b"/\xff%d.png" % index)
                )
    first = root / "data" / "Training" / "[tea]"
    (first / ".ipynb_checkpoints").mkdir()
    shutil.copy(next(first.glob("*.png")), first / ".ipynb_checkpoints" / "0-checkpoint.png")
    (first / "._0.png").write_bytes(b"no image")
    (first / "loop").symlink_to("..")
    (first / "gone.png").symlink_to("nowhere")
    (first / "notes.txt").touch()
    words = ["train", str(root / "data"), "--model", "acmix_resnet14_small", "--epochs", "1", "--batch-size", "6"]
    with redirect_stdout(io.StringIO()) as printed, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main([*words, "--image-size", "16", "--workers", "0", "--output", str(root / "run")]) == 0
    return root / "data", root / "run", printed.getvalue()


def test_training_says_what_was_taken_for_what(trained):
    data, run, printed = trained
    assert printed.splitlines()[:4] == [
        rf"training: {data}/Training: 15 images of 3 classes ([tea], caf\xe9, 水)",
        f"validation: the images of {data}/Training that training held out: 3 images, 0.2 of each class by seed 0",
        f"left aside: {data}/TEST_SET, test images: not trained on, not chosen on",
        "left out: 2 hidden (Training/[tea]/._0.png, ...), 1 link to nothing (Training/[tea]/gone.png), "
        "1 link to a folder above it (Training/[tea]/loop), 1 file ending in .txt (Training/[tea]/notes.txt)",
    ]
    assert json.loads((run / "config.json").read_text())["classes"] == ["[tea]", r"caf\xe9", "\u6c34"]
    assert r"caf\xe9/\xff" in (run / "report.html").read_text()


def test_every_command_takes_any_name(capsys, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, run, _ = trained
    folder = data / "TEST_SET" / os.fsdecode(CLASSES[0])
    for words in (
        ["data", "check", data],
        ["data", "shard", data, "shards"],
        ["data", "check", "shards"],
        ["predict", run / "best.safetensors", folder],
        ["explain", run / "best.safetensors", next(folder.iterdir())],
        ["report", run, data],
        ["export", run / "best.safetensors", "hub"],
        ["validate", run / "best.safetensors", data],
    ):
        code, out, err = call(capsys, *words)
        assert (code, err, out.encode().decode()) == (0, "", out), words
    assert "[tea]" in out
    assert out.splitlines()[:2] == [
        f"measured: the images of {data}/Training that training held out",
        f"note: {data}/TEST_SET is not measured; give it as DATA to measure it",
    ]
    code, out, _ = call(capsys, "predict", run / "best.safetensors", folder, "--json")
    assert {os.fsencode(item["path"]) for item in json.loads(out)} == {os.fsencode(file) for file in folder.iterdir()}
    assert {item["name"] for item in json.loads(out)[0]["classes"]} == {"[tea]", r"caf\xe9", "\u6c34"}


def test_validate_leaves_out_what_was_trained_on(capsys, trained, tmp_path):
    data, run, _ = trained
    shutil.copytree(data / "Training", tmp_path / "copy", symlinks=True)
    tea = tmp_path / "copy" / "[tea]"
    (tea / os.fsdecode(b"\xff0.png")).rename(tea / "renamed.png")
    code, out, err = call(capsys, "validate", run / "best.safetensors", tmp_path / "copy", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["images"], found["left_out"]) == (3, {"trained_on": 15, "changed": 0})
    code, out, _ = call(capsys, "validate", run / "best.safetensors", tmp_path / "copy")
    assert out.startswith(f"measured: {tmp_path}/copy\nleft out: 15 images that the network was trained on\n3 images:")
    code, out, _ = call(capsys, "validate", run / "best.safetensors", data / "TEST_SET", "--json")
    assert (json.loads(out)["images"], json.loads(out)["measured"]) == (6, f"{data}/TEST_SET")


def test_data_check_counts_what_is_left_out_and_compares_test_images(capsys, trained):
    data, _, _ = trained
    code, out, err = call(capsys, "data", "check", data, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert {name: part["images"] for name, part in found["parts"].items()} == {"train": 18, "test": 6}
    assert found["left_out"] == {
        "hidden": 2,
        "link to nothing": 1,
        "link to a folder above it": 1,
        "file ending in .txt": 1,
    }
    assert found["left_out_first"]["link to nothing"] == ["Training/[tea]/gone.png"]
    copy = data / "TEST_SET" / "[tea]" / "copy.png"
    shutil.copy(data / "Training" / "[tea]" / os.fsdecode(b"\xff0.png"), copy)
    code, out, _ = call(capsys, "data", "check", data)
    copy.unlink()
    assert code == 1
    assert "identical files in several parts: 1\n" in out


def test_paths_are_no_yaml(capsys, tmp_path):
    for name in ("null", "[a].png", "2024-01-01", "1.0", "a: b"):
        code, _, err = call(capsys, "predict", tmp_path / "none.safetensors", name)
        assert (code, err.count("\n")) == (2, 1)
        assert "none.safetensors" in err
