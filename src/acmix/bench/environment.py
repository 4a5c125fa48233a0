"""What acmix runs on: versions, backends, processor, memory, GPUs; what a report of a fault needs."""

import importlib.metadata
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import acmix.ops
from acmix.ops.dispatch import BACKENDS

# Packages whose version decides what is computed or written.
_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "triton",
    "numpy",
    "safetensors",
    "lightning",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "ultralytics",
)
# What changes a run from outside; nothing else of the variables is told.
_VARIABLES = ("ACMIX_", "OMP_", "MKL_", "KMP_", "TORCH", "PYTORCH_", "CUDA_", "TRITON_", "CUBLAS_", "MALLOC_")


def environment() -> dict[str, Any]:
    """What is here, as plain values for JSON.

    Returns:
        versions: Of packages that are installed, by name. backends: By name None, or why it computes nothing here.
        kernels: The instruction set of the compiled CPU kernels, None without them. processor, instructions (the widest
        that PyTorch uses), cores, threads (of PyTorch), memory (bytes, of the machine); python, system; cuda (None
        where PyTorch has none), gpus (name, memory in bytes, capability); variables that change a run.
    """
    return {
        "versions": {"acmix": acmix.__version__, **_versions()},
        "backends": {name: acmix.ops.why_not(name) for name in BACKENDS},
        "kernels": acmix.ops.cpu.instructions(),
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": _memory(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "gpus": [_gpu(number) for number in range(torch.cuda.device_count())],
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)},
    }


def processor() -> str:
    """The name of the processor as its maker writes it, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _memory() -> int | None:
    """Bytes of the machine; None where the system does not tell."""
    known = getattr(os, "sysconf_names", {})
    if not {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(known):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gpu(number: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(number)
    return {
        "name": properties.name,
        "memory": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
    }
