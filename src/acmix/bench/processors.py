"""How near a forward pass of a layer comes to what a processor can do.

It cannot take less time than its bytes take at the speed of a large copy (input, weights and output, once each), nor
less than its products and exponentials take one after the other, as the same units compute both: products at the speed
of a large matrix product or of a wide convolution, whichever is faster, exponentials, always of float32 or float64, as
multiply-adds of their polynomial. Products are counted as for GPUs (`acmix.bench.bounds`): a query with the keys that
its window sees, each once; a tap with the cells on the map.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from acmix.bench.comparison import ForwardBound
from acmix.bench.measure import Hearer, Timing, nobody, time_interleaved
from acmix.nn import ACmix
from acmix.ops import costs
from acmix.ops.geometry import output_size

# Side of the matrices that a processor's own speed is measured with, too large for caches, yet quickly multiplied;
# channels and side of the maps that it convolves.
_SIDE, _CONVOLVED = 2048, (256, 40)
# Multiply-adds, or multiplications, of an exponential: exponent, remainder, a polynomial of degree 5, scale.
_EXPONENTIAL = 8


@dataclass(frozen=True)
class Speeds:
    """What a processor reaches a second: bytes, read and written, of a copy; FLOPs of a product; exponentials."""

    bytes: float
    flops: float
    exponentials: float


@dataclass(frozen=True)
class ForwardWork:
    """What a forward pass cannot avoid: bytes, FLOPs of products (two a multiply-add), exponentials."""

    bytes: int
    flops: int
    exponentials: int


def measure_speeds(dtype: torch.dtype, seconds: float, tell: Hearer = nobody) -> Speeds:
    """Copy, multiply and convolve on the processor, in the dtype and in what exponentials are computed in."""
    wide = torch.promote_types(dtype, torch.float32)
    kinds = {dtype, wide}
    measured = {kind: _measure(kind, seconds / len(kinds), tell) for kind in kinds}
    # Where half precision is emulated nobody has to compute in it.
    flops = max(flops for _, flops in measured.values())
    return Speeds(measured[dtype][0], flops, measured[wide][1] / (2 * _EXPONENTIAL))


def _measure(dtype: torch.dtype, seconds: float, tell: Hearer) -> tuple[float, float]:
    """Bytes and FLOPs a second."""
    channels, side = _CONVOLVED
    matrices = torch.randn(8, _SIDE, _SIDE).to(dtype)
    target = torch.empty_like(matrices)
    image = torch.randn(4, channels, side, side).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3).to(dtype, memory_format=torch.channels_last)
    calls = {
        "copy": partial(target.copy_, matrices),
        "product": partial(torch.mm, matrices[0], matrices[1], out=target[0]),
        "convolution": partial(functional.conv2d, image, weight, padding=1),
    }
    times = time_interleaved(calls, seconds, tell=tell)
    convolved = 4 * costs.convolution(costs.pairs_on_map(side, side, 3, 1), channels, channels)
    flops = 2 * max(_SIDE**3 / times["product"].fastest, convolved / times["convolution"].fastest)
    return 2 * matrices.nbytes / times["copy"].fastest, flops


def forward_work(channels: int, size: int, stride: int, batch: int, dtype: torch.dtype) -> dict[str, ForwardWork]:
    """Of a layer on square maps: of the "operator", and of the 3x3 "convolution" of its width."""
    layer = ACmix(channels, channels, stride=stride, device="meta")
    outputs = batch * output_size(size, stride) ** 2
    cells, kernel, maps = batch * size**2, layer.kernel_conv, 3 * layer.heads
    windows, taps = (batch * costs.pairs_on_map(size, size, k, stride) for k in (layer.kernel_att, kernel))
    products = {
        "operator": costs.projection(cells, channels, channels)
        + 2 * costs.attention_product(windows, channels)
        + costs.convolution(taps, channels, maps),
        "convolution": costs.convolution(taps, channels, channels),
    }
    numbers = {
        "operator": sum(parameter.numel() for parameter in layer.parameters()),
        "convolution": channels**2 * kernel**2,
    }
    exponentials = {"operator": layer.heads * windows, "convolution": 0}
    return {
        name: ForwardWork(
            (channels * (cells + outputs) + numbers[name]) * dtype.itemsize, 2 * products[name], exponentials[name]
        )
        for name in products
    }


def bound_forward(
    settings: Mapping[str, Any], forward: Mapping[str, Timing], dtype: torch.dtype, speeds: Speeds
) -> dict[str, ForwardBound]:
    """Hold forward passes against their bounds.

    Args:
        settings: Of a layer, as `acmix.bench.comparison.layer_case` gives them.
        forward: Times by candidate; all but "convolution" compute the operator.
        dtype: Of the maps.
        speeds: Of the processor.

    Returns:
        A bound for every candidate.
    """
    work = forward_work(settings["channels"], settings["size"], settings["stride"], settings["batch"], dtype)
    bounds = {}
    for name, time in forward.items():
        done = work["convolution" if name == "convolution" else "operator"]
        moved, multiplied, exponentiated = (
            amount / speed for amount, speed in zip(asdict(done).values(), asdict(speeds).values(), strict=True)
        )
        share = max(moved, multiplied + exponentiated) / time.fastest
        bounds[name] = ForwardBound(moved, multiplied, exponentiated, share)
    return bounds
