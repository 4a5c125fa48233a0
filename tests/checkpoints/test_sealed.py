"""Digests: no byte of a file changes unnoticed, and others read the file as ever."""

import random

import pytest
import safetensors.torch
import torch

from acmix import InputError
from acmix.checkpoints import load_state_dict, sealed

TENSORS = {
    "a.weight": torch.linspace(-1, 1, 12).view(3, 4),
    "b.bias": torch.arange(5.0).half(),
    "brain": torch.ones(2, 3).bfloat16().T,
    "count": torch.tensor(3),
    "flags": torch.tensor([True, False]),
    "none": torch.zeros(0, 2),
    "turns": torch.ones(2, dtype=torch.complex64),
    "größer": torch.full((2,), float("nan"), dtype=torch.float64),
}
METADATA = {"format": "pt", "text": '"größer"\n\\ {"acmix_header_sha256":"' + "0" * 64 + '"}'}


@pytest.fixture(scope="module")
def data():
    return sealed.serialize(TENSORS, METADATA)


def test_round_trip(data, tmp_path):
    content = sealed.deserialize(data)
    assert (content.sealed, content.metadata) == (True, METADATA)
    assert content.tensors.keys() == TENSORS.keys()
    (tmp_path / "weights.safetensors").write_bytes(data)
    for tensors in (content.tensors, safetensors.torch.load(data), load_state_dict(tmp_path / "weights.safetensors")):
        for name, tensor in TENSORS.items():
            assert tensors[name].dtype == tensor.dtype
            assert torch.equal(tensors[name].nan_to_num(7), tensor.nan_to_num(7)), name


def test_files_without_digests():
    content = sealed.deserialize(safetensors.torch.save({"a": torch.ones(2)}, {"text": "here"}))
    assert (content.sealed, content.metadata) == (False, {"text": "here"})
    assert sealed.deserialize(safetensors.torch.save({"a": torch.ones(2)})).metadata == {}


def test_every_changed_byte_is_refused(data):
    """Every place, with one flipped bit and with letters that JSON takes for others as well."""
    generator = random.Random(0)  # noqa: S311
    for place, byte in enumerate(data):
        values = {byte ^ 1 << generator.randrange(8), byte ^ 255, *b' \t0aA"', generator.randrange(256)} - {byte}
        for value in values:
            with pytest.raises(InputError) as caught:
                sealed.deserialize(data[:place] + bytes([value]) + data[place + 1 :])
            assert "\n" not in str(caught.value)


def test_the_changed_part_is_named(data):
    with pytest.raises(InputError, match="its header .* was changed"):
        sealed.deserialize(data.replace(b'"pt"', b'"tp"'))
    with pytest.raises(InputError, match="its header .* was changed"):
        sealed.deserialize(data.replace(b"acmix_header", b"acmix_feeder"))
    with pytest.raises(InputError, match="its header .* was changed"):
        sealed.deserialize(data.replace(b'"F64"', b'"I64"'))
    with pytest.raises(InputError, match="tensor a.weight was changed"):
        sealed.deserialize(data.replace(torch.linspace(-1, 1, 12).numpy().tobytes(), bytes(48)))


@pytest.mark.parametrize("keep", [0, 5, 9, 200, -1])
def test_what_is_cut_off_is_refused(data, keep):
    with pytest.raises(InputError):
        sealed.deserialize(data[:keep])
    with pytest.raises(InputError):
        sealed.deserialize(data + b"\0")


def test_tensors_that_share_memory():
    """Tied weights, views of one tensor, and parts of it."""
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"a": whole, "b": whole, "c": whole.t(), "d": whole[1:], "e": whole[0].expand(2, 4), "f": whole.detach()}
    content = sealed.deserialize(sealed.serialize(tensors, {}))
    assert all(torch.equal(content.tensors[name], tensor) for name, tensor in tensors.items())


def test_tensors_without_numbers():
    tensors = {"a": torch.zeros(0), "b": torch.zeros(0, 3)}
    assert {
        name: tensor.shape for name, tensor in sealed.deserialize(sealed.serialize(tensors, {})).tensors.items()
    } == {name: tensor.shape for name, tensor in tensors.items()}
