"""A detector is trained by the loop that trains classifiers, with what that guarantees."""

import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import acmix
from acmix import InputError
from acmix.checkpoints.detector import Detector
from acmix.paths import operators_of
from acmix.tasks.detection.inference import measure
from acmix.tasks.detection.networks import cost, fresh_detector
from acmix.tasks.loop.progress import Reporting
from acmix.tasks.record import read_run
from tests.runs import unlisted
from tests.tasks.detection.conftest import SETTINGS, train, weights


def test_a_run_is_whole(finished, shapes):
    config = json.loads((finished.output / "config.json").read_text())
    summary = json.loads((finished.output / "summary.json").read_text())
    assert (config["task"], summary["task"], config["classes"]) == ("detection", "detection", [*SHAPES])
    assert summary["validation"]["map"] == summary["best"] == finished.best
    assert {"map_50", "map_75", "map_small", "mar_100", "classes"} <= summary["validation"].keys()
    assert unlisted(finished.output) == []
    run = read_run(finished.output)
    assert [measure.name for measure in run.measures] == ["val_map", "val_map_50", "val_map_75"]
    assert run.best["val_map"] == pytest.approx(finished.best, abs=1e-6)
    detector = acmix.load(finished.output, device="cpu")
    assert isinstance(detector, Detector)
    again = measure(detector, shapes, check_images=False)
    assert again.evaluation == finished.validation
    assert again.found.measured.endswith("instances_val.json")


SHAPES = ("circle", "square", "triangle")


@pytest.mark.parametrize("model", ["fcos", "faster_rcnn", "mask_rcnn"])
def test_every_network_trains_and_is_loaded_again(trained, shapes, model):
    result = trained(model)
    (found,) = result.load().predict(f"{shapes}/val/0001.png", score=0.0)
    assert found.boxes.shape == (len(found), 4)
    assert set(found.labels) <= set(SHAPES)
    assert (found.masks is not None) == (model == "mask_rcnn") == (result.validation.masks is not None)
    if found.masks is not None:
        assert found.masks.shape == (len(found), 32, 32)


@pytest.mark.parametrize("model", ["retinanet", "mask_rcnn"])
def test_boxes_are_exact_in_mixed_precision(shapes, tmp_path, model, monkeypatch):
    seen = []
    forward = GeneralizedRCNNTransform.forward

    def look(self, images, targets=None):
        seen.extend(target["boxes"] for target in targets or ())
        return forward(self, images, targets)

    monkeypatch.setattr(GeneralizedRCNNTransform, "forward", look)
    settings = replace(SETTINGS, model=model, epochs=1, precision="bfloat16", smallest_scale=1.0, largest_scale=1.0)
    result = train(shapes, tmp_path / "run", settings)
    assert result.epochs == 1
    assert all(boxes.dtype == torch.float32 for boxes in seen)
    assert any((boxes != boxes.bfloat16().float()).any() for boxes in seen)


def test_a_classifier_starts_the_backbone(shapes, tmp_path):
    path = tmp_path / "start.safetensors"
    classifier = acmix.create_model("acmix_resnet14_small", num_classes=7)
    safetensors.torch.save_file(classifier.state_dict(), path)
    said = {}
    settings = replace(SETTINGS, epochs=1, freeze="detector.backbone.body")
    train(shapes, tmp_path / "run", settings, weights=path, reporting=Reporting(on_start=said.update))
    assert "into the backbone" in said["weights"]
    assert "not used: " in said["weights"]
    body = "detector.backbone.body."
    for name, value in weights(tmp_path / "run").items():
        if name.startswith(body):
            assert torch.equal(value, classifier.state_dict()[name.removeprefix(body)]), name
    # A detector's weights go into a detector, with other classes but for what answers.
    said.clear()
    train(shapes, tmp_path / "more", replace(SETTINGS, epochs=1), weights=tmp_path / "run" / "best.safetensors")
    other = replace(SETTINGS, pyramid_channels=16)
    with pytest.raises(InputError, match="do not fit the model"):
        train(shapes, tmp_path / "other", other, weights=tmp_path / "run" / "best.safetensors")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"model": "fcos", "pyramid_channels": 8}, "pyramid_channels must be a multiple of 32 for fcos, got 8"),
        ({"finest_stride": 5}, "finest_stride must be one of 2, 4, 8, 16"),
        ({"pyramid_levels": 8}, "pyramid_levels must be 1 to 5 for retinanet"),
        ({"backbone": "acmix_resnet14_smal"}, "acmix_resnet14_small"),
        ({"backbone": "resnet18", "acmix_stages": 4}, "'resnet18' takes no acmix_stages; leave it out"),
        ({"acmix_stages": "all"}, "acmix_stages must be stages of 1, 2, 3, 4, or 0 for none, got 'all'"),
        ({"backbone": "vit_tiny_patch16_224"}, "vit_tiny_patch16_224"),
        ({"freeze": 9}, "freeze must be 0 to 3, the stages of"),
        ({"longest_side": 16}, "longest_side must be at least image_size = 32, got 16"),
        ({"smallest_scale": 2.0}, "smallest_scale must be at most largest_scale = 1.25, got 2.0"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(shapes, tmp_path, changes, rule):
    with pytest.raises(InputError, match=rule) as caught:
        train(shapes, tmp_path / "run", replace(SETTINGS, **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("stages", "layers"), [(0, set()), ("3,4", {"layer3", "layer4"})])
def test_stages_of_the_backbone_have_the_operator(shapes, tmp_path, stages, layers):
    settings = replace(SETTINGS, epochs=1, pyramid_levels=3, acmix_stages=stages)
    found = train(shapes, tmp_path / "run", settings).load()
    assert {name.split(".")[3] for name in operators_of(found.model)} == layers
    rows = read_run(tmp_path / "run")
    assert rows.kind.multiply_adds(rows.config) == cost(found).network.total.multiply_adds


def test_figures_of_sizes_are_kept_where_there_are_such_objects(finished):
    rows = read_run(finished.output).rows
    # Pictures of 32 pixels have none but small ones.
    assert {name for name in rows[0] if "map" in name} == {"val_map", "val_map_50", "val_map_75", "val_map_small"}
    assert rows[-1]["val_map_small"] == pytest.approx(rows[-1]["val_map"], abs=1e-6)


def test_a_frozen_norm_stays_as_it_is(shapes, tmp_path):
    settings = replace(SETTINGS, epochs=1, freeze_norms=True)
    train(shapes, tmp_path / "run", settings)
    fresh = fresh_detector(settings, 3)
    before = {name: value for name, value in fresh.state_dict().items() if "running_" in name}
    after = weights(tmp_path / "run")
    assert before
    assert all(torch.equal(after[name], value) for name, value in before.items())
