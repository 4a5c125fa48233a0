"""A detector's ONNX file opened again: the same objects where the file can find them, in images of every size."""

import numpy as np
import pytest
import torch
from PIL import Image

import acmix
from acmix import InputError
from acmix.checkpoints.detector import Detector
from acmix.checkpoints.onnx_detector import OnnxDetector
from acmix.checkpoints.onnx_files import metadata_of, open_onnx
from acmix.export.detector import detector_to_onnx
from tests.checkpoints.test_cards import a_detector

onnx = pytest.importorskip("onnx")
SIDE = 32


@pytest.fixture(scope="module", params=["retinanet", "mask_rcnn"])
def pair(request, tmp_path_factory):
    """A detector, and the same of its file."""
    detector = a_detector(request.param)
    file = tmp_path_factory.mktemp("onnx") / "found.onnx"
    detector_to_onnx(detector.model, file, image_size=(SIDE, SIDE), metadata=metadata_of(detector))
    return detector, acmix.load(file, device="cpu"), file


def picture(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("side", [SIDE, 50, 7])
def test_square_images_have_the_same_objects(pair, side):
    original, exported, _ = pair
    assert isinstance(exported, Detector)
    assert (exported.classes, exported.network, exported.category_ids) == (
        original.classes,
        original.network,
        (1, 2, 3),
    )
    (own,), (found,) = (each.predict(picture(side, side), score=0.0) for each in (original, exported))
    assert len(found) == pytest.approx(len(own), abs=2)
    count = min(len(found), len(own), 20)
    assert torch.allclose(found.scores[:count], own.scores[:count], atol=1e-3)
    missing = [
        place
        for place in range(count)
        if not ((found.boxes - own.boxes[place]).abs().amax(1) < 0.2)[found.classes == own.classes[place]].any()
    ]
    assert len(missing) <= 1
    if own.masks is not None:
        assert found.masks.shape[1:] == (side, side)


@pytest.mark.parametrize("size", [(64, 20), (20, 64), (1, 40), (300, 200)])
def test_boxes_of_other_images_lie_within_them(pair, size):
    _, exported, _ = pair
    width, height = size
    (found,) = exported.predict(picture(width, height), score=0.0)
    assert len(found) > 0
    left, top, right, bottom = found.boxes.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= width).all()
    assert (bottom <= height).all()
    assert ((right > left) & (bottom > top)).all()
    if found.masks is not None:
        assert found.masks.shape[1:] == (height, width)


def test_a_byte_that_changed_is_noticed(pair, tmp_path):
    content = bytearray(pair[2].read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "changed.onnx").write_bytes(content)
    with pytest.raises(InputError, match="is damaged, or another program has changed it"):
        open_onnx(tmp_path / "changed.onnx", None)


class Session:
    """A graph of any inputs and outputs."""

    def __init__(self, shape, kind, names):
        self._inputs = [Part("images", shape, kind)]
        self._outputs = [Part(name, ["n"], kind) for name in names]

    def get_inputs(self):
        return self._inputs

    def get_outputs(self):
        return self._outputs


class Part:
    def __init__(self, name, shape, kind):
        self.name, self.shape, self.type = name, shape, kind


@pytest.mark.parametrize(
    ("shape", "kind", "names", "rule"),
    [
        (["batch", 3, 8, 8], "tensor(float)", ("boxes", "scores", "labels"), "it must take one image"),
        ([1, 3, "height", 8], "tensor(float)", ("boxes", "scores", "labels"), "it must take one image"),
        ([1, 3, 8, 8], "tensor(float16)", ("boxes", "scores", "labels"), "it must take one image"),
        ([1, 3, 8, 8], "tensor(float)", ("logits",), "it must give boxes, scores, labels"),
    ],
)
def test_graphs_of_something_else_are_refused(shape, kind, names, rule):
    with pytest.raises(InputError, match=rule):
        OnnxDetector(Session(shape, kind, names), (0.5, 0.5, 0.5), 3)
