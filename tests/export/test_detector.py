"""Detectors in ONNX Runtime: what PyTorch finds, of one size of images."""

import json
from dataclasses import replace

import onnx
import onnxruntime
import pytest
import torch

from acmix import InputError
from acmix.export import detector as exporting
from acmix.export.checking import ExportError
from acmix.export.detector import detector_to_onnx
from acmix.models.detectors import DETECTORS, create_detector
from tests.models.test_detectors import SMALL


@pytest.mark.parametrize("name", DETECTORS)
def test_what_onnx_runtime_finds_is_what_pytorch_finds(name, tmp_path):
    torch.manual_seed(0)
    network = create_detector(name, 3, SMALL).eval()
    written = detector_to_onnx(network, tmp_path / "found.onnx", image_size=(32, 32), metadata={"classes": ["a"]})
    assert written.input_size == (1, 3, 32, 32)
    assert written.outputs[:3] == ("boxes", "scores", "labels")
    assert (len(written.outputs) == 4) == (name == "mask_rcnn")
    assert written.compared > 40
    assert written.lost <= 0.02 * written.compared
    assert written.difference < 1e-3
    assert [path.name for path in tmp_path.iterdir()] == ["found.onnx"]
    model = onnx.load(str(written.path))
    assert json.loads({each.key: each.value for each in model.metadata_props}["acmix"]) == {"classes": ["a"]}
    session = onnxruntime.InferenceSession(str(written.path))
    image = torch.rand(1, 3, 32, 32)
    boxes, scores, labels, *_ = session.run(None, {"images": image.numpy()})
    assert len(boxes) == len(scores) == len(labels) > 0
    assert set(labels.tolist()) <= {0, 1, 2}


def test_positions_are_resized_as_pytorch_does(tmp_path, capfd):
    """PyTorch's exporter does not know how, and writes its whole graph to the terminal where it fails."""
    torch.manual_seed(0)
    own = replace(SMALL, backbone="acmix_pvt_tiny", pyramid_levels=1, image_size=48, longest_side=96)
    network = create_detector("retinanet", 3, own).eval()
    written = detector_to_onnx(network, tmp_path / "found.onnx", image_size=(48, 48))
    assert written.lost <= 0.02 * written.compared
    assert written.difference < 1e-3
    assert capfd.readouterr().out == ""


def test_a_file_that_finds_something_else_is_not_kept(tmp_path, monkeypatch):
    network = create_detector("retinanet", 3, SMALL).eval()
    (tmp_path / "found.onnx").write_text("before")
    monkeypatch.setattr(exporting, "_gaps", lambda own, _: torch.full((len(own[0]),), torch.inf))
    with pytest.raises(ExportError, match="ONNX Runtime lacks .* detections of PyTorch"):
        detector_to_onnx(network, tmp_path / "found.onnx", image_size=(32, 32))
    assert (tmp_path / "found.onnx").read_text() == "before"


def test_where_nothing_can_be_written_says_so(tmp_path):
    network = create_detector("retinanet", 3, SMALL)
    with pytest.raises(InputError, match="is not a folder; make it first"):
        detector_to_onnx(network, tmp_path / "none" / "found.onnx", image_size=(32, 32))
    with pytest.raises(InputError, match="path must be a file, got the folder"):
        detector_to_onnx(network, tmp_path, image_size=(32, 32))
    for size in ((0, 32), (32,)):
        with pytest.raises(InputError, match=r"image_size must be two positive sizes \(H, W\), got "):
            detector_to_onnx(network, tmp_path / "found.onnx", image_size=size)
