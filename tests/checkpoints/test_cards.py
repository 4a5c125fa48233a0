"""Detectors and segmenters as folders for the hub: the same networks again, and cards whose programs run."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

import acmix
from acmix import InputError
from acmix.checkpoints.detector import Detector, stored_arguments
from acmix.checkpoints.hub import from_pretrained, save_pretrained
from acmix.checkpoints.segmenter import Segmenter
from acmix.models.detectors import create_detector
from acmix.models.segmenters import segmenter
from tests.models.test_detectors import SMALL

CLASSES = ("cat", "```\n# dog", "größer")
TRAINING = {
    "settings": {"epochs": 3},
    "data": {"location": "/home/somebody/pets"},
    "weights": None,
    "trained_images": {"contents": "megabytes"},
}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def a_detector(name):
    torch.manual_seed(0)
    model_arguments, preprocessing = stored_arguments(SMALL)
    return Detector(
        model=create_detector(name, len(CLASSES), SMALL).eval(),
        model_name=name,
        classes=CLASSES,
        preprocessing=preprocessing,
        model_arguments=model_arguments,
        training=TRAINING | {"metrics": {"epoch": 2, "val_map": 0.625}},
    )


def a_segmenter(name):
    pytest.importorskip("segmentation_models_pytorch")
    arguments = {"backbone": "acmix_resnet14_small", "decoder_channels": 64}
    return Segmenter(
        model=segmenter(name, num_classes=len(CLASSES), **arguments).eval(),
        model_name=name,
        classes=CLASSES,
        preprocessing={
            "input_size": (3, 32, 32),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.2, 0.2, 0.2),
            "short_side": 48,
            "mask_values": (0, 1, 2),
            "ignored_values": (255,),
        },
        model_arguments=arguments,
        training=TRAINING | {"metrics": {"epoch": 2, "val_mean_iou": 0.625}},
    )


@pytest.fixture(scope="module", params=["retinanet", "mask_rcnn", "semantic_fpn"])
def original(request):
    return (a_segmenter if request.param == "semantic_fpn" else a_detector)(request.param)


@pytest.fixture(scope="module")
def saved(original, tmp_path_factory):
    return save_pretrained(original, tmp_path_factory.mktemp("hub") / "pets", license="mit")


def answer(network, image=PICTURE):
    (found,) = network.predict(image, score=0.0) if isinstance(network, Detector) else network.predict(image)
    return found.boxes.numpy() if isinstance(network, Detector) else found


def test_a_folder_gives_the_network_again(original, saved, tmp_path):
    for place in (saved, saved / "model.safetensors", f"local-dir:{saved}"):
        loaded = acmix.load(place, device="cpu")
        assert type(loaded) is type(original)
        assert (loaded.classes, loaded.network) == (original.classes, original.network)
        assert loaded.preprocessing == original.preprocessing
        assert loaded.training == {key: item for key, item in original.training.items() if key != "trained_images"}
    assert answer(loaded).size
    np.testing.assert_array_equal(answer(loaded), answer(original))
    # And on from there, in place of what was there.
    again = save_pretrained(loaded, shutil.copytree(saved, tmp_path / "again"))
    assert from_pretrained(again).classes == original.classes


def test_the_card_says_what_it_is(original, saved):
    card = ModelCard.load(saved / "README.md")
    segments = isinstance(original, Segmenter)
    assert card.data.library_name == "acmix"
    assert card.data.pipeline_tag == ("image-segmentation" if segments else "object-detection")
    assert card.data.license == "mit"
    assert ("instance-segmentation" in card.data.tags) == (original.model_name == "mask_rcnn")
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("mean IoU" if segments else "AP", 0.625)
    parameters = sum(parameter.numel() for parameter in original.model.parameters())
    size = "48 pixels the shorter side" if segments else "32 pixels the shorter side, at most"
    for fact in (original.network, "for 3 classes", f"{parameters:,} parameters", size, "`pets`", "fresh weights"):
        assert fact in card.text
    assert "somebody" not in card.text
    classes, training = (json.loads(block) for block in re.findall(r"^```json\n(.*?)\n```$", card.text, re.M | re.S))
    assert tuple(classes) == CLASSES
    assert training == {key: original.training[key] for key in ("settings", "metrics")}


def test_the_code_on_the_card_runs(original, saved):
    (program,) = re.findall(r"^```python\n(.*?)\n```$", (saved / "README.md").read_text(), re.M | re.S)
    program = program.replace("hf-hub:USER/NAME", f"local-dir:{saved}").replace("score=0.5", "score=0.0")
    names = {"image": PICTURE}
    exec(program, names)  # noqa: S102
    found = names["found"].boxes.numpy() if isinstance(original, Detector) else names["labels"]
    np.testing.assert_array_equal(found, answer(original))


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"acmix": None}, "its config.json is not timm's: pretrained_cfg missing"),
        ({"model_name": "yolo"}, "unknown (detector|network) 'yolo'"),
        ({"task": "tracking"}, "it is of the task 'tracking', this acmix knows"),
        ({"task": ["detection"]}, "task must be text"),
        ({"classes": []}, "classes must name at least one"),
        ({"format_version": 99}, "it has format version 99"),
        ({"model_arguments": {"backbone": "resnet18", "pretrained": True}}, "pretrained|model_arguments may hold"),
    ],
)
def test_a_folder_that_breaks_a_rule_is_refused(saved, tmp_path, changes, rule):
    folder = Path(shutil.copytree(saved, tmp_path / "copied"))
    config = json.loads((folder / "config.json").read_text())
    if "acmix" in changes:
        config |= changes
    else:
        config["acmix"] |= changes
        del config["acmix"]["config_sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=rule) as caught:
        from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_a_byte_that_changed_is_noticed(saved, tmp_path):
    folder = Path(shutil.copytree(saved, tmp_path / "copied"))
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"epoch": 2', '"epoch": 3'))
    with pytest.raises(InputError, match="its config.json was changed since it was written"):
        from_pretrained(folder)
