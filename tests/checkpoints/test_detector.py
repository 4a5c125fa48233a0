"""A detector's checkpoint: the same detections again, and nothing from a file that breaks a rule."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import acmix
from acmix import InputError
from acmix.checkpoints import sealed
from acmix.checkpoints.detector import Detector, stored_arguments
from acmix.checkpoints.stored import load_trained
from acmix.checkpoints.trained import save_trained
from acmix.models.detectors import DETECTORS, create_detector
from tests.models.test_detectors import SMALL

CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    model_arguments, preprocessing = stored_arguments(SMALL)
    return Detector(
        model=create_detector("retinanet", 3, SMALL).eval(),
        model_name="retinanet",
        classes=CLASSES,
        preprocessing=preprocessing,
        model_arguments=model_arguments,
        training={"settings": {"epochs": 1}},
    )


@pytest.fixture
def saved(original, tmp_path):
    save_trained(tmp_path / "best.safetensors", original)
    return tmp_path / "best.safetensors"


def test_what_is_loaded_finds_the_same(original, saved):
    loaded = acmix.load(saved, device="cpu")
    assert isinstance(loaded, Detector)
    assert (loaded.classes, loaded.arguments, loaded.training) == (CLASSES, SMALL, original.training)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    (one,), (two,) = original.predict(picture, score=0.0), loaded.predict(picture, score=0.0)
    assert len(one) > 0
    assert torch.equal(one.boxes, two.boxes)
    assert one.labels == two.labels == [CLASSES[index] for index in one.classes.tolist()]
    assert (one.scores.diff() <= 0).all()
    # One picture in every form that a program has it in.
    for form in (np.asarray(picture), original.preprocess(picture)):
        (found,) = loaded.predict(form, score=0.0)
        assert torch.allclose(found.boxes, one.boxes, atol=1e-3)
    assert original.as_seen(original.preprocess(picture)).tobytes() == picture.tobytes()
    assert len(loaded.predict([picture, picture], score=1.0)[1]) == 0


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_network_of_other_numbers_takes_the_same_images(name, dtype):
    torch.manual_seed(0)
    model_arguments, preprocessing = stored_arguments(SMALL)
    model = create_detector(name, 3, SMALL).to(dtype)
    detector = Detector(
        model=model, model_name=name, classes=CLASSES, preprocessing=preprocessing, model_arguments=model_arguments
    )
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 40, 60), dtype=np.uint8))
    (one,), (two,) = detector.detect([pixels]), detector.predict(pixels / 255, score=0.0)
    assert len(one) > 0
    assert one.boxes.dtype == torch.float32
    assert torch.equal(one.boxes, two.boxes)


@pytest.mark.parametrize(
    ("part", "change", "fault"),
    [
        ("model_name", "yolo", "unknown detector 'yolo'"),
        ("classes", [], "classes must name at least one"),
        ("classes", ["cat"], "do not fit retinanet"),
        ("task", "classification", "unknown network 'retinanet'"),
        ("task", "tracking", "it is of the task 'tracking', this acmix knows"),
        ("preprocessing", {}, "preprocessing must hold image_size"),
        ("model_arguments", {"backbone": "resnet18", "pretrained": True}, "pretrained unknown"),
        (
            "model_arguments",
            {"backbone": "resnet18", "backbone_arguments": {"pretrained": True}},
            "model_arguments may",
        ),
        ("model_arguments", {"backbone": "resnet18", "pyramid_channels": 10**9}, "pyramid_channels must be 1 to 4096"),
        ("model_arguments", {"backbone": "no_network"}, "unknown network 'no_network'"),
    ],
)
def test_metadata_that_break_a_rule_are_refused(saved, tmp_path, part, change, fault):
    content = sealed.deserialize(saved.read_bytes())
    metadata = json.loads(content.metadata["acmix"]) | {part: change}
    path = tmp_path / "other.safetensors"
    path.write_bytes(sealed.serialize(content.tensors, {"acmix": json.dumps(metadata)}))
    with pytest.raises(InputError, match=fault) as caught:
        load_trained(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "options", "rule"),
    [
        (np.zeros((8, 8), np.uint8), {}, "must be uint8 of shape"),
        ([], {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ("absent.png", {}, "absent.png"),
        ([torch.zeros(3, 8, 8), torch.zeros(1, 8, 8)], {}, r"images\[1\]: must be \(3, H, W\), got \(1, 8, 8\)"),
        (torch.zeros(3, 0, 8), {}, r"must be \(3, H, W\), got \(3, 0, 8\)"),
        (torch.full((3, 8, 8), torch.nan), {}, "the network's answer is not finite"),
        ([], {"score": 50}, "score must be 0 to 1, got 50"),
        ([], {"score": "sure"}, "score must be 0 to 1, got 'sure'"),
    ],
)
def test_images_that_are_none_are_refused(original, images, options, rule):
    with pytest.raises(InputError, match=rule):
        original.predict(images, **options)


def test_other_weights_are_refused(original, tmp_path):
    other = replace(original, model_arguments=original.model_arguments | {"pyramid_channels": 16})
    save_trained(tmp_path / "other.safetensors", other)
    with pytest.raises(InputError, match="do not fit retinanet"):
        load_trained(tmp_path / "other.safetensors")
