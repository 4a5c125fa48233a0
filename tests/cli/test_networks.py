import argparse
import json
import os
import pickle
import re

import onnx
import pytest
import timm
import torch
from PIL import Image

from acmix.bench.environment import environment
from acmix.data import export_digits
from acmix.errors import printable
from tests.commands import call


def test_info(capsys):
    code, out, _ = call(capsys, "info", "acmix_resnet14_small")
    assert code == 0
    for part in ("projection", "attention", "convolution", "other", "total"):
        assert part in out
    code, out, _ = call(capsys, "info", "acmix_resnet14_small", "--input-size", "64", "--json")
    content = json.loads(out)
    assert code == 0
    assert content["input_size"] == [3, 64, 64]
    parts = ("projection", "attention", "convolution", "other")
    assert content["network"]["total"]["parameters"] == sum(content["network"][part]["parameters"] for part in parts)


def test_info_of_a_checkpoint(capsys, checkpoint):
    code, out, _ = call(capsys, "info", checkpoint)
    assert code == 0
    for words in ("images of 3 x 32 x 32", "10: 0, 1, 2", "training", "val_top1", "total"):
        assert words in out
    code, out, _ = call(capsys, "info", checkpoint, "--json", "--image-size", "32")
    content = json.loads(out)
    assert (code, content["input_size"], len(content["checkpoint"]["classes"])) == (0, [3, 32, 32], 10)
    assert "trained_images" not in content["checkpoint"]["training"]
    assert content["network"]["total"]["parameters"] > 0


def test_info_of_what_is_here(capsys):
    code, out, _ = call(capsys, "info", "--json")
    assert (code, json.loads(out)) == (0, environment())
    code, out, _ = call(capsys, "info")
    assert code == 0
    for words in ("torch", "processor", "backend cpu", "backend triton", "memory", "threads"):
        assert words in out
    code, _, err = call(capsys, "info", "--image-size", "64")
    assert (code, err) == (2, "acmix info: error: --image-size is of a network; name one\n")
    code, _, err = call(capsys, "info", "runs/missing.safetensors")
    assert (code, err.count("\n")) == (2, 1)


def test_validation_repeats_the_best_epoch(capsys, checkpoint):
    summary = json.loads((checkpoint.parent / "summary.json").read_text())
    code, out, err = call(capsys, "validate", checkpoint, "digits", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == summary["validation"]
    code, out, _ = call(capsys, "validate", checkpoint, "digits")
    assert code == 0
    assert f"{summary['best_top1']:.2%}" in out
    assert "confusion matrix" in out


def test_prediction(capsys, checkpoint, tmp_path):
    images = export_digits(tmp_path / "digits", count=3)
    code, out, err = call(capsys, "predict", checkpoint, *images, "--top", "2", "--json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    assert [item["path"] for item in content] == [str(path) for path in images]
    assert all(len(item["classes"]) == 2 for item in content)


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"line\nbreak.jfif"])
def test_files_of_any_name_are_predicted(capsys, checkpoint, tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    with path.open("wb") as file:
        Image.new("RGB", (8, 8)).save(file, "PNG")
    code, out, err = call(capsys, "predict", checkpoint, tmp_path)
    assert (code, err, len(out.splitlines())) == (0, "", 1)
    assert out.startswith(f"{printable(path)}: ")
    code, out, _ = call(capsys, "predict", checkpoint, tmp_path, "--json")
    assert (code, json.loads(out)[0]["path"]) == (0, str(path))


def test_unreadable_images_are_named_and_the_rest_predicted(capsys, checkpoint, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    code, out, err = call(capsys, "predict", checkpoint, tmp_path / "broken.png", tmp_path / "good.png")
    assert code == 2
    assert len(out.splitlines()) == 1
    assert "good.png" in out
    assert len(err.splitlines()) == 1
    assert "broken.png" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["validate", "FILE", "digits"],
        ["predict", "FILE", "image.png"],
        ["explain", "FILE", "image.png"],
        ["export", "FILE", "out.onnx"],
        ["train", "digits", "--weights", "FILE"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_damaged_and_foreign_checkpoints(capsys, checkpoint, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    changed = bytearray(checkpoint.read_bytes())
    changed[-1] ^= 1
    contents = {
        "changed": bytes(changed),
        "cut": checkpoint.read_bytes()[:1000],
        "empty": b"",
        "pickled": pickle.dumps({"model": 3}),
        "text": b"no weights at all",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"model": torch.nn.Linear(2, 2), "args": argparse.Namespace()}, tmp_path / "network")
    torch.save({"weight": torch.ones(2)}, tmp_path / "others")
    for name in (*contents, "network", "others"):
        code, out, err = call(capsys, *(name if argument == "FILE" else argument for argument in arguments))
        assert (code, out, len(err.splitlines())) == (2, "", 1), name
        assert re.match(f"acmix {arguments[0]}: error: (CHECKPOINT|--weights) {name} ", err)
        assert name != "changed" or re.search(r"tensor \S+ was changed since it was written", err)


def test_export(capsys, checkpoint, tmp_path):
    code, out, err = call(capsys, "export", checkpoint, tmp_path / "network.onnx", "--fixed-size")
    assert (code, err) == (0, "")
    assert re.search(r"^largest difference: \S+e-\d+$", out, re.MULTILINE)
    assert set(json.loads(onnx.load(tmp_path / "network.onnx").metadata_props[0].value)) == {"classes", "preprocessing"}
    code, out, _ = call(capsys, "export", checkpoint, tmp_path / "network.pt2", "--fixed-size", "--half")
    assert (code, out) == (0, f"program: {tmp_path / 'network.pt2'}\n")
    image = torch.zeros(1, 3, 32, 32).half()
    assert torch.export.load(tmp_path / "network.pt2").module()(image).shape == (1, 10)
    code, out, _ = call(capsys, "export", checkpoint, tmp_path / "hub")
    assert (code, out) == (0, f"folder: {tmp_path / 'hub'}\n")
    assert timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).num_classes == 10
