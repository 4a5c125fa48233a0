import argparse
import json
import pickle
import re
import shutil

import onnx
import pytest
import timm
import torch

from acmix.bench.environment import environment
from acmix.cli import main
from acmix.cli.display import progress
from acmix.data import export_digits
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
    assert f"{summary['best']:.2%}" in out
    assert "confusion matrix" in out


@pytest.fixture(scope="session")
def places(checkpoint, tmp_path_factory):
    """What else holds the network of a checkpoint."""
    folder = tmp_path_factory.mktemp("places")
    for name in ("hub", "network.onnx"):
        assert main(["export", str(checkpoint), str(folder / name)]) == 0
    return {"run": checkpoint.parent, "hub": folder / "hub", "onnx": folder / "network.onnx"}


@pytest.mark.parametrize("kind", ["run", "hub", "onnx"])
def test_whatever_holds_a_network_is_validated_alike(capsys, checkpoint, places, kind):
    code, out, _ = call(capsys, "validate", checkpoint, "digits", "--json")
    expected = json.loads(out)
    code, out, err = call(capsys, "validate", places[kind], "digits", "--json", "--device", "cpu")
    found = json.loads(out)
    assert (code, err, found.keys()) == (0, "", expected.keys())
    assert (found["images"], found["measured"]) == (expected["images"], expected["measured"])
    assert found["top1"] == pytest.approx(expected["top1"], abs=0.005)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["validate", "RUN", "digits"], r"validating: 64 of 359 images, \d:\d\d:\d\d left"),
        (["report", "RUN", "--output", "page.html"], r"validating: 64 of 359 images, \d:\d\d:\d\d left"),
        (["predict", "RUN", "."], r"predicting: 1 of 3 images, \d:\d\d:\d\d left"),
    ],
)
def test_commands_say_how_far_they_are(capsys, checkpoint, tmp_path, monkeypatch, command, line):
    monkeypatch.chdir(tmp_path)
    export_digits(".", count=3)
    monkeypatch.setattr(progress, "_FIRST", 0)
    code, _, err = call(capsys, *(checkpoint.parent if word == "RUN" else word for word in command))
    told = [told for told in err.splitlines() if re.fullmatch(line.replace("64", r"\d+"), told)]
    assert code == 0
    assert told


def test_what_needs_layers_takes_no_onnx(capsys, places, tmp_path):
    for arguments in (["explain", "FILE", "a.png"], ["export", "FILE", str(tmp_path / "new.onnx")], ["info", "FILE"]):
        code, out, err = call(capsys, *(places["onnx"] if argument == "FILE" else argument for argument in arguments))
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert f"is a graph for ONNX Runtime; acmix {arguments[0]} needs the network's layers: give a run folder" in err
    code, out, _ = call(capsys, "export", places["hub"], tmp_path / "again", "--license", "mit")
    assert (code, out) == (0, f"folder: {tmp_path / 'again'}\n")
    assert "license: mit" in (tmp_path / "again" / "README.md").read_text()
    code, _, err = call(capsys, "export", places["hub"], tmp_path / "again.onnx", "--license", "mit")
    assert (code, err.startswith("acmix export: error: --license is for the card of a folder")) == (2, True)


def test_a_run_before_its_first_epoch(capsys, checkpoint, tmp_path):
    shutil.copy(checkpoint.parent / "config.json", tmp_path)
    for command in (["validate", tmp_path, "digits"], ["predict", tmp_path, "a.png"], ["explain", tmp_path, "a.png"]):
        code, out, err = call(capsys, *command)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert f"error: CHECKPOINT {tmp_path} is a run that has no best.safetensors yet: no epoch is finished" in err


def test_reports_take_a_checkpoint_for_its_run(capsys, checkpoint, places, tmp_path):
    for command in (["report", checkpoint, "--output", tmp_path / "page.html"], ["compare", checkpoint]):
        code, _, err = call(capsys, *command)
        assert (code, err) == (0, "")
    code, _, err = call(capsys, "report", places["hub"])
    assert (code, len(err.splitlines())) == (2, 1)
    assert "is no run but an exported network; give the --output folder of acmix train" in err


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
    found = json.loads(onnx.load(tmp_path / "network.onnx").metadata_props[0].value)
    assert {"classes", "preprocessing", "training"} < set(found)
    code, out, _ = call(capsys, "export", checkpoint, tmp_path / "network.pt2", "--fixed-size", "--half")
    assert (code, out) == (0, f"program: {tmp_path / 'network.pt2'}\n")
    image = torch.zeros(1, 3, 32, 32).half()
    assert torch.export.load(tmp_path / "network.pt2").module()(image).shape == (1, 10)
    code, out, _ = call(capsys, "export", checkpoint, tmp_path / "hub")
    assert (code, out) == (0, f"folder: {tmp_path / 'hub'}\n")
    assert timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).num_classes == 10
