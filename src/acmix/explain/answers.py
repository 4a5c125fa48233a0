"""What the backends answer to the same images, and how long they take."""

import copy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from acmix import ops
from acmix.bench.measure import time_interleaved
from acmix.explain.layers import layer_arguments, operators


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A backend's answer.

    Attributes:
        backend: Its name.
        refusal: Why it cannot compute these images; the rest is then None.
        logits: What the network answers, `(B, classes)`, on the CPU.
        error: Largest difference of the logits from the reference backend's in float64.
        seconds: Fastest run.
    """

    backend: str
    refusal: str | None = None
    logits: Tensor | None = None
    error: float | None = None
    seconds: float | None = None


def compare_backends(network: nn.Module, images: Tensor, *, seconds: float = 0.5) -> list[Answer]:
    """Run a network with each backend of this machine in turn.

    Args:
        network: A network with ACmix layers, in evaluation mode; it is left as it is.
        images: Shape `(B, C, H, W)`.
        seconds: Time to spend on timing, in all.

    Returns:
        One answer a backend of `acmix.ops.backends()`.

    Raises:
        InputError: If the network has no ACmix layer.
    """
    inputs = layer_arguments(network, images)
    exact = _with_backend(copy.deepcopy(network).cpu().double(), "reference")
    networks: dict[str, nn.Module] = {}
    refusals: dict[str, str | None] = {}
    for backend in ops.backends():
        reasons = (layer.why_not(backend, *inputs[name]) for name, layer in operators(network).items())
        with torch.no_grad():
            refusals[backend] = next((reason for reason in reasons if reason is not None), None)
        if refusals[backend] is None:
            networks[backend] = _with_backend(_sharing_weights(network), backend)
    with torch.inference_mode():
        expected = exact(images.cpu().double())
        logits = {backend: twin(images).cpu() for backend, twin in networks.items()}
        calls = {backend: partial(twin, images) for backend, twin in networks.items()}
        timings = time_interleaved(calls, seconds, device=images.device)
    return [
        Answer(
            backend=backend,
            logits=logits[backend],
            error=float((logits[backend].double() - expected).abs().max()),
            seconds=timings[backend].fastest,
        )
        if refusal is None
        else Answer(backend=backend, refusal=refusal)
        for backend, refusal in refusals.items()
    ]


def _with_backend(network: nn.Module, backend: str) -> nn.Module:
    for layer in operators(network).values():
        layer.backend = backend
    return network


def _sharing_weights(network: nn.Module) -> nn.Module:
    """A copy of the modules that keeps the very tensors: only its settings can be changed apart."""
    return copy.deepcopy(network, {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())})
