"""The operator beside the unfold formulation and the 3x3 convolution it replaces, in one run on one machine."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from acmix import ops
from acmix.bench import unfold
from acmix.bench.measure import Timing, peak_memory, time_interleaved
from acmix.nn import ACmix

# Stride-1 layers of ResNet-50 at 224 pixels: channels, side of the map.
RESNET50_LAYERS = ((64, 56), (128, 28), (256, 14), (512, 7))
# A wrong candidate is no competitor: largest relative error against the reference in float64.
_LARGEST_ERROR = 1e-4


@dataclass(frozen=True)
class Measurement:
    """One candidate on one layer.

    Attributes:
        forward: Seconds of a forward pass without gradients.
        training: Seconds of a forward and backward pass.
        forward_memory: Peak bytes held beyond input and weights in a forward pass without gradients.
        training_memory: The same in a forward and backward pass.
        error: Relative error of the output against the reference in float64; None for the convolution.
    """

    forward: Timing
    training: Timing
    forward_memory: int
    training_memory: int
    error: float | None


@dataclass(frozen=True)
class LayerComparison:
    """All candidates on one layer, float32: `channels` in and out, a map of `size` x `size` cells.

    `qkv_bytes` is the size of the projected q, k and v, the unit for memory.
    """

    channels: int
    size: int
    batch: int
    qkv_bytes: int
    candidates: dict[str, Measurement]


def compare_layer(channels: int, size: int, *, batch: int = 4, seconds: float = 10.0) -> LayerComparison:
    """Measure every backend that can run, the unfold formulation and a 3x3 convolution of the same width.

    Args:
        channels: Channels in and out.
        size: Side of the square map, in cells.
        batch: Images.
        seconds: Time to spend on each of the two comparisons, forward and training.

    Raises:
        RuntimeError: If a candidate's output is wrong; then nothing is measured.
    """
    layer = ACmix(channels, channels)
    image = torch.randn(batch, channels, size, size)

    def stage_two(function: Callable[..., Tensor], **options: object) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            query, key, value = layer.qkv(x).unflatten(1, (3, layer.heads, -1)).unbind(1)
            weights = (layer.position_weight, layer.fc_weight, layer.dep_weight)
            return function(query, key, value, *weights, layer.rate_attention, layer.rate_convolution, **options)

        return forward

    backends = [name for name in ops.backends() if name != "reference"]
    operators = {name: stage_two(ops.mix, backend=name) for name in backends}
    operators["unfold"] = stage_two(unfold.mix)
    errors = _gate(operators, layer, image)
    candidates: dict[str, Callable[[Tensor], Tensor]] = {
        **operators,
        "convolution": nn.Conv2d(channels, channels, 3, padding=1, bias=False),
    }
    forward = {name: _forward(candidate, image) for name, candidate in candidates.items()}
    training = {name: _training(candidate, image) for name, candidate in candidates.items()}
    forward_time, training_time = time_interleaved(forward, seconds), time_interleaved(training, seconds)
    measured = {
        name: Measurement(
            forward_time[name],
            training_time[name],
            peak_memory(forward[name]),
            peak_memory(training[name]),
            errors.get(name),
        )
        for name in candidates
    }
    return LayerComparison(channels, size, batch, 3 * image.numel() * image.element_size(), measured)


def _gate(operators: dict[str, Callable[[Tensor], Tensor]], layer: ACmix, image: Tensor) -> dict[str, float]:
    """Relative error of every candidate on the first image; a wrong one ends the benchmark."""
    exact_layer = ACmix(layer.in_channels, layer.out_channels, backend="reference").double()
    exact_layer.load_state_dict({name: value.double() for name, value in layer.state_dict().items()})
    errors = {}
    with torch.no_grad():
        exact = exact_layer(image[:1].double())
        for name, operator in operators.items():
            errors[name] = ((operator(image[:1]).double() - exact).norm() / exact.norm()).item()
            if not errors[name] <= _LARGEST_ERROR:
                raise RuntimeError(f"{name} is wrong on {tuple(image.shape)}: relative error {errors[name]:.1e}")
    return errors


def _forward(candidate: Callable[[Tensor], Tensor], image: Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad():
            return candidate(image)

    return call


def _training(candidate: Callable[[Tensor], Tensor], image: Tensor) -> Callable[[], object]:
    leaf = image.clone().requires_grad_()

    def call() -> object:
        output = candidate(leaf)
        leaf.grad = None
        output.backward(torch.ones_like(output))
        return leaf.grad

    return call
