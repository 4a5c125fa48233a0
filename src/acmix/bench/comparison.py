"""Candidates side by side in one run: a gate for correctness, then time and memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from acmix.bench.measure import Hearer, Timing, as_graph, nobody, peak_memory, time_interleaved

_Call = Callable[[], object]
# A wrong candidate is no competitor: largest relative error of an output against float64.
LARGEST_ERROR = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Candidate:
    """What is measured: a module, its input, and the same function in float64 from an independent implementation."""

    module: nn.Module
    image: Tensor
    exact: nn.Module


@dataclass(frozen=True)
class Measurement:
    """One candidate.

    Attributes:
        forward: Seconds of a forward pass in evaluation mode without gradients.
        training: Seconds of a forward and backward pass in training mode; None of what is for inference alone.
        forward_memory: Peak bytes that PyTorch's allocator held beyond input and weights in the forward pass.
        training_memory: The same in the forward and backward pass, gradients of weights included; None likewise.
        error: Relative error of the output against float64.
    """

    forward: Timing
    training: Timing | None
    forward_memory: int
    training_memory: int | None
    error: float

    @property
    def passes(self) -> list[tuple[Timing, int]]:
        """Time and memory of the forward pass, and of forward and backward where that was measured."""
        passes = ((self.forward, self.forward_memory), (self.training, self.training_memory))
        return [(timing, memory) for timing, memory in passes if timing is not None and memory is not None]


@dataclass(frozen=True)
class ForwardBound:
    """Seconds that a forward pass takes at least for its bytes, products and exponentials (`acmix.bench.processors`).

    Attributes:
        share: The bytes', or the sum of the others', if that is longer, / the fastest run.
    """

    bytes: float
    products: float
    exponentials: float
    share: float


@dataclass(frozen=True)
class Comparison:
    """All candidates on one case; `settings` say which, ratios are to `baseline`, `bounds` are asked for."""

    title: str
    settings: dict[str, Any]
    baseline: str
    candidates: dict[str, Measurement]
    bounds: dict[str, ForwardBound] = field(default_factory=dict)


def layer_case(
    channels: int, size: int, stride: int, batch: int, dtype: torch.dtype, device: torch.device | str
) -> tuple[str, dict[str, object]]:
    """The title and the settings of a layer with as many channels in as out, on square maps."""
    settings: dict[str, object] = {
        "channels": channels,
        "size": size,
        "stride": stride,
        "batch": batch,
        "dtype": str(dtype).removeprefix("torch."),
        "device": str(device),
    }
    return f"{channels} channels, {size} x {size}, stride {stride}, batch {batch}", settings


def compare(
    title: str,
    settings: dict[str, object],
    candidates: Mapping[str, Candidate],
    baselines: Sequence[str],
    *,
    seconds: float,
    input_gradient: bool,
    trained: bool = True,
    graphs: bool = False,
    tell: Hearer = nobody,
) -> Comparison:
    """Measure candidates in turn.

    Args:
        title: The case in words.
        settings: The case for the record.
        candidates: Name to candidate.
        baselines: Names of candidates; the one with the fastest forward pass becomes the baseline.
        seconds: Time to spend on each of the two comparisons, forward and training.
        input_gradient: Whether the backward pass goes down to the input, as inside a network.
        trained: Whether there is a comparison of training.
        graphs: Time CUDA graphs of the calls.
        tell: See `time_interleaved`; in sum with `seconds` for each comparison.

    Raises:
        RuntimeError: If a candidate's output is wrong; then nothing is measured.
    """
    device = next(iter(candidates.values())).image.device
    prepare = as_graph if graphs else _as_it_is
    errors = {name: gate(title, name, candidate) for name, candidate in candidates.items()}
    forward = {name: forward_call(candidate) for name, candidate in candidates.items()}
    forward_memory = {name: peak_memory(call, device) for name, call in forward.items()}
    forward_times = time_interleaved(_all(prepare, forward), seconds, device=device, tell=tell)
    training_memory: dict[str, int] = {}
    training_times: dict[str, Timing] = {}
    if trained:
        training = {name: training_call(each, input_gradient=input_gradient) for name, each in candidates.items()}
        training_memory = {name: peak_memory(call, device) for name, call in training.items()}
        training_times = time_interleaved(_all(prepare, training), seconds, device=device, tell=tell)
    measured = {
        name: Measurement(
            forward_times[name], training_times.get(name), forward_memory[name], training_memory.get(name), errors[name]
        )
        for name in candidates
    }
    baseline = min(baselines, key=lambda name: forward_times[name].fastest)
    return Comparison(title, settings, baseline, measured)


def _all(prepare: Callable[[_Call], _Call], calls: Mapping[str, _Call]) -> dict[str, _Call]:
    return {name: prepare(call) for name, call in calls.items()}


def _as_it_is(call: Callable[[], object]) -> Callable[[], object]:
    return call


def gate(title: str, name: str, candidate: Candidate) -> float:
    """Relative error on the first image of the batch; one of its own would have torch.compile make sizes dynamic.

    Raises:
        RuntimeError: If it is too large to time the candidate.
    """
    image = candidate.image
    with torch.no_grad():
        exact = candidate.exact.eval()(image[:1].double())
        output = candidate.module.eval()(image)
        error = ((output[:1].double() - exact).norm() / exact.norm()).item()
    # Sums of either may be in the other's dtype: autocast narrows, rates of float32 widen.
    if not error <= max(LARGEST_ERROR[image.dtype], LARGEST_ERROR[output.dtype]):
        raise RuntimeError(f"{name} is wrong on {title}: relative error {error:.1e} against float64")
    return error


def forward_call(candidate: Candidate) -> Callable[[], object]:
    """A forward pass without gradients, the module set to evaluation mode now."""
    candidate.module.eval()

    def call() -> object:
        with torch.no_grad():
            return candidate.module(candidate.image)

    return call


def training_call(candidate: Candidate, *, input_gradient: bool) -> Callable[[], object]:
    """A forward and backward pass, the module set to training mode now."""
    candidate.module.train()
    image = candidate.image.detach().requires_grad_(input_gradient)

    def call() -> object:
        candidate.module.zero_grad(set_to_none=True)
        image.grad = None
        output = candidate.module(image)
        output.backward(torch.ones_like(output))
        return output

    return call
