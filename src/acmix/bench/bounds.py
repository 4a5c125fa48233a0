"""How near each Triton kernel comes to what its device can do.

A kernel cannot take less time than its bytes take at the speed of a large copy, nor less than its products take at
the speed of a large matrix product. Bytes: each input is read once, each output written once. Products: a query with
the keys that its window sees, each once (identity E2); a tap with the cells that it meets on the map. As it is compiled
for a GPU of NVIDIA, it cannot take less than issuing its instructions either, four a clock and multiprocessor.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from acmix.bench.comparison import Candidate, gate, layer_case
from acmix.bench.measure import Hearer, Timing, as_graph, nobody, time_interleaved
from acmix.nn import ACmix
from acmix.ops import costs

if TYPE_CHECKING:
    from acmix.ops.triton.plans import Shape

# Instructions a clock that a multiprocessor of NVIDIA's issues.
_ISSUED = 4
# What `acmix.ops.triton.compiled` calls the kernels.
_COMPILED = {
    "convolution forward": "convolve",
    "attention forward": "forward",
    "convolution backward, maps": "data",
    "convolution backward, weights": "weight",
    "attention backward, queries": "query",
    "attention backward, keys": "key",
}
# Bytes of a float32.
_WIDE = 4
# Side of the matrices that a device's own speed is measured with: too large for caches, enough to keep all of it busy.
SIDE = 8192


@dataclass(frozen=True)
class Rates:
    """What a device reaches: bytes a second, read and written, of a large copy; FLOPs a second of a large product."""

    bytes: float
    flops: float


@dataclass(frozen=True)
class Work:
    """What a kernel cannot avoid: bytes read or written, and FLOPs of matrix products, two a multiply-add."""

    bytes: int
    flops: int


@dataclass(frozen=True)
class KernelTime:
    """A kernel's time beside its bound.

    Attributes:
        work: What it must do.
        time: Seconds a launch, from an empty cache; where programs leave partial sums, with adding those up.
        bounds: Seconds that its "bytes", its "products" and, where they are known, its "instructions" take at least.
        share: The longest of them / the fastest launch.
    """

    work: Work
    time: Timing
    bounds: dict[str, float]
    share: float


@dataclass(frozen=True)
class LayerBounds:
    """The kernels of one layer, forward and backward; `settings` say which layer."""

    title: str
    settings: dict[str, object]
    rates: Rates
    kernels: dict[str, KernelTime]


def measure_rates(device: torch.device, dtype: torch.dtype, seconds: float, tell: Hearer = nobody) -> Rates:
    """Copy eight matrices and multiply two, for so many seconds; products of float32 are tf32, the fastest allowed."""
    source = torch.randn(8, SIDE, SIDE, device=device).to(dtype)
    target = torch.empty_like(source)
    calls = {
        "copy": lambda: target.copy_(source),
        "product": lambda: torch.mm(source[0], source[1], out=target[0]),
    }
    settings = torch.backends.cuda.matmul
    before, settings.fp32_precision = settings.fp32_precision, "tf32"
    try:
        times = time_interleaved(calls, seconds, device=device, tell=tell)
    finally:
        settings.fp32_precision = before
    return Rates(2 * source.nbytes / times["copy"].fastest, 2 * SIDE**3 / times["product"].fastest)


def least_work(shape: "Shape", kernel: int, element: int) -> dict[str, Work]:
    """Work of every kernel of a layer with composed weights, in the order in which a step of training runs them.

    Args:
        shape: Of the layer; its window is wider than its stride.
        kernel: Taps of the convolution path along an axis, more than the stride.
        element: Bytes of a number of a map; parameters, the log-sum-exp and delta are float32.
    """
    channels = shape.heads * shape.size
    # One of q, k and v; q where the queries are, or a map of the output; a number a query and head.
    maps = shape.batch * shape.height * shape.width * channels * element
    queries = shape.batch * shape.output_height * shape.output_width * channels * element
    saved = queries // element // shape.size * _WIDE
    parameters = (2 * shape.size + 1) * _WIDE
    weights = channels * 3 * shape.heads * kernel**2
    windows, kernels = (costs.pairs_on_map(shape.height, shape.width, k, shape.stride) for k in (shape.window, kernel))
    attended = 2 * shape.batch * costs.attention_product(windows, channels)
    convolved = 2 * shape.batch * costs.convolution(kernels, channels, 3 * shape.heads)
    convolution = Work(3 * maps + queries + weights * element, convolved)
    return {
        "convolution forward": convolution,
        # The other path's output is read, and what all images share is added.
        "attention forward": Work(
            2 * maps + 3 * queries + queries // shape.batch + 2 * saved + parameters, 2 * attended
        ),
        "convolution backward, maps": convolution,
        "convolution backward, weights": Work(3 * maps + queries + weights * _WIDE, convolved),
        "attention backward, queries": Work(2 * maps + 3 * queries + 3 * saved + 2 * parameters, 3 * attended),
        "attention backward, keys": Work(4 * maps + 2 * queries + 3 * saved + parameters, 4 * attended),
    }


def issue_seconds(shape: "Shape", dtype: torch.dtype, device: Any) -> dict[str, float]:
    """Seconds that the instructions of every kernel take to issue, by the kernels' names.

    Args:
        shape: Of the layer, on square maps.
        dtype: Of the maps.
        device: Properties of a GPU of NVIDIA, as PyTorch gives them.
    """
    from acmix.ops.triton import compiled

    (name,) = (name for name, known in compiled.DTYPES.items() if known == dtype)
    capability = 10 * device.major + device.minor
    # PyTorch counts in thousands a second.
    rate = _ISSUED * device.multi_processor_count * 1e3 * device.clock_rate
    seconds = {}
    for title, kernel in _COMPILED.items():
        variant = compiled.Variant(kernel, shape.size, shape.stride, name, capability)
        seconds[title] = compiled.least_issued(variant, shape.batch, shape.height) / rate
    return seconds


def kernel_calls(
    shape: "Shape", kernel: int, dtype: torch.dtype, device: torch.device
) -> dict[str, Callable[[], object]]:
    """A launch of every kernel that `least_work` names, on numbers of its own."""
    from acmix.ops.triton import launch
    from acmix.ops.triton.plans import Maps

    def normal(*sizes: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(sizes, device=device).to(dtype)

    maps, size, stride = 3 * shape.heads, shape.size, shape.stride
    projections = normal(shape.batch, shape.height, shape.width, maps, size)
    gradient = torch.zeros_like(projections)
    output = normal(shape.batch, shape.output_height, shape.output_width, shape.heads * size)
    addend, output_gradient = torch.randn_like(output), torch.randn_like(output)
    weight, transposed = (normal(size, kernel, kernel, *ends) for ends in ((maps, shape.heads), (shape.heads, maps)))
    inner, outer = Maps.by_map(maps, size), Maps.by_channel(shape.heads, size)
    parameters = normal(size, 2, dtype=torch.float32), normal(1, dtype=torch.float32)
    given = launch.Attention(shape, projections, *parameters)
    added = addend, addend[0].contiguous(), output
    saved = launch.attend(given, *added), output_gradient
    delta, *_ = launch.attend_backward_queries(given, *saved, gradient)
    return {
        "convolution forward": lambda: launch.convolve_maps(projections, weight, output, (inner, outer), size, stride),
        "attention forward": lambda: launch.attend(given, *added),
        "convolution backward, maps": lambda: launch.convolve_maps(
            output_gradient, transposed, gradient, (outer, inner), size, stride, transposed=True
        ),
        "convolution backward, weights": lambda: launch.convolution_weight_gradient(
            projections, output_gradient, (inner, outer), size, kernel, stride
        ),
        "attention backward, queries": lambda: launch.attend_backward_queries(given, *saved, gradient),
        "attention backward, keys": lambda: launch.attend_backward_keys(given, *saved, delta, gradient),
    }


def bound_layer(
    channels: int,
    size: int,
    stride: int = 1,
    *,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    rates: Rates,
    seconds: float,
    tell: Hearer = nobody,
) -> LayerBounds:
    """Time the kernels of a layer, each as a CUDA graph, and hold them against their bounds.

    Args:
        channels: Channels in and out.
        size: Side of the square map, in cells.
        stride: Stride of the layer, 1 or 2.
        batch: Images.
        dtype: Of the maps.
        device: Where the kernels run.
        rates: Of that device in that dtype.
        seconds: Time to spend on all kernels together.
        tell: Called while measuring, in sum with `seconds`.

    Raises:
        RuntimeError: If the layer's output is wrong; then nothing is measured.
    """
    from acmix.ops.triton.plans import Shape

    title, settings = layer_case(channels, size, stride, batch, dtype, device)
    layer = ACmix(channels, channels, stride=stride, backend="triton").to(device, dtype)
    exact = copy.deepcopy(layer).double()
    exact.backend = "reference"
    gate(title, "triton", Candidate(layer, torch.randn(1, channels, size, size).to(device, dtype), exact))
    shape = Shape(batch, layer.heads, channels // layer.heads, size, size, layer.kernel_att, stride)
    kernel = layer.dep_weight.shape[-1]
    calls = kernel_calls(shape, kernel, dtype, device)
    if device.type == "cuda":
        # Without graphs the host's launches take longer than the kernels.
        calls = {name: as_graph(call) for name, call in calls.items()}
    times = time_interleaved(calls, seconds, device=device, tell=tell)
    work = least_work(shape, kernel, dtype.itemsize)
    issue: dict[str, float] = {}
    if device.type == "cuda" and torch.version.hip is None:
        issue = issue_seconds(shape, dtype, torch.cuda.get_device_properties(device))
    kernels = {}
    for name, time in times.items():
        bounds = {"bytes": work[name].bytes / rates.bytes, "products": work[name].flops / rates.flops}
        if name in issue:
            bounds["instructions"] = issue[name]
        kernels[name] = KernelTime(work[name], time, bounds, max(bounds.values()) / time.fastest)
    return LayerBounds(title, settings, rates, kernels)
