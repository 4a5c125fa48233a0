import pytest
import torch

from acmix import InputError
from acmix.devices import find_device


def with_gpus(monkeypatch, count):
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_names(monkeypatch):
    assert find_device("cpu") == find_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    assert find_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("xpu"))
    assert find_device("auto") == torch.device("xpu")
    with_gpus(monkeypatch, 2)
    assert find_device("cuda") == torch.device("cuda")
    assert find_device("cuda:1") == torch.device("cuda", 1)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_device("mps") == torch.device("mps")


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:", "cuda:-1", "cuda:1 ", "cpu:0", "0", "", "cuda:1000", "meta"])
def test_unknown_names(name):
    with pytest.raises(InputError, match=r"device must be one of auto, cpu, cuda, cuda:1 \(any number\), mps, got "):
        find_device(name)


def test_what_a_machine_lacks(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(InputError, match="device cuda cannot be used: this PyTorch, .*, is built without CUDA"):
        find_device("cuda")
    for count, name, reason in ((0, "cuda", "sees no GPU"), (1, "cuda:7", "there is 1 GPU, cuda:0"), (2, "cuda:7", "")):
        with_gpus(monkeypatch, count)
        reason = reason or "there are 2 GPUs, cuda:0 to cuda:1"
        with pytest.raises(InputError, match=f"device {name} cannot be used: .*{reason}"):
            find_device(name)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: False)
    with pytest.raises(InputError, match="device mps cannot be used: .* without Metal"):
        find_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match="device mps cannot be used: this machine has no GPU for Metal"):
        find_device("mps")
