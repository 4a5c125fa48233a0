"""How time and memory of the operator grow with pixels and with images, and the exponent that fits."""

import copy
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from acmix.bench.comparison import Candidate, forward_call, gate, training_call
from acmix.bench.measure import Hearer, nobody, peak_memory, time_interleaved
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
    settings: dict[str, Any]
    points: list[Point]
    exponents: dict[str, float]


def sizes_of(axis: str, largest: int | None = None) -> list[int]:
    """Sides of the maps, or batches, that `scale` measures."""
    return [size for size in (SIDES if axis == "pixels" else BATCHES) if largest is None or size <= largest]


def scale(
    axis: str, *, channels: int = 16, seconds: float = 3.0, largest: int | None = None, tell: Hearer = nobody
) -> Scaling:
    """Measure one stride-1 layer, float32, channels_last, at growing sizes.

    Args:
        axis: "pixels", one square map with sides `SIDES`, or "images", maps of 56 x 56 in batches `BATCHES`.
        channels: Channels in and out.
        seconds: Time to spend on each size and direction; at least six runs.
        largest: Leave out greater sides or batches.
        tell: Called while measuring, in sum with twice `seconds` for each of `sizes_of`.

    Raises:
        RuntimeError: If the layer's output is wrong; then nothing is measured.
    """
    layer = ACmix(channels, channels)
    exact = copy.deepcopy(layer).double()
    exact.backend = "reference"
    points: list[Point] = []
    for size in sizes_of(axis, largest):
        shape = (1, channels, size, size) if axis == "pixels" else (size, channels, 56, 56)
        candidate = Candidate(layer, torch.randn(shape).contiguous(memory_format=torch.channels_last), exact)
        if not points:
            # At the smallest size alone: the definition makes every window cell in memory.
            gate(f"{axis}, {size}", "the layer", candidate)
        forward, forward_memory = _measure(forward_call(candidate), seconds, tell)
        training, training_memory = _measure(training_call(candidate, input_gradient=True), seconds, tell)
        count = size**2 if axis == "pixels" else size
        points.append(Point(count, forward, training, forward_memory, training_memory))
    quantities = ("forward", "training", "forward_memory", "training_memory")
    counts = [math.log(point.count) for point in points]
    exponents = {
        name: statistics.linear_regression(counts, [math.log(getattr(point, name)) for point in points]).slope
        for name in quantities
    }
    settings: dict[str, object] = {"channels": channels, "dtype": "float32", "channels_last": True}
    return Scaling(axis, settings, points, exponents)


def _measure(call: Callable[[], object], seconds: float, tell: Hearer) -> tuple[float, int]:
    return time_interleaved({"": call}, seconds, tell=tell)[""].fastest, peak_memory(call)
