"""A segmenter's run: complete, resumed to the bit, and worth what it says."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from acmix import InputError
from acmix.checkpoints.opening import load
from acmix.checkpoints.segmenter import Segmenter
from acmix.checkpoints.stored import load_trained
from acmix.tasks.loop.progress import Reporting
from acmix.tasks.record import read_run
from acmix.tasks.segmentation.fitting import ROOM
from acmix.tasks.segmentation.inference import measure, predict
from acmix.tasks.segmentation.networks import fresh_network
from tests.runs import unlisted
from tests.tasks.segmentation.conftest import SETTINGS


def fresh(settings):
    torch.manual_seed(settings.seed)
    return fresh_network(settings, 4).state_dict()


def weights(folder):
    return load_trained(folder / "last.safetensors").model.state_dict()


def test_a_run_is_whole_and_says_what_it_found(finished):
    folder, result = finished
    assert unlisted(folder) == []
    found = read_run(folder)
    assert (found.kind.name, found.status, len(found.rows)) == ("segmentation", "finished", 2)
    summary = json.loads((folder / "summary.json").read_text())["validation"]
    row = found.best
    assert summary["mean_iou"] == pytest.approx(row["val_mean_iou"], abs=1e-6) == result.best
    assert summary["pixel_accuracy"] == pytest.approx(row["val_pixel_accuracy"], abs=1e-6)
    assert summary["loss"] == pytest.approx(row["val_loss"], rel=1e-4)
    assert np.sum(summary["confusion_matrix"]) == summary["pixels"] == 4 * 40 * 40


def test_validating_finds_the_same(finished, masked):
    folder, result = finished
    found = measure(load(folder, device="cpu"), str(masked))
    assert found.evaluation.mean_iou == pytest.approx(result.best)
    assert found.record["measured"] == str(masked / "images" / "validation")


def test_a_run_that_stopped_goes_on_to_the_bit(finished, masked, tmp_path):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ROOM.fit(str(masked), SETTINGS, tmp_path / "run", workers=0, reporting=Reporting(on_epoch=stop))
    ROOM.fit(str(masked), SETTINGS, tmp_path / "run", workers=1, resume=True)
    whole, resumed = weights(finished[0]), weights(tmp_path / "run")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_segmenter_predicts_at_the_size_of_each_picture(finished, tmp_path):
    segmenter = load(finished[0], device="cpu")
    assert isinstance(segmenter, Segmenter)
    pictures = [Image.new("RGB", size, "teal") for size in ((40, 40), (33, 65), (1, 7), (97, 31))]
    found = segmenter.predict(pictures)
    assert [labels.shape for labels in found] == [(picture.height, picture.width) for picture in pictures]
    assert all(0 <= labels.min() <= labels.max() < len(segmenter.classes) for labels in found)
    pictures[1].save(tmp_path / "one.png")
    faults = []
    (prediction,) = predict(segmenter, [tmp_path / "one.png", tmp_path / "none.png"], faults)
    np.testing.assert_array_equal(prediction.labels, found[1])
    assert len(faults) == 1
    assert sum(share for _, share in prediction.shares) == pytest.approx(1)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), torch.zeros(4, 4), 7])
def test_what_is_no_picture_is_refused(finished, image):
    with pytest.raises(InputError):
        load(finished[0], device="cpu").predict(image)


def test_start_weights_of_a_segmenter_and_of_its_backbone(finished, masked, tmp_path):
    import timm
    from safetensors.torch import save_file

    classifier = timm.create_model(SETTINGS.backbone)
    save_file(classifier.state_dict(), tmp_path / "classifier.safetensors")
    one = replace(SETTINGS, epochs=1, freeze="network.encoder")
    ROOM.fit(str(masked), one, tmp_path / "a", workers=0, weights=tmp_path / "classifier.safetensors")
    kept, given = weights(tmp_path / "a"), classifier.state_dict()
    assert torch.equal(kept["network.encoder.model.layer1.0.conv1.weight"], given["layer1.0.conv1.weight"])
    ROOM.fit(str(masked), one, tmp_path / "b", workers=0, weights=finished[0])
    name = "network.encoder.model.layer1.0.conv1.weight"
    assert torch.equal(weights(tmp_path / "b")[name], load(finished[0]).model.state_dict()[name].cpu())


def test_masks_that_cannot_be_used_are_named_before_the_folder_is_touched(masked, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(masked, broken)
    Image.fromarray(np.full((3, 40), 1, np.uint8)).save(broken / "annotations" / "training" / "0002.png")
    with pytest.raises(InputError, match=r"0002.png: has 40 x 40 pixels, its mask 40 x 3"):
        ROOM.fit(str(broken), SETTINGS, tmp_path / "run", workers=0)
    assert not (tmp_path / "run").exists()


def test_settings_that_cannot_be(masked, tmp_path):
    for changes, message in (
        ({"backbone": "vit_tiny_patch16_224"}, "does not serve semantic_fpn"),
        ({"decoder_channels": 65}, "multiple of 64"),
        ({"output_stride": 8}, "output_stride is of deeplabv3_plus"),
        ({"model": "unet"}, "is no segmenter"),
        ({"smallest_scale": 3.0}, "largest_scale must be at least"),
        ({"ignore_value": "mountain"}, "must be a number where no file names classes"),
    ):
        with pytest.raises(InputError, match=message):
            ROOM.fit(str(masked), replace(SETTINGS, **changes), tmp_path / "run", workers=0)
    assert not (tmp_path / "run").exists()


def test_a_network_that_cannot_be_is_refused_before_images_are_looked_for(monkeypatch, tmp_path):
    for changes, message in (({"model": "unet"}, "is no segmenter"), ({"backbone": "resnet9999"}, "unknown model")):
        with pytest.raises(InputError, match=message):
            ROOM.fit("nowhere", replace(SETTINGS, **changes), tmp_path / "run")
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ModuleNotFoundError, match="segmentation_models_pytorch"):
        ROOM.fit("nowhere", SETTINGS, tmp_path / "run")


def test_stages_are_counted_in_the_backbone(masked, tmp_path):
    settings = replace(SETTINGS, epochs=1, freeze=1)
    ROOM.fit(str(masked), settings, tmp_path / "run", workers=0)
    start, end = fresh(settings), weights(tmp_path / "run")
    still = {
        name.split(".")[3] for name in end if name.startswith("network.encoder") and torch.equal(start[name], end[name])
    }
    assert {"conv1", "layer1"} <= still
    assert not torch.equal(start["network.decoder.p5.weight"], end["network.decoder.p5.weight"])
    with pytest.raises(InputError, match="freeze must be 0 to 4, the stages of 'semantic_fpn'"):
        ROOM.fit(str(masked), replace(settings, freeze=9), tmp_path / "other", workers=0)


def test_masks_that_changed_since_a_run_began_are_noticed(masked, tmp_path):
    def stop(_):
        raise KeyboardInterrupt

    data = tmp_path / "data"
    shutil.copytree(masked, data)
    mask, most = data / "annotations" / "training" / "0002.png", 1000
    mask.write_bytes(mask.read_bytes() + b"\0" * (most - mask.stat().st_size))
    with pytest.raises(KeyboardInterrupt):
        ROOM.fit(str(data), SETTINGS, tmp_path / "run", workers=0, reporting=Reporting(on_epoch=stop))
    labels = np.asarray(Image.open(mask))
    with Image.open(mask) as image:
        Image.fromarray(np.ascontiguousarray(np.asarray(image)[:, ::-1])).save(mask)
    # As many bytes as before: their number tells nothing.
    mask.write_bytes(mask.read_bytes() + b"\0" * (most - mask.stat().st_size))
    assert not np.array_equal(labels, np.asarray(Image.open(mask)))
    with pytest.raises(InputError, match="contents of images"):
        ROOM.fit(str(data), SETTINGS, tmp_path / "run", workers=0, resume=True)


@pytest.mark.parametrize("part", ["training", "validation"])
def test_masks_that_say_nothing_at_all_are_refused(masked, tmp_path, part):
    data = tmp_path / "data"
    shutil.copytree(masked, data)
    for mask in (data / "annotations" / part).iterdir():
        Image.fromarray(np.full((40, 40), 255, np.uint8)).save(mask)
    (data / "classes.txt").write_text("background\ncircle\nsquare\ntriangle\n")
    with pytest.raises(InputError, match=f"masks of the {part} images say nothing of any pixel \\(255 in all of them"):
        ROOM.fit(str(data), SETTINGS, tmp_path / "run", workers=0)
    assert not (tmp_path / "run").exists()
