"""A detector from the command line: trained, measured, drawn, written for a runtime, and what is refused."""

import copy
import csv
import json
import sys

import pytest
import yaml

import acmix
from tests import drawn_shapes
from tests.commands import call

TINY = [
    *("--image-size", 32, "--longest-side", 64, "--pyramid-channels", 8, "--pyramid-levels", 2),
    *("--head-convolutions", 1, "--epochs", 1, "--batch-size", 4, "--workers", 0, "--average-decay", "none"),
    *("--score-threshold", 0),
]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return drawn_shapes.write_coco(tmp_path_factory.mktemp("shapes"), drawn_shapes.draw(8, side=32), share=0.5)


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    from acmix.cli import main

    output = tmp_path_factory.mktemp("detection") / "run"
    assert main(["train", *map(str, [shapes, *TINY, "--output", output])]) == 0
    assert (output / "best.safetensors").is_file()
    assert (output / "report.html").is_file()
    return output


def test_a_detector_is_measured_and_draws(capsys, shapes, run, tmp_path):
    code, out, _ = call(capsys, "validate", run, shapes, "--json")
    found = json.loads(out)
    assert (code, found["images"]) == (0, 4)
    assert {"map", "map_50", "map_75", "map_small", "mar_100", "classes", "left_out"} <= found.keys()
    code, out, _ = call(capsys, "validate", run, shapes)
    assert (code, "per class" in out, "AP50" in out) == (0, True, True)
    code, out, _ = call(capsys, "predict", run, shapes / "val", "--out", tmp_path / "drawn", "--score", 0)
    names = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert (code, names) == (0, ["0001.png", "0002.png", "0003.png", "0004.png", "results.json"])
    assert out.splitlines()[4:] == ["image_id is the number that a file is called"]
    code, *_ = call(capsys, "predict", run, shapes / "val", "--output", tmp_path / "all.csv", "--score", 0)
    with (tmp_path / "all.csv").open(newline="") as file:
        heading, *rows = list(csv.reader(file))
    assert heading == ["path", "label", "score", "x1", "y1", "x2", "y2"]
    assert len(rows) > 4
    code, out, _ = call(capsys, "predict", run, shapes / "val" / "0001.png", "--json", "--score", 1)
    assert json.loads(out) == [{"path": str(shapes / "val" / "0001.png"), "objects": []}]
    code, out, _ = call(capsys, "compare", run, "--json")
    (row,) = json.loads(out)["runs"]
    assert (code, row["model"], row["measure"]) == (0, "retinanet on acmix_resnet14_small", "AP")
    assert row["multiply_adds"] > 1e6


def test_predictions_are_results_of_coco(capsys, shapes, run, tmp_path):
    """As pycocotools and its kin read them, with the ids of the data, wherever these come from."""
    from faster_coco_eval import COCO

    annotations = shapes / "annotations" / "instances_val.json"
    truth = COCO(str(annotations))
    options = ("--output", tmp_path / "results.json", "--score", 0)
    code, out, _ = call(capsys, "predict", run, shapes / "val", *options)
    assert (code, out.splitlines()[0]) == (0, f"{tmp_path / 'results.json'}: 4 predictions")
    results = json.loads((tmp_path / "results.json").read_text())
    (found,) = acmix.load(run, device="cpu").predict(shapes / "val" / "0002.png", score=0)
    own = [each for each in results if each["image_id"] == 2]
    assert [each["category_id"] for each in own] == (found.classes + 1).tolist()
    # Images together and one by one differ by roundings.
    assert [each["score"] for each in own] == pytest.approx(found.scores.tolist(), rel=1e-5)
    left, top, right, bottom = found.boxes.T.tolist()
    for each, *box in zip(own, left, top, right, bottom, strict=True):
        x, y, width, height = each["bbox"]
        assert [x, y, x + width, y + height] == pytest.approx(box, abs=1e-3)
    # It adds to what it is given.
    opened = truth.loadRes(copy.deepcopy(results))
    assert len(opened.anns) == len(results)
    assert set(opened.getCatIds()) == {1, 2, 3}
    # Other names and ids.
    content = json.loads(annotations.read_text())
    (tmp_path / "named").mkdir()
    for at, image in enumerate(content["images"]):
        before = shapes / "val" / image["file_name"]
        image["id"], image["file_name"] = 700 + at, f"pictures/shape {at}.png"
        (tmp_path / "named" / "pictures").mkdir(exist_ok=True)
        (tmp_path / "named" / image["file_name"]).write_bytes(before.read_bytes())
    (tmp_path / "named.json").write_text(json.dumps(content))
    pictures = tmp_path / "named" / "pictures"
    code, out, _ = call(capsys, "predict", run, pictures, *options)
    assert (code, "image_id is the file, as names are no numbers" in out) == (0, True)
    assert json.loads((tmp_path / "results.json").read_text())[0]["image_id"] == str(pictures / "shape 0.png")
    code, *_ = call(capsys, "predict", run, pictures, *options, "--annotations", tmp_path / "named.json")
    by_id = json.loads((tmp_path / "results.json").read_text())
    assert code == 0
    assert [each | {"image_id": each["image_id"] - 699} for each in by_id] == results
    code, _, err = call(capsys, "predict", run, shapes / "val", *options, "--annotations", tmp_path / "named.json")
    assert (code, "hold no image of the name of" in err) == (2, True)


def test_a_detector_is_written_for_onnx_runtime(capsys, shapes, run, tmp_path):
    code, out, _ = call(capsys, "export", run, tmp_path / "found.onnx")
    assert code == 0
    assert "images of 1 x 3 x 32 x 32 in 0..1 to boxes, scores, labels" in out
    found = []
    for place in (run, tmp_path / "found.onnx"):
        code, out, err = call(capsys, "validate", place, shapes, "--json", "--device", "cpu")
        assert code == 0, err
        found.append(json.loads(out))
    assert found[0]["map"] == pytest.approx(found[1]["map"], abs=1e-3)
    options = ("--output", tmp_path / "all.json", "--score", 0)
    assert call(capsys, "predict", tmp_path / "found.onnx", shapes / "val", *options)[0] == 0
    assert {each["category_id"] for each in json.loads((tmp_path / "all.json").read_text())} <= {1, 2, 3}
    code, _, err = call(capsys, "explain", tmp_path / "found.onnx", shapes / "val")
    assert (code, "needs the network's layers" in err) == (2, True)
    for arguments, rule in (
        ([tmp_path / "found.pt2"], "OUTPUT must end in .onnx for a detector"),
        ([tmp_path / "found.onnx", "--half"], "--half is of other networks than detectors"),
    ):
        code, _, err = call(capsys, "export", run, *arguments)
        assert (code, rule in err) == (2, True), err


def test_a_folder_for_the_hub_is_used_as_the_run_is(capsys, shapes, run, tmp_path):
    code, out, _ = call(capsys, "export", run, tmp_path / "hub", "--license", "mit")
    assert (code, out) == (0, f"folder: {tmp_path / 'hub'}\n")
    answers = []
    for place in (run, tmp_path / "hub"):
        code, out, _ = call(capsys, "validate", place, shapes, "--json")
        assert code == 0
        found = json.loads(out)
        answers.append({name: found[name] for name in ("map", "map_50", "images", "objects")})
    assert answers[0] == answers[1]
    code, out, _ = call(capsys, "predict", tmp_path / "hub", shapes / "val" / "0001.png")
    assert (code, out.count("\n")) == (0, 1)


def test_a_detector_tells_what_it_is_and_costs(capsys, run):
    code, out, err = call(capsys, "info", run, "--image-size", "4294967295")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "does not accept images of 4294967296 x 4294967296" in err
    code, out, _ = call(capsys, "info", run, "--json")
    found = json.loads(out)
    assert (code, found["checkpoint"]["task"], found["input_size"]) == (0, "detection", [3, 32, 32])
    assert found["checkpoint"]["classes"] == ["circle", "square", "triangle"]
    assert "trained_images" not in found["checkpoint"]["training"]
    network = acmix.load(run, device="cpu").model
    assert found["network"]["total"]["parameters"] == sum(each.numel() for each in network.parameters())
    assert found["network"]["attention"]["multiply_adds"] > 0
    code, out, _ = call(capsys, "info", run)
    assert (code, "retinanet on acmix_resnet14_small" in out, "val_map_50" in out) == (0, True, True)
    code, out, _ = call(capsys, "info", run, "--image-size", 70, "--json")
    # Sides are continued to multiples of 32.
    assert (code, json.loads(out)["input_size"]) == (0, [3, 96, 96])


def test_its_backbone_is_explained(capsys, shapes, run, tmp_path):
    picture = shapes / "val" / "0001.png"
    code, *_ = call(capsys, "explain", run, picture, "--output", tmp_path / "out", "--layer", "layer2.0.conv2")
    assert code == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Surest object of each class" in page
    assert "retinanet on acmix_resnet14_small" in page
    code, _, err = call(capsys, "explain", run, picture, "--output", tmp_path / "no", "--pixel", "32,0")
    assert (code, "pixel must lie in the 32 x 32 pixels" in err) == (2, True)
    code, _, err = call(capsys, "explain", run, picture, "--output", tmp_path / "no", "--layer", "head")
    assert (code, "layer must be one of layer1.0.conv2" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["train", "DATA", "--mixup", 0.2], "--mixup is a setting of classification; DATA is of detection"),
        (
            ["train", "digits", "--pyramid-channels", 8],
            "--pyramid-channels is a setting of detection; DATA is of class",
        ),
        (["train", "digits", "--recipe", "detection_small"], "is of detection; DATA digits is of classification"),
        (["train", "DATA", "--recipe", "resnet50"], "is of classification; DATA"),
        (["train", "DATA", "--model", "yolo"], "--model must be one of retinanet, fcos, faster_rcnn, mask_rcnn"),
        (["train", "DATA", "--freeze", 99], "--freeze must be 0 to"),
    ],
)
def test_what_belongs_to_another_kind_is_refused_by_name(capsys, shapes, tmp_path, arguments, rule):
    words = [shapes if word == "DATA" else word for word in arguments]
    code, out, err = call(capsys, *words, "--output", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert rule in err
    assert not (tmp_path / "run").exists()


def test_recipes_of_detection_are_whole(capsys, shapes):
    for name in ("detection_small", "retinanet_1x", "mask_rcnn_1x"):
        code, out, _ = call(capsys, "recipes", "--name", name)
        assert (code, yaml.safe_load(out)["task"]) == (0, "detection")
    code, out, _ = call(capsys, "train", shapes, "--print-config")
    assert (code, yaml.safe_load(out)["pyramid_channels"]) == (0, 64)


def test_what_counts_is_asked_for_before_anything_is_trained(capsys, shapes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    code, _, err = call(capsys, "train", shapes, "--output", tmp_path / "run")
    assert (code, err.splitlines()[0].endswith("pip install 'acmix[detection]'")) == (2, True)
    assert [*tmp_path.iterdir()] == []
