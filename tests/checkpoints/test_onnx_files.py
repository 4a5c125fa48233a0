import json

import pytest
import torch
from torch import nn

from acmix import InputError
from acmix.checkpoints import onnx_digest
from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.onnx_files import metadata_of, open_onnx
from acmix.checkpoints.opening import load
from acmix.export import to_onnx

onnx = pytest.importorskip("onnx")

PREPROCESSING = {
    "input_size": (3, 8, 8),
    "interpolation": "bilinear",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "crop_pct": 1.0,
    "crop_mode": "center",
}


@pytest.fixture(scope="module", params=[False, True], ids=["one", "several"])
def exported(request, tmp_path_factory):
    torch.manual_seed(0)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)).eval()
    classifier = Classifier(
        model=network,
        model_name="small",
        classes=("ant", "bee", "größer"),
        preprocessing=PREPROCESSING,
        multi_label=request.param,
    )
    path = tmp_path_factory.mktemp("exported") / "small.onnx"
    to_onnx(network, path, input_size=(3, 8, 8), metadata=metadata_of(classifier))
    return classifier, path


def test_a_file_is_the_classifier_again(exported):
    classifier, path = exported
    found = load(path, device="cpu")
    assert (found.classes, found.multi_label) == (classifier.classes, classifier.multi_label)
    images = torch.rand(2, 3, 8, 8)
    assert found.predict(images)[0] == classifier.predict(images)[0]
    torch.testing.assert_close(found.predict(images)[1], classifier.predict(images)[1])


def test_an_older_acmix_takes_several_labels_for_nothing(exported):
    classifier, path = exported
    stored = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert ("classes" in json.loads(stored["acmix"])) is not classifier.multi_label


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_a_changed_byte_is_noticed(exported, tmp_path, share):
    content = bytearray(exported[1].read_bytes())
    content[int(share * len(content))] ^= 1
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(content)
    with pytest.raises(InputError, match=r"changed.onnx cannot be used: its content is not what was exported"):
        open_onnx(changed, None)


def test_a_changed_digest_is_noticed(exported, tmp_path):
    content = bytearray(exported[1].read_bytes())
    place = content.index(onnx_digest.KEY.encode()) + len(onnx_digest.KEY) + 2
    content[place] = ord("0") if content[place] != ord("0") else ord("1")
    (tmp_path / "changed.onnx").write_bytes(content)
    with pytest.raises(InputError, match="not what was exported"):
        open_onnx(tmp_path / "changed.onnx", None)


def test_files_without_a_digest_are_read(exported, tmp_path):
    model = onnx.load(exported[1])
    kept = [entry for entry in model.metadata_props if entry.key != onnx_digest.KEY]
    assert len(kept) == len(model.metadata_props) - 1
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tmp_path / "old.onnx")
    assert open_onnx(tmp_path / "old.onnx", None).classes == exported[0].classes
