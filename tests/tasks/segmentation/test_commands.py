"""A segmenter by its commands: what they print and leave."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from acmix.checkpoints.opening import load
from tests.commands import call
from tests.pages.markup import Page


def test_validating(capsys, finished, masked):
    code, out, err = call(capsys, "validate", finished[0], masked, "--json", "--device", "cpu")
    found = json.loads(out)
    assert (code, found["mean_iou"]) == (0, pytest.approx(finished[1].best)), err
    assert [each["name"] for each in found["classes"]] == ["0", "1", "2", "3"]
    code, out, _ = call(capsys, "validate", finished[0], masked, "--device", "cpu")
    assert code == 0
    assert "mean IoU" in out


def test_predicting(capsys, finished, masked, tmp_path):
    images = masked / "images" / "validation"
    code, out, err = call(capsys, "predict", finished[0], images, "--out", tmp_path / "drawn", "--device", "cpu")
    assert (code, err) == (0, "")
    names = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert names == sorted(f"{number:04d}{end}" for number in range(1, 5) for end in (".png", "-mask.png"))
    (labels,) = load(finished[0], device="cpu").predict(images / "0001.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "drawn" / "0001-mask.png")), labels)
    code, out, _ = call(capsys, "predict", finished[0], images, "--json", "--device", "cpu")
    assert (code, len(json.loads(out))) == (0, 4)
    assert call(capsys, "predict", finished[0], images, "--top", 2)[0] == 2


def test_a_report_shows_classes_and_pictures(capsys, finished, tmp_path):
    code, _, err = call(capsys, "report", finished[0], "--output", tmp_path / "report.html", "--device", "cpu")
    assert code == 0, err
    text = (tmp_path / "report.html").read_text()
    page = Page(tmp_path / "report.html")
    assert [row[0] for row in page.tables["classes"][1:]] == ["0", "1", "2", "3"]
    assert sum(tag == "img" for tag, *_ in page.elements) == 12
    assert "Lowest IoU" in text
    assert "Validation mean IoU, pixel accuracy and mean class accuracy." in text
    assert "<script" not in text


def test_checking_tells_all_that_is_wrong(capsys, masked, tmp_path):
    code, out, _ = call(capsys, "data", "check", masked, "--json")
    assert (code, json.loads(out)["sound"]) == (0, True)
    broken = tmp_path / "broken"
    shutil.copytree(masked, broken)
    images, masks = broken / "images", broken / "annotations" / "training"
    (broken / "classes.txt").write_text("ground\ncircle\nsquare\ntriangle\nstar\n")
    Image.fromarray(np.full((40, 40), 9, np.uint8)).save(masks / "0001.png")
    Image.fromarray(np.full((40, 3), 1, np.uint8)).save(masks / "0002.png")
    (masks / "0003.png").write_bytes(b"nothing of the kind")
    (masks / "0004.png").unlink()
    (images / "training" / "0005.png").unlink()
    shutil.copy(images / "training" / "0006.png", images / "validation" / "0001.png")
    code, out, _ = call(capsys, "data", "check", broken, "--json")
    found = json.loads(out)
    assert (code, found["sound"]) == (1, False)
    train = found["parts"]["train"]
    assert {kind: each["count"] for kind, each in train["refused"].items()} == {
        "mask of values without a class": 1,
        "mask of another size": 1,
        "mask that cannot be read": 1,
    }
    assert {kind: each["first"] for kind, each in train["left_out"].items()} == {
        "image without a mask": ["0004.png"],
        "mask without an image": ["0005.png"],
    }
    assert "star" in found["unused_classes"]
    assert len(found["leaked"]) == 1
    code, out, _ = call(capsys, "data", "check", broken)
    assert code == 1
    assert "mask of another size (0002.png" in out
    assert call(capsys, "data", "check", "digits", "--ignore-value", 0)[0] == 2


def test_an_exported_file_is_the_segmenter(capsys, finished, masked, tmp_path):
    file = tmp_path / "segmenter.onnx"
    code, out, err = call(capsys, "export", finished[0], file)
    assert code == 0, err
    segmenter, exported = load(finished[0], device="cpu"), load(file, device="cpu")
    pictures = [Image.effect_noise(size, 90).convert("RGB") for size in ((40, 40), (33, 65), (97, 31))]
    for (_, own), (_, other) in zip(segmenter.logits(pictures), exported.logits(pictures), strict=True):
        np.testing.assert_allclose(other, own, atol=1e-3)
    code, out, _ = call(capsys, "validate", file, masked, "--json", "--device", "cpu")
    assert (code, json.loads(out)["mean_iou"]) == (0, pytest.approx(finished[1].best, abs=1e-3))


def test_a_folder_for_the_hub_is_the_segmenter_and_tells_what_it_costs(capsys, finished, masked, tmp_path):
    assert call(capsys, "export", finished[0], tmp_path / "hub")[0] == 0
    code, out, _ = call(capsys, "validate", tmp_path / "hub", masked, "--json", "--device", "cpu")
    assert (code, json.loads(out)["mean_iou"]) == (0, pytest.approx(finished[1].best))
    code, out, _ = call(capsys, "info", tmp_path / "hub", "--json")
    found = json.loads(out)
    assert (code, found["checkpoint"]["task"], found["input_size"]) == (0, "segmentation", [3, 32, 32])
    assert found["network"]["total"]["parameters"] == sum(each.numel() for each in load(finished[0]).model.parameters())
    code, out, _ = call(capsys, "info", finished[0], "--image-size", 64)
    assert (code, "semantic_fpn on test_resnet.r160_in1k" in out) == (0, True)
    # It has no such layers, and says so.
    code, _, err = call(capsys, "explain", finished[0], masked / "images" / "validation", "--output", tmp_path / "out")
    assert (code, "has no ACmix layer" in err) == (2, True)
