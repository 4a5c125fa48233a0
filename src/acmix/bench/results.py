"""What a benchmark leaves: JSON with the machine it ran on."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from acmix.bench.layer import LayerComparison


def machine() -> dict[str, object]:
    """Processor, threads and versions, for the record beside every number."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "processor": model,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def save(comparisons: Sequence[LayerComparison], path: Path) -> None:
    """Write comparisons and the machine as JSON."""
    content = {"machine": machine(), "dtype": "float32", "layers": [asdict(item) for item in comparisons]}
    path.write_text(json.dumps(content, indent=2) + "\n")
