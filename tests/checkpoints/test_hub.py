import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import ModelCard, constants
from huggingface_hub.errors import RepositoryNotFoundError, Response
from PIL import Image
from timm.data import resolve_data_config

from acmix import InputError
from acmix.checkpoints import hub
from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.hub import from_pretrained, save_pretrained
from acmix.checkpoints.stored import load_trained
from acmix.checkpoints.trained import save_trained

NAME = "acmix_resnet14_small"
FILES = ["README.md", "config.json", "model.safetensors"]
IMAGES = torch.linspace(-2, 2, 2 * 3 * 48 * 48).view(2, 3, 48, 48)


@pytest.fixture(scope="module")
def original():
    """Everything unlike the network's own configuration."""
    model = timm.create_model(NAME, num_classes=3).eval()
    settings = {"img_size": 48, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop_pct": 0.9}
    return Classifier(
        model=model,
        model_name=NAME,
        classes=("ant", "```\n# bee", "größer"),
        preprocessing=resolve_data_config(settings, model=model),
        training={
            "settings": {"epochs": 3, "learning_rate": 0.1},
            "data": {"location": "/home/somebody/insects", "val_fraction": 0.2},
            "weights": "/home/somebody/start.pth",
            "metrics": {"epoch": 2, "val_top1": 0.875},
        },
    )


@pytest.fixture(scope="module")
def saved(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "new" / "insects"
    assert save_pretrained(original, folder) == folder
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "copied"))


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def change_config(folder, **changes):
    """Rewrite config.json as somebody who knows of its digest; a change of None removes the key."""
    config = json.loads((folder / "config.json").read_text()) | changes
    if isinstance(config["acmix"], dict):
        config["acmix"].pop("config_sha256", None)
    (folder / "config.json").write_text(json.dumps({key: item for key, item in config.items() if item is not None}))


def refused(source, rule):
    with pytest.raises(InputError, match=rule) as caught:
        from_pretrained(source)
    assert "\n" not in str(caught.value)


def test_round_trip(original, saved, tmp_path):
    loaded = from_pretrained(saved)
    assert not loaded.model.training
    assert torch.equal(loaded.model(IMAGES), original.model(IMAGES))
    assert (loaded.model_name, loaded.classes) == (original.model_name, original.classes)
    assert loaded.preprocessing == original.preprocessing
    assert loaded.training == original.training
    assert set(loaded.versions) == {"acmix", "torch", "timm"}
    assert from_pretrained(f"local-dir:{saved}").classes == original.classes
    save_trained(tmp_path / "again.safetensors", loaded)
    again = load_trained(tmp_path / "again.safetensors")
    assert (again.classes, again.preprocessing) == (original.classes, original.preprocessing)


def test_files(original, saved, tmp_path):
    assert listed(saved) == FILES
    assert original.model.pretrained_cfg["input_size"] == (3, 32, 32)
    (tmp_path / "plain").touch()
    assert {(saved / name).stat().st_mode for name in FILES} == {(tmp_path / "plain").stat().st_mode}
    config = json.loads((saved / "config.json").read_text())
    assert config["architecture"] == NAME
    assert config["num_classes"] == config["pretrained_cfg"]["num_classes"] == 3
    assert config["pretrained_cfg"]["classifier"] == "fc"


def test_only_arguments_of_the_classifier_are_written(original, tmp_path):
    """timm's factory remembers all that it was told."""
    model = timm.create_model(NAME, num_classes=3, zero_init_last=False, drop_path_rate=0.1).eval()
    save_pretrained(replace(original, model=model, model_arguments={"drop_path_rate": 0.1}), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_args"] == {"drop_path_rate": 0.1}
    assert torch.equal(from_pretrained(tmp_path).model(IMAGES), model(IMAGES))


@pytest.mark.parametrize("source", ["local-dir", "hf-hub"])
def test_timm_loads_it(original, saved, monkeypatch, source):
    def download(repo_id, filename, **_):
        assert repo_id == "somebody/insects"
        return str(saved / filename)

    monkeypatch.setattr(timm.models._hub, "hf_hub_download", download)
    name = f"local-dir:{saved}" if source == "local-dir" else "hf-hub:somebody/insects"
    model = timm.create_model(name, pretrained=True).eval()
    assert torch.equal(model(IMAGES), original.model(IMAGES))
    preprocessing = resolve_data_config({}, model=model)
    assert {key: tuple(item) if isinstance(item, list) else item for key, item in preprocessing.items()} == (
        original.preprocessing
    )
    assert tuple(model.pretrained_cfg["label_names"]) == original.classes
    features = timm.create_model(name, pretrained=True, features_only=True).eval()
    assert torch.equal(features(IMAGES)[-1], original.model.forward_features(IMAGES))


def test_hub_repository(original, saved, monkeypatch):
    asked = []

    def download(repo_id, *, revision, allow_patterns):
        asked.append((repo_id, revision, sorted(allow_patterns)))
        return str(saved)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert from_pretrained("hf-hub:somebody/insects").classes == original.classes
    assert from_pretrained("hf-hub:somebody/insects@v2").training == original.training
    assert asked == [("somebody/insects", revision, FILES[1:]) for revision in (None, "v2")]


def test_hub_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    refused(
        "hf-hub:somebody/insects", r"hf-hub:somebody/insects cannot be downloaded: .*check the name and the network"
    )
    refused("hf-hub:some body/insects", "cannot be downloaded: Repo id")


def test_missing_repository(monkeypatch):
    def download(*_, **__):
        raise RepositoryNotFoundError(
            "404 Client Error.\n\nRepository Not Found", response=Response(404, request=object())
        )

    monkeypatch.setattr(hub, "snapshot_download", download)
    refused("hf-hub:somebody/insects", "404 Client Error. Repository Not Found.*hf auth login")


def test_model_card(original, saved):
    card = ModelCard.load(saved / "README.md")
    assert card.data.library_name == "timm"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.license is None
    assert "license" not in (saved / "README.md").read_text()
    assert "license" not in (saved / "config.json").read_text()
    assert {"timm", "acmix", "image-classification"} <= set(card.data.tags)
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("accuracy", 0.875, "insects")
    parameters = sum(parameter.numel() for parameter in original.model.parameters())
    for fact in (NAME, "for 3 classes", f"{parameters:,} parameters", "3 x 48 x 48", "mean (0.1, 0.2, 0.3)"):
        assert fact in card.text
    for fact in ("`insects`", "`start.pth`", "87.50% top-1", f"torch {torch.__version__}"):
        assert fact in card.text
    assert "somebody" not in card.text
    classes, training = (json.loads(block) for block in re.findall(r"^```json\n(.*?)\n```$", card.text, re.M | re.S))
    assert tuple(classes) == original.classes
    assert training == {key: original.training[key] for key in ("settings", "metrics")}


def test_a_licence_is_that_which_is_asked_for(original, tmp_path):
    card = ModelCard.load(save_pretrained(original, tmp_path, license="cc-by-nc-4.0") / "README.md")
    assert card.data.license == "cc-by-nc-4.0"
    assert json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]["license"] == "cc-by-nc-4.0"


def test_tied_weights(tmp_path):
    """timm's loader wants every name, and ours takes them."""
    model = timm.create_model(NAME, num_classes=3).eval()
    model.layer1[0].bn2.weight = model.layer1[0].bn1.weight
    preprocessing = resolve_data_config({}, model=model)
    tied = Classifier(model=model, model_name=NAME, classes=("a", "b", "c"), preprocessing=preprocessing)
    save_pretrained(tied, tmp_path / "folder")
    assert torch.equal(from_pretrained(tmp_path / "folder").model(IMAGES), model(IMAGES))
    theirs = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    assert torch.equal(theirs(IMAGES), model(IMAGES))


def test_the_code_on_the_model_card_runs(original, saved, capsys):
    image = Image.new("RGB", (60, 50), "red")
    expected = original.model(original.transform(image).unsqueeze(0))
    programs = re.findall(r"^```python\n(.*?)\n```$", (saved / "README.md").read_text(), re.M | re.S)
    for program in programs:
        names = {"image": image}
        exec(program.replace("hf-hub:USER/NAME", f"local-dir:{saved}"), names)  # noqa: S102
        found = names["logits"].softmax(1) if "logits" in names else names["probabilities"]
        torch.testing.assert_close(found, expected.softmax(1))
    assert len(programs) == 2
    assert capsys.readouterr().out == f"{original.classes[expected.argmax()]}\n"


def test_exports_of_timm(tmp_path):
    """Another network, in timm's own words: no classes, no record; and on from there."""
    arguments = {"global_pool": "max"}
    model = timm.create_model("test_resnet", num_classes=2, **arguments).eval()
    timm.models.save_for_hf(model, tmp_path / "timm", model_args=dict(arguments), safe_serialization=True)
    loaded = from_pretrained(tmp_path / "timm")
    assert (loaded.model_name, loaded.classes, loaded.training) == ("test_resnet", ("0", "1"), {})
    assert torch.equal(loaded.model(IMAGES), model(IMAGES))
    loaded.model.to(memory_format=torch.channels_last)
    card = ModelCard.load(save_pretrained(loaded, tmp_path / "ours") / "README.md")
    assert "**Validation accuracy:** unknown" in card.text
    assert torch.equal(from_pretrained(tmp_path / "ours").model(IMAGES), model(IMAGES))


def test_what_transformers_saved_is_its_own(original, copied):
    """It keeps our record in config.json and writes weights of its own, without digests."""
    weights = {name: tensor + 1 for name, tensor in original.model.state_dict().items()}
    safetensors.torch.save_file(weights, copied / "model.safetensors")
    refused(copied, "digests are gone")
    change_config(copied, transformers_version="5.24.0")
    loaded = from_pretrained(copied)
    assert torch.equal(loaded.model.fc.bias, original.model.fc.bias + 1)
    assert (loaded.classes, loaded.training, loaded.versions) == (original.classes, {}, {})
    with pytest.raises(InputError, match="holds a config.json that acmix did not write"):
        save_pretrained(original, copied)


def test_a_config_that_changed(copied):
    """One bit, in what is ours and in what is timm's; laid out anew it says the same."""
    path = copied / "config.json"
    text = path.read_text()
    for before, after in (('"crop_pct": 0.9', '"crop_pct": 0.8'), ('"epoch": 2', '"epoch": 3'), ('"ant"', '"aft"')):
        assert before in text
        path.write_text(text.replace(before, after))
        refused(copied, "its config.json was changed since it was written")
    path.write_text(json.dumps(json.loads(text), sort_keys=True))
    assert from_pretrained(copied).classes[0] == "ant"


def test_weights_that_changed(copied):
    path = copied / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refused(copied, r"tensor \S+ was changed since it was written")
    safetensors.torch.save_file(safetensors.torch.load(bytes(data)), path)
    refused(copied, "its digests are gone")


def test_classes_with_gaps_and_older_places(copied):
    config = json.loads((copied / "config.json").read_text())
    pretrained = config["pretrained_cfg"] | {"label_names": {"0": "ant", "2": "cat"}}
    change_config(copied, label_names=None, acmix=None, model_args=None, num_classes=None, pretrained_cfg=pretrained)
    assert from_pretrained(copied).classes == ("ant", "1", "cat")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"architecture": "acmix_resnet99"}, "unknown network"),
        ({"architecture": "hf-hub:somebody/model"}, "unknown network"),
        ({"architecture": None}, "its config.json is not timm's: architecture missing"),
        ({"architecture": "test_resnet"}, "do not fit"),
        ({"model_args": {"checkpoint_path": "evil.pth"}}, "model_arguments"),
        ({"model_args": {"pretrained": True}}, "model_arguments"),
        ({"model_args": {"pretrained_cfg_overlay": {"file": "evil.pth"}}}, "model_arguments"),
        ({"model_args": {"num_classes": 4}}, "num_classes is 3, but 4 in model_args"),
        ({"model_args": ["in_chans"]}, "model_args must be an object"),
        ({"num_classes": 4, "label_names": None, "model_args": None}, "do not fit"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"num_classes": "3"}, "num_classes must be a whole number or null, got '3'"),
        ({"label_names": ["ant"]}, "label_names holds 1"),
        ({"label_names": "ant"}, "label_names must be a list or an object or null, got 'ant'"),
        ({"label_names": [1, 2, 3]}, r"label_names\[0\] must be text, got 1"),
        ({"pretrained_cfg": None}, "pretrained_cfg missing"),
        ({"pretrained_cfg": {}}, "pretrained_cfg is empty"),
        ({"pretrained_cfg": {"label_names": 3}}, r"pretrained_cfg\.label_names must be a list or .*, got 3"),
        ({"pretrained_cfg": {"mean": "grey"}}, "preprocessing cannot be used"),
        ({"acmix": {"format_version": 4}}, "format version 4"),
        ({"acmix": {}}, "format_version missing"),
        ({"acmix": []}, r"acmix must be an object or null, got \[\]"),
    ],
)
def test_tampered_config(copied, changes, rule):
    change_config(copied, **changes)
    refused(copied, rule)


def test_config_chooses_no_weights(original, copied):
    pretrained = json.loads((copied / "config.json").read_text())["pretrained_cfg"]
    elsewhere = {"file": "evil.pth", "url": "http://evil/evil.pth", "hf_hub_id": "evil/evil", "custom_load": True}
    change_config(copied, pretrained_cfg=pretrained | elsewhere)
    assert torch.equal(from_pretrained(copied).model(IMAGES), original.model(IMAGES))


def test_damaged_folders(copied, tmp_path):
    refused(tmp_path / "absent", "is not a folder")
    refused("somebody/insects", "or hf-hub:USER/NAME")
    weights = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(weights[:-100])
    refused(copied, "damaged")
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    refused(copied, "has no model.safetensors")
    (copied / "model.safetensors").write_bytes(weights)
    for text, rule in (("", "not JSON"), ("{", "not JSON"), ("[]", "not timm's: it must be an object")):
        (copied / "config.json").write_text(text)
        refused(copied, rule)
    (copied / "config.json").unlink()
    refused(copied, "has no config.json")


def test_an_earlier_export_is_replaced(original, copied):
    (copied / "notes.txt").write_text("kept")
    save_pretrained(replace(original, classes=("a", "b", "c"), training={}), copied)
    assert from_pretrained(copied).classes == ("a", "b", "c")
    assert listed(copied) == [*FILES, "notes.txt"]


@pytest.mark.parametrize("content", ["{}", "3", "[" * 100_000], ids=len)
@pytest.mark.parametrize("name", FILES)
def test_what_others_wrote_is_not_replaced(original, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=f"holds a {name} that acmix did not write"):
        save_pretrained(original, tmp_path)
    assert (tmp_path / name).read_text() == content


def test_folders_that_cannot_be(original, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; give a folder"):
        save_pretrained(original, tmp_path / "file")
    with pytest.raises(InputError, match="cannot be made"):
        save_pretrained(original, tmp_path / "file" / "folder")


@pytest.mark.parametrize("place", [timm.models, hub], ids=["weights", "card"])
def test_a_failed_write_leaves_the_earlier_export(original, copied, monkeypatch, place):
    before = contents(copied)

    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(place, "save_for_hf" if place is timm.models else "model_card", full)
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(replace(original, classes=("other", "names", "here")), copied)
    assert contents(copied) == before


def test_an_interrupted_replacement_is_no_mixture(original, copied, monkeypatch):
    move = Path.replace

    def stop(path, target):
        if Path(target).parent == copied:
            raise KeyboardInterrupt
        return move(path, target)

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        save_pretrained(replace(original, classes=("other", "names", "here")), copied)
    refused(copied, "has no config.json")


def test_classifiers_of_any_number_of_labels(original, tmp_path):
    several = replace(original, multi_label=True, training={**original.training, "metrics": {"val_map": 0.5}})
    folder = save_pretrained(several, tmp_path / "several")
    config = json.loads((folder / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    # What an acmix that knows one label alone refuses.
    assert config["acmix"]["format_version"] == 3
    again = from_pretrained(folder)
    assert again.multi_label
    assert again.predict(IMAGES)[0] == several.predict(IMAGES)[0]
    card = (folder / "README.md").read_text()
    assert "**Validation mAP:** 50.00%\n" in card
    assert ".sigmoid()" in card
    # transformers, which trained it further, has its own record of what it is.
    (folder / "config.json").write_text(json.dumps(config | {"transformers_version": "5"}))
    assert from_pretrained(folder).multi_label
    (folder / "config.json").write_text(json.dumps(config))
    change_config(folder, problem_type="single_label_classification")
    refused(folder, "its problem_type is 'single_label_classification', and its record says otherwise")
    assert not from_pretrained(save_pretrained(original, tmp_path / "one")).multi_label
