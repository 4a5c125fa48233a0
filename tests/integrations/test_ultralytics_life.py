"""What YOLO does with a network of ours: trains it, stops and resumes, validates, predicts, tracks, elsewhere too."""

import copy
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import acmix
from tests.examples import load_example
from tests.integrations.pictures import SIZE, draw, operators

pytestmark = pytest.mark.integrations
SELECT = "model.8.*"
ROWS = """
nc: 2
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, C2f_ACmix, [16, True]]
  - [-1, 1, ACmix, [32, {stride: 4}]]
head:
  - [[2], 1, Detect, [nc]]
"""


@pytest.fixture(scope="module", autouse=True)
def registered(_alone):
    from acmix.integrations import ultralytics

    ultralytics.register()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set, a folder for runs, and a YAML with our rows."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("pictures")
    draw(root)
    (root / "rows.yaml").write_text(ROWS)
    return root


@pytest.fixture(scope="module")
def settings(folder):
    """Without downloads, pictures of progress, and processes that load data."""
    quiet = {"plots": False, "amp": False, "workers": 0, "verbose": False, "exist_ok": True}
    return {"data": str(folder / "data.yaml"), "imgsz": SIZE, "device": "cpu", "project": str(folder / "runs"), **quiet}


@pytest.fixture(scope="module")
def trained(settings):
    """A network after surgery, trained for two epochs, and what it was before."""
    from ultralytics import YOLO

    torch.manual_seed(0)
    model = YOLO("yolo11n.yaml")
    acmix.replace_convolutions(model.model, select=SELECT, warm_start=True)
    before = copy.deepcopy(model.model)
    model.train(epochs=2, batch=3, name="surgery", **settings)
    return model, before


def test_training_keeps_and_learns_what_surgery_put_in(trained):
    model, before = trained
    assert set(operators(model.model)) == set(operators(before)) != set()
    for name, operator in operators(before).items():
        learned = operators(model.model)[name]
        assert type(learned) is acmix.ACmix
        assert not torch.equal(learned.dep_weight, operator.dep_weight)
        # It went on from the network's own weights: two epochs are no way from one start to another.
        assert (learned.qkv.weight - operator.qkv.weight).norm() < 0.5 * operator.qkv.weight.norm()


def test_validation_and_prediction_find_the_same(trained, settings, folder):
    from ultralytics import YOLO

    path = str(trained[0].trainer.last)
    model, plain = YOLO(path), YOLO(path).model.eval()
    image = torch.rand(1, 3, SIZE, SIZE)
    expected = plain(image)[0]
    metrics = model.val(**settings)
    assert set(metrics.names.values()) == {"red", "green", "blue"}
    result, *_ = model.predict(folder / "images/0.png", imgsz=SIZE, conf=0.001, verbose=False)
    assert result.boxes is not None
    assert (model.predictor.model(image)[0] - expected).abs().max() <= 1e-4 * expected.abs().max()
    # What was fused in place is described, and trained again, as it was.
    assert model.model.yaml["acmix"] == plain.yaml["acmix"]


def test_rows_train_and_other_classes_are_learned_from_a_checkpoint(settings, folder):
    from ultralytics import YOLO

    rows = str(folder / "rows.yaml")
    model = YOLO(rows, task="detect")
    # As the command line does, which names the network twice.
    model.train(model=rows, epochs=1, batch=3, name="rows", **settings)
    assert {type(operator) for operator in operators(model.model).values()} == {acmix.ACmix}
    described = (folder / "data.yaml").read_text().replace("blue]", "blue, white]")
    (folder / "four.yaml").write_text(described)
    again = YOLO(str(model.trainer.last))
    again.train(epochs=1, batch=3, name="four", **{**settings, "data": str(folder / "four.yaml")})
    assert again.model.yaml["nc"] == 4
    assert set(operators(again.model)) == set(operators(model.model))


# A process in which nobody imports acmix.
ELSEWHERE = """
import json, sys
from ultralytics import YOLO

class Stopped(Exception): ...

def stop(trainer):
    if trainer.epoch == 1:
        raise Stopped

settings, last, saved, pictures = json.loads(sys.argv[1])
assert "acmix" not in sys.modules
count = lambda model: sum(type(module).__name__ == "ACmix" for module in model.modules())
model = YOLO(last)
counts = {"loaded": count(model.model)}
model.add_callback("on_train_epoch_start", stop)
try:
    model.train(epochs=3, batch=3, name="stopped", **settings)
except Stopped:
    pass
interrupted = YOLO(str(model.trainer.last))
interrupted.train(resume=True)
assert (interrupted.trainer.start_epoch, interrupted.trainer.epoch) == (1, 2)
counts["resumed"] = count(interrupted.model)
counts["averaged"] = count(interrupted.trainer.ema.ema)
model = YOLO(saved)
model.train(epochs=1, batch=3, name="saved", **settings)
counts["saved"] = count(model.model)
counts["tracked"] = len(model.track(pictures, imgsz=64, verbose=False, conf=0.001))
print(json.dumps(counts))
"""


def elsewhere(program, *arguments, **environment):
    return subprocess.run(  # noqa: S603
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_another_process_goes_on(trained, settings, folder):
    from ultralytics import YOLO

    model = YOLO("yolo11n.yaml")
    acmix.replace_convolutions(model.model, select=SELECT)
    saved = folder / "saved.pt"
    model.save(saved)
    arguments = settings, str(trained[0].trainer.last), str(saved), str(folder / "images")
    result = elsewhere(ELSEWHERE, json.dumps(arguments))
    assert result.returncode == 0, result.stderr
    number = len(operators(model.model))
    expected = {"loaded": number, "resumed": number, "averaged": number, "saved": number, "tracked": 6}
    assert json.loads(result.stdout.splitlines()[-1]) == expected


WITHOUT = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "acmix":
            raise ModuleNotFoundError("No module named 'acmix'", name="acmix")

sys.meta_path.insert(0, Missing())
from ultralytics import YOLO
YOLO(sys.argv[1])
"""


def test_a_process_without_acmix_says_so(trained):
    result = elsewhere(WITHOUT, str(trained[0].trainer.last), YOLO_VERBOSE="True")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'acmix'"
    assert "appears to require 'acmix'" in result.stdout + result.stderr


def test_processes_that_read_a_file_find_the_operators_there_or_are_not_started(folder):
    from ultralytics import YOLO

    from acmix.integrations.ultralytics import _check_file

    model = YOLO("yolo11n.yaml")
    _check_file(model.model, "yolo11n.yaml")
    acmix.replace_convolutions(model.model, select=SELECT)
    model.save(folder / "whole.pt")
    _check_file(model.model, str(folder / "whole.pt"))
    with pytest.raises(ValueError, match=r'from yolo11n\.yaml in processes .* model\.save\("network\.pt"\)'):
        _check_file(model.model, "yolo11n.yaml")
    acmix.replace_convolutions(model.model, select="model.6.*")
    with pytest.raises(ValueError, match="its operators are not there"):
        _check_file(model.model, str(folder / "whole.pt"))


def test_the_example_trains_validates_and_exports(settings, tmp_path, monkeypatch, capsys):
    import onnxruntime

    monkeypatch.chdir(tmp_path)
    path = load_example("ultralytics_yolo").main("yolo11n.yaml", epochs=1, name="example", **settings)
    assert "4 of " in capsys.readouterr().out
    (output,) = onnxruntime.InferenceSession(path).run(None, {"images": np.zeros((2, 3, 96, 64), np.float32)})
    assert output.shape[:2] == (2, 7)
