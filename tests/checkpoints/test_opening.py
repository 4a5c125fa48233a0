import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from timm.data import resolve_data_config

import acmix
from acmix import InputError
from acmix.checkpoints import load_state_dict, opening
from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.hub import save_pretrained
from acmix.checkpoints.onnx_files import metadata_of
from acmix.checkpoints.trained import save_trained
from acmix.export import to_onnx

NAME = "acmix_resnet14_small"
ACCEPTED = "give a run folder of acmix train, its best.safetensors or last.safetensors, or a folder that acmix export"


@pytest.fixture(scope="module")
def original():
    model = timm.create_model(NAME, num_classes=3).eval()
    preprocessing = resolve_data_config({"img_size": 16}, model=model)
    return Classifier(
        model=model,
        model_name=NAME,
        classes=("ant", "bee", "cat"),
        preprocessing=preprocessing,
        training={"weights": None, "trained_images": {"a": "b"}},
    )


@pytest.fixture(scope="module")
def places(original, tmp_path_factory):
    """Everything that holds the network, by what it is."""
    folder = tmp_path_factory.mktemp("places")
    run = folder / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    for name in ("best.safetensors", "last.safetensors"):
        save_trained(run / name, original)
    exported = save_pretrained(original, folder / "exported")
    size = original.preprocessing["input_size"]
    half = copy.deepcopy(original.model).half()
    for name, network in (("whole", original.model), ("half", half), ("one", original.model)):
        dynamic = name == "whole"
        to_onnx(network, folder / f"{name}.onnx", input_size=size, dynamic=dynamic, metadata=metadata_of(original))
    renamed = folder / "best.onnx"
    shutil.copy(run / "best.safetensors", renamed)
    return {
        "run": run,
        "best": run / "best.safetensors",
        "last": run / "last.safetensors",
        "exported": exported,
        "its weights": exported / "model.safetensors",
        "its address": f"local-dir:{exported}",
        "onnx": folder / "whole.onnx",
        "half": folder / "half.onnx",
        "one image": folder / "one.onnx",
        "misnamed": renamed,
    }


PLACES = ("run", "best", "last", "exported", "its weights", "its address", "onnx", "half", "one image", "misnamed")
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), np.uint8)


@pytest.mark.parametrize("kind", PLACES)
def test_whatever_holds_a_network_predicts_alike(original, places, kind):
    network = acmix.load(places[kind], device="cpu")
    assert network.classes == original.classes
    labels, probabilities = network.predict(IMAGES, batch_size=2)
    with torch.no_grad():
        batch = torch.stack([network.preprocess(image) for image in IMAGES])
        expected = original.model(batch).softmax(1)
        logits = network.model(batch)
    tolerance = 2e-3 if kind == "half" else 1e-5
    torch.testing.assert_close(probabilities, expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(logits.float().softmax(1), expected, atol=tolerance, rtol=0)
    assert labels == [original.classes[index] for index in expected.argmax(1)]
    assert network.training["weights"] is None


@pytest.mark.parametrize("kind", ["best", "onnx"])
def test_images_of_every_kind_are_one(places, tmp_path, kind):
    network = acmix.load(places[kind])
    Image.fromarray(IMAGES[0]).save(tmp_path / "a.png")
    kinds = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(IMAGES[0]), IMAGES[0]]
    kinds.append(network.preprocess(IMAGES[0]))
    labels, probabilities = network.predict(kinds)
    assert len(set(labels)) == 1
    torch.testing.assert_close(probabilities, probabilities[:1].expand(5, 3), atol=1e-6, rtol=0)
    for image in kinds:
        alone, row = network.predict(image)
        assert alone == labels[:1]
        torch.testing.assert_close(row, probabilities[:1], atol=1e-6, rtol=0)
    labels_of_none, rows = network.predict(iter(()))
    assert (labels_of_none, rows.shape) == ([], (0, 3))
    assert network.model(torch.zeros(0, 3, 16, 16)).shape == (0, 3)
    assert network.predict(iter(kinds), batch_size=2)[0] == labels


@pytest.mark.parametrize("kind", ["best", "onnx", "one image"])
def test_images_that_cannot_be_are_named(places, kind):
    network = acmix.load(places[kind])
    good = network.preprocess(IMAGES[0])
    with pytest.raises(InputError, match=r"images\[1\]: the network's answer is not finite"):
        network.predict([good, torch.full_like(good, torch.nan)])
    with pytest.raises(InputError, match=r"images must be \(B, C, H, W\) like \(1, 3, 16, 16\), got \(1, 1, 16, 16\)"):
        network.predict(good[:1])
    with pytest.raises(InputError, match=r"images\[1\]: must be of the shape of images\[0\]"):
        network.predict([good, torch.zeros(3, 8, 8)])
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        network.predict(good, batch_size=0)
    if kind == "one image":
        with pytest.raises(
            InputError, match=r"images must be like \(3, 16, 16\), got \(3, 8, 8\): ONNX Runtime does not"
        ):
            network.predict(torch.zeros(3, 8, 8))


def test_a_network_that_trains_predicts_as_ever(places):
    network = acmix.load(places["best"])
    expected = network.predict(IMAGES)[1]
    network.model.train()
    assert torch.equal(network.predict(IMAGES)[1], expected)


def test_the_device_reaches_model_and_images(places, monkeypatch):
    monkeypatch.setattr(opening, "find_device", lambda name: torch.device(name))
    network = acmix.load(places["run"], device="meta")
    assert network.device.type == "meta"
    assert all(parameter.is_meta for parameter in network.model.parameters())
    seen = []
    network.model.register_forward_pre_hook(lambda _, images: seen.append(images[0].device.type))
    with pytest.raises(NotImplementedError):
        network.predict(IMAGES)
    assert seen == ["meta"]
    with pytest.raises(InputError, match=r"device meta cannot be used for .*: the installed ONNX Runtime"):
        acmix.load(places["onnx"], device="meta")


def test_folders_stand_for_their_weights(original, places):
    expected = original.model.state_dict()
    for kind in ("run", "exported"):
        assert load_state_dict(places[kind]).keys() == expected.keys()
    with pytest.raises(InputError, match="is a folder without best.safetensors, model.safetensors or .*; give"):
        load_state_dict(places["run"].parent)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_onnx_runtime_does_not_fall_back(places, monkeypatch):
    monkeypatch.setattr(opening, "find_device", torch.device)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(InputError, match="device cuda cannot be used for .*: ONNX Runtime finds no libraries for it"):
        acmix.load(places["onnx"], device="cuda")


def test_devices_are_checked_first():
    with pytest.raises(InputError, match="device must be one of"):
        acmix.load("absent", device="gpu")


def test_what_holds_no_network_is_refused(places, tmp_path):
    def refused(path, rule):
        with pytest.raises(InputError, match=rule) as caught:
            acmix.load(path)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "absent", "does not exist")
    refused(tmp_path, f"is a folder that holds no network; {ACCEPTED}")
    refused(places["run"].parent, f"is a folder that holds no network but the runs run; {ACCEPTED}")
    (tmp_path / "config.json").write_text('{"settings": {}}')
    refused(tmp_path, "is a run that has no best.safetensors yet: no epoch is finished")
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    refused(tmp_path, "has no model.safetensors")
    (tmp_path / "config.json").write_text("[" * 10_000)
    refused(tmp_path, "is a run that has no best.safetensors yet")
    safetensors.torch.save_file({"weight": torch.ones(1)}, tmp_path / "other.safetensors")
    refused(tmp_path / "other.safetensors", f"no acmix metadata.*; {ACCEPTED}")
    torch.save({"weight": torch.ones(1)}, tmp_path / "state.pt")
    refused(tmp_path / "state.pt", f"is damaged or not a safetensors file .*; {ACCEPTED}")
    refused(places["run"] / "config.json", ACCEPTED)


def test_what_needs_layers_takes_no_onnx(places):
    rule = "is a graph for ONNX Runtime; acmix explain needs the network's layers: give a run folder"
    with pytest.raises(InputError, match=rule):
        opening.load_network(places["onnx"], "acmix explain")
    assert opening.load_network(places["misnamed"], "acmix explain").classes == ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("metadata", "rule"),
    [
        (None, "it holds no acmix metadata, so that its classes and the size of its images are not known"),
        ({"classes": ["a"]}, "its metadata are unusable: preprocessing missing"),
        ({"classes": ["a"] * 4}, "it must give logits of 4 classes, got "),
        ({"classes": []}, "classes must name at least one"),
        ({"preprocessing": {"mean": 3}}, "preprocessing must hold"),
    ],
)
def test_graphs_of_others(places, tmp_path, metadata, rule):
    graph = onnx.load(places["one image"])
    known = json.loads(graph.metadata_props[0].value)
    whole = rule.endswith("missing")
    del graph.metadata_props[:]
    if metadata is not None:
        entry = graph.metadata_props.add()
        entry.key, entry.value = "acmix", json.dumps(metadata if whole else known | metadata)
    onnx.save(graph, tmp_path / "other.onnx")
    with pytest.raises(
        InputError, match=f"checkpoint .*other.onnx cannot be used: {rule}.*an .onnx that acmix export wrote"
    ):
        acmix.load(tmp_path / "other.onnx")


def test_graphs_that_take_no_images(original, places, tmp_path):
    for network, size, rule in (
        (torch.nn.Flatten(), (3, 16, 16), "it must give logits of 3 classes, got "),
        (torch.nn.Conv2d(3, 3, 1), (3, 16, 16), "it must give logits of 3 classes, got "),
    ):
        to_onnx(network, tmp_path / "other.onnx", input_size=size, dynamic=False, metadata=metadata_of(original))
        with pytest.raises(InputError, match=rule):
            acmix.load(tmp_path / "other.onnx")
    (tmp_path / "damaged.onnx").write_bytes(places["onnx"].read_bytes()[:2000])
    (tmp_path / "empty.onnx").touch()
    for name in ("damaged.onnx", "empty.onnx"):
        with pytest.raises(InputError, match=f"checkpoint .*{name} cannot be used: ONNX Runtime does not open it: "):
            acmix.load(tmp_path / name)


def test_metadata_of_a_graph_hold_no_digests(original):
    assert metadata_of(original)["training"] == {"weights": None}
    assert metadata_of(replace(original, training={}))["training"] == {}
