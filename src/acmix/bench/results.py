"""What a benchmark leaves: JSON with the machine it ran on."""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from acmix.bench.bounds import LayerBounds
from acmix.bench.comparison import Comparison
from acmix.bench.environment import processor
from acmix.bench.measure import withheld_share
from acmix.bench.scaling import Scaling
from acmix.ops import cpu
from acmix.storage import write_atomically


def machine() -> dict[str, object]:
    """Processor, threads and versions, for the record beside every number; takes a second."""
    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "kernels": cpu.instructions(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "withheld_share": round(withheld_share(), 3),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": importlib.metadata.version("timm"),
        "revision": _revision(),
        **(_gpu() if torch.cuda.is_available() else {}),
    }


def _gpu() -> dict[str, object]:
    properties = torch.cuda.get_device_properties()
    return {
        "gpu": properties.name,
        "gpu_memory": properties.total_memory,
        "cuda": torch.version.cuda,
        "triton": importlib.metadata.version("triton"),
    }


def _revision() -> str | None:
    """The commit of the checkout that runs, with a mark if it has changes; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None


def save(
    machine: dict[str, object],
    path: Path,
    *,
    comparisons: Sequence[Comparison] = (),
    scalings: Sequence[Scaling] = (),
    bounds: Sequence[LayerBounds] = (),
) -> None:
    """Write what was measured, and the machine, as JSON."""
    content = {
        "machine": machine,
        "comparisons": [asdict(item) for item in comparisons],
        "scalings": [asdict(item) for item in scalings],
        "bounds": [asdict(item) for item in bounds],
    }
    write_atomically(path, json.dumps(content, indent=2) + "\n")
