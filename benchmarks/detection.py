"""A training step of RetinaNet with ACmix-ResNet-50 beside ResNet-50; writes benchmarks/results/detection-cpu.json."""

import copy
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acmix.bench import machine
from acmix.bench.comparison import LARGEST_ERROR
from acmix.bench.measure import time_interleaved
from acmix.models.detectors import DetectionNetwork, DetectorArguments, create_detector
from acmix.nn import ACmix

BACKBONES = ("acmix_resnet50", "resnet50")
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
SIDE, CLASSES, SECONDS = 512, 80, 45.0


def step(network: nn.Module, optimizer: torch.optim.Optimizer, images: list[Tensor], targets: list[Any]) -> Tensor:
    """One update, on the same image and objects each time."""
    optimizer.zero_grad()
    loss = torch.stack([*network(images, targets).values()]).sum()
    loss.backward()
    optimizer.step()
    return loss


def loss_error(network: DetectionNetwork, target: dict[str, Tensor]) -> float:
    """Relative error of the loss of a small image against float64 and the operator's definition."""
    exact = copy.deepcopy(network).double()
    for module in exact.modules():
        if isinstance(module, ACmix):
            module.backend = "reference"
    image = torch.rand(3, SIDE // 4, SIDE // 4)
    small = target | {"boxes": target["boxes"] / 4}
    own, true = (
        sum(loss.item() for loss in each.eval().losses(image.to(dtype), small).values())
        for each, dtype in ((network, torch.float32), (exact, torch.float64))
    )
    return abs(own - true) / abs(true)


def example() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """An image and eight objects."""
    corners = torch.rand(8, 2) * SIDE / 2
    targets = [{"boxes": torch.cat((corners, corners + SIDE / 4), 1), "labels": torch.arange(8)}]
    return [torch.rand(3, SIDE, SIDE)], targets


def stepper(network: nn.Module, memory_format: torch.memory_format) -> Callable[[], object]:
    """A training step of a copy of a network in a memory format."""
    module = copy.deepcopy(network).train().to(memory_format=memory_format)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9)
    return partial(step, module, optimizer, *example())


def create(backbone: str) -> DetectionNetwork:
    """The detector, with fresh weights."""
    torch.manual_seed(0)
    return create_detector("retinanet", CLASSES, DetectorArguments(backbone=backbone, image_size=SIDE))


def resident(backbone: str) -> int:
    """Bytes that two steps add to the resident memory of this process, at their peak; kernels' scratch counts."""
    call = stepper(create(backbone), torch.contiguous_format)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    call()
    call()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def main() -> None:
    calls: dict[str, Callable[[], object]] = {}
    errors: dict[str, float] = {}
    for backbone in BACKBONES:
        network = create(backbone)
        errors[backbone] = loss_error(network, example()[1][0])
        if not errors[backbone] <= LARGEST_ERROR[torch.float32]:
            raise RuntimeError(f"the loss of {backbone} is wrong: relative error {errors[backbone]:.1e}")
        calls |= {f"{backbone}, {name}": stepper(network, kind) for name, kind in FORMATS.items()}
    times = time_interleaved(calls, SECONDS)
    # Each in a process of its own, as a process keeps what it has freed.
    command = [sys.executable, "-W", "ignore", __file__]
    memory = {
        backbone: int(subprocess.run([*command, backbone], check=True, capture_output=True).stdout)  # noqa: S603
        for backbone in BACKBONES
    }
    for name, timing in times.items():
        sys.stdout.write(f"{name}: {timing.fastest:.2f} s, median {timing.median:.2f}\n")
    sys.stdout.write(f"{memory}\n")
    content = {
        "machine": machine(),
        "settings": {"side": SIDE, "images": 1, "objects": 8, "classes": CLASSES, "dtype": "float32"},
        "errors": errors,
        "steps": {name: asdict(timing) for name, timing in times.items()},
        "memory": memory,
    }
    Path(__file__).with_name("results").joinpath("detection-cpu.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.stdout.write(f"{resident(sys.argv[1])}\n")
    else:
        main()
