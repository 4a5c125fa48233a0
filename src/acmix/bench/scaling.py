"""How time and memory of the operator grow with pixels and with images, and the exponent that fits."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from acmix.bench.measure import peak_memory, time_interleaved
from acmix.nn import ACmix

SIDES = (128, 256, 512, 1024, 2048)
BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Point:
    """One size: pixels or images, fastest seconds and peak bytes of a forward pass and of forward and backward."""

    count: int
    forward: float
    training: float
    forward_memory: int
    training_memory: int


@dataclass(frozen=True)
class Scaling:
    """Growth over `axis`, "pixels" or "images"; `exponents` are least-squares slopes of log quantity on log count."""

    axis: str
    settings: dict[str, object]
    points: list[Point]
    exponents: dict[str, float]


def scale(
    axis: str, *, channels: int = 16, batch: int = 1, seconds: float = 3.0, largest: int | None = None
) -> Scaling:
    """Measure one stride-1 layer, float32, channels_last, at growing sizes.

    Args:
        axis: "pixels", one square map with sides `SIDES`, or "images", maps of 56 x 56 in batches `BATCHES`.
        channels: Channels in and out.
        batch: Images where the axis is pixels.
        seconds: Time to spend on each size and direction; at least six runs.
        largest: Leave out greater sides or batches.
    """
    sizes = [size for size in (SIDES if axis == "pixels" else BATCHES) if largest is None or size <= largest]
    layer = ACmix(channels, channels)
    points = []
    for size in sizes:
        shape = (batch, channels, size, size) if axis == "pixels" else (size, channels, 56, 56)
        forward, training = _calls(layer, torch.randn(shape).contiguous(memory_format=torch.channels_last))
        count = shape[0] * shape[2] * shape[3] if axis == "pixels" else size
        times = {
            name: time_interleaved({name: call}, seconds, rounds=6)[name].fastest
            for name, call in (("forward", forward), ("training", training))
        }
        points.append(Point(count, times["forward"], times["training"], peak_memory(forward), peak_memory(training)))
    quantities = ("forward", "training", "forward_memory", "training_memory")
    counts = [math.log(point.count) for point in points]
    exponents = {
        name: statistics.linear_regression(counts, [math.log(getattr(point, name)) for point in points]).slope
        for name in quantities
    }
    settings: dict[str, object] = {"channels": channels, "batch": batch, "dtype": "float32", "channels_last": True}
    return Scaling(axis, settings, points, exponents)


def _calls(layer: ACmix, image: torch.Tensor) -> tuple[Callable[[], object], Callable[[], object]]:
    leaf = image.detach().requires_grad_()

    def forward() -> object:
        with torch.no_grad():
            return layer(image)

    def training() -> object:
        layer.zero_grad(set_to_none=True)
        leaf.grad = None
        output = layer(leaf)
        output.backward(torch.ones_like(output))
        return output

    return forward, training
