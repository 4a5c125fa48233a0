"""Devices: the one place that reads what a person asks for, and says why a machine cannot give it. A leaf."""

import re

import torch

from acmix.errors import InputError

NAMES = "auto, cpu, cuda, cuda:1 (any number), mps"


def find_device(name: str | torch.device) -> torch.device:
    """The device that is meant, if this machine has it.

    Args:
        name: "auto" (the accelerator of this machine, or the CPU), "cpu", "cuda", "cuda:1", "mps"; or torch's device.

    Raises:
        InputError: If there is no such name, or no such device here.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    match = re.fullmatch(r"(cpu|mps)|(cuda)(?::(\d{1,3}))?", str(name))
    if match is None:
        raise InputError(f"device must be one of {NAMES}, got {str(name)!r}")
    device = torch.device(str(name))
    reason = _why_not_cuda(device) if device.type == "cuda" else _why_not_mps() if device.type == "mps" else None
    if reason is not None:
        raise InputError(f"device {name} cannot be used: {reason}")
    return device


def multiplies_bfloat16() -> bool:
    """Whether PyTorch multiplies bfloat16 with instructions of this machine's processor, and not number by number."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_no_memory(error: BaseException) -> bool:
    """Whether an error says that memory gave out; PyTorch has a class for that of GPUs alone."""
    said = str(error)
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in said or "bad_alloc" in said


def _why_not_cuda(device: torch.device) -> str | None:
    if not torch.backends.cuda.is_built():
        return (
            f"this PyTorch, {torch.__version__}, is built without CUDA; install one with it (pytorch.org), or take cpu"
        )
    count = torch.cuda.device_count()
    if not torch.cuda.is_available() or count == 0:
        return "PyTorch sees no GPU (nvidia-smi lists them, CUDA_VISIBLE_DEVICES hides them)"
    if (device.index or 0) >= count:
        return "there is 1 GPU, cuda:0" if count == 1 else f"there are {count} GPUs, cuda:0 to cuda:{count - 1}"
    return None


def _why_not_mps() -> str | None:
    if not torch.backends.mps.is_built():
        return f"this PyTorch, {torch.__version__}, is built without Metal, which Macs have; take cpu"
    return None if torch.backends.mps.is_available() else "this machine has no GPU for Metal; take cpu"
