"""Files of weights: what is read, where it lies in them, what is refused and how."""

import functools
import json
import os
from pathlib import Path

import lightning
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from acmix import ACmix, InputError
from acmix.checkpoints import load_state_dict, load_weights, to_published
from acmix.checkpoints.files import read_state_file


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return ACmix(4, 8, heads=2)


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(actual[key], tensor), key


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_torch_file(tmp_path, layer, wrapper):
    state = layer.state_dict()
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "weights.pth")
    assert_equal(load_state_dict(tmp_path / "weights.pth"), state)


@pytest.mark.parametrize("convert", [dict, to_published])
def test_safetensors_file(tmp_path, layer, convert):
    save_file(convert(layer.state_dict()), tmp_path / "weights.safetensors")
    loaded = ACmix(4, 8, heads=2)
    load_weights(loaded, load_state_dict(str(tmp_path / "weights.safetensors")))
    assert_equal(loaded.state_dict(), layer.state_dict())


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_state_dict(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_missing_file_and_folder(tmp_path):
    assert "does not exist" in refusal(tmp_path / "none.pth")
    assert "folder" in refusal(tmp_path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 half a zip file", b"\x80\x02}q\x00"])
def test_corrupt_file(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert "corrupt" in refusal(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_file(tmp_path, layer, suffix):
    path = tmp_path / f"weights{suffix}"
    state = layer.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-200])
    assert "corrupt" in refusal(path)


class Unsafe:
    def __reduce__(self):
        return os.mkdir, ("made_by_a_checkpoint",)


def test_code_in_a_file_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Unsafe()}, tmp_path / "weights.pth")
    assert "could run code" in refusal(tmp_path / "weights.pth")
    assert not (tmp_path / "made_by_a_checkpoint").exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"weight": 3}, {0: torch.zeros(1)}, {}, {"model": {}}])
def test_file_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    assert "must hold" in refusal(tmp_path / "weights.pth")


@pytest.mark.parametrize("place", ["", "model", "ema"])
def test_pickled_networks_are_refused_with_what_to_do(tmp_path, place):
    network = nn.Sequential(nn.Linear(2, 2))
    torch.save({place: network, "epoch": 3} if place else network, tmp_path / "weights.pt")
    message = refusal(tmp_path / "weights.pt")
    assert "a pickled torch.nn.modules.container.Sequential" in message
    assert "save model.state_dict()" in message


PLACES = [
    "state_dict",
    "model",
    "module",
    "network",
    "net",
    "weights",
    "model_state_dict",
    "model.state_dict",
    "ema.module",
]


@pytest.mark.parametrize("place", PLACES)
def test_places(tmp_path, layer, place):
    content = layer.state_dict()
    for key in reversed(place.split(".")):
        content = {"epoch": 3, key: content, "optimizer": {"state": {0: {"step": torch.ones(1)}}, "param_groups": []}}
    torch.save(content, tmp_path / "weights.pth")
    assert_equal(load_state_dict(tmp_path / "weights.pth"), layer.state_dict())
    assert read_state_file(tmp_path / "weights.pth").place == place


@pytest.mark.parametrize("average", ["state_dict_ema", "model_ema", "ema"])
def test_averages_are_preferred_and_it_is_said(tmp_path, layer, average):
    other = ACmix(4, 8, heads=2).state_dict()
    torch.save({"state_dict": other, average: layer.state_dict()}, tmp_path / "weights.pth")
    found = read_state_file(tmp_path / "weights.pth")
    assert_equal(found.tensors, layer.state_dict())
    assert (found.place, found.others) == (average, ("state_dict",))


@pytest.mark.parametrize("average", [None, {}, {"decay": 0.9}, nn.Linear(2, 2)])
def test_averages_that_are_none(tmp_path, layer, average):
    torch.save({"state_dict_ema": average, "state_dict": layer.state_dict()}, tmp_path / "weights.pth")
    found = read_state_file(tmp_path / "weights.pth")
    assert_equal(found.tensors, layer.state_dict())
    assert (found.place, found.others) == ("state_dict", ())


def test_a_file_that_holds_itself(tmp_path):
    content = {}
    content["model"] = content
    torch.save(content, tmp_path / "weights.pth")
    assert "must hold tensors by name, got none" in refusal(tmp_path / "weights.pth")


@pytest.mark.parametrize("suffix", [".bin", ".pth.tar", ""])
def test_what_is_in_a_file_decides_how_it_is_read(tmp_path, layer, suffix):
    save_file(layer.state_dict(), tmp_path / f"weights{suffix}")
    assert_equal(load_state_dict(tmp_path / f"weights{suffix}"), layer.state_dict())


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_weights_in_parts(tmp_path, layer, suffix):
    names = {name: f"part-{at % 2}.{suffix}" for at, name in enumerate(layer.state_dict())}
    for part in set(names.values()):
        tensors = {name: tensor for name, tensor in layer.state_dict().items() if names[name] == part}
        save_file(tensors, tmp_path / part) if suffix == "safetensors" else torch.save(tensors, tmp_path / part)
    path = tmp_path / f"model.{suffix}.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 3}, "weight_map": names}))
    assert_equal(load_state_dict(path), layer.state_dict())
    (tmp_path / f"part-1.{suffix}").unlink()
    with pytest.raises(InputError, match=f"part-1.{suffix} does not exist"):
        load_state_dict(path)


@pytest.mark.parametrize(
    ("index", "rule"),
    [
        ("{", "an index with a weight_map"),
        ("[]", "an index with a weight_map"),
        ('{"weight_map": {"a": 3}}', "an index with a weight_map"),
        ('{"weight_map": {}}', "files beside it"),
        ('{"weight_map": {"a": "../a.safetensors"}}', "files beside it"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "files beside it"),
        ('{"weight_map": {"a": ""}}', "files beside it"),
        ('{"weight_map": {"a": "a.safetensors"}}', "lacks a"),
    ],
)
def test_an_index_of_something_else(tmp_path, index, rule):
    save_file({"b": torch.ones(1)}, tmp_path / "a.safetensors")
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(index)
    assert rule in refusal(path)


class Module(lightning.LightningModule):
    def __init__(self, inner, schedule=None):  # noqa: ARG002
        super().__init__()
        self.save_hyperparameters(ignore="inner")
        self.model = inner
        self.loss = nn.CrossEntropyLoss(torch.ones(8))

    def training_step(self, batch):
        return self.loss(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


@pytest.mark.filterwarnings("ignore")
def test_lightning_checkpoints(tmp_path, layer):
    data = torch.utils.data.TensorDataset(torch.randn(2, 4, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64))
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    trainer.fit(Module(layer, schedule=functools.partial(min, 3)), torch.utils.data.DataLoader(data, batch_size=2))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    other = ACmix(4, 8, heads=2)
    said = load_weights(other, load_state_dict(tmp_path / "last.ckpt"))
    assert (said.prefix, said.unused) == ("model.", ("loss.weight",))
    assert_equal(other.state_dict(), layer.state_dict())
