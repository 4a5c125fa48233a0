"""Files of weights: what is read, what is refused and how, and loading into a network."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from acmix import ACmix, InputError
from acmix.checkpoints import load_state_dict, load_weights, to_published


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
    assert "missing" in refusal(tmp_path / "none.pth")
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


def test_mismatch_names_keys_and_shapes_and_loads_nothing(layer):
    state = dict(layer.state_dict())
    before = {name: tensor.clone() for name, tensor in state.items()}
    wrong = {name: tensor + 1 for name, tensor in state.items()}
    del wrong["qkv.bias"]
    wrong["extra"] = torch.zeros(1)
    wrong["fc_weight"] = torch.zeros(9, 7)
    with pytest.raises(ValueError, match="state_dict must hold exactly the weights of ACmix") as caught:
        load_weights(layer, wrong)
    message = str(caught.value)
    assert "missing: qkv.bias" in message
    assert "unexpected: extra" in message
    assert "fc_weight must be (9, 6), got (9, 7)" in message
    assert_equal(layer.state_dict(), before)


def test_long_lists_are_cut():
    network = nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(13)))
    with pytest.raises(ValueError, match=r"9\.weight and 3 more$"):
        load_weights(network, {})
