"""Networks side by side, each in both memory formats."""

import copy
from collections.abc import Sequence

import torch
from timm.layers import DropPath
from torch import nn

from acmix.bench.comparison import Candidate, Comparison, compare
from acmix.bench.measure import Hearer, nobody
from acmix.paths import TwoPaths

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def compare_networks(
    networks: dict[str, nn.Module],
    baseline: str,
    *,
    input_size: Sequence[int] = (3, 224, 224),
    batch: int = 4,
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
    device: str = "cpu",
    graphs: bool = False,
    seconds: float = 60.0,
    tell: Hearer = nobody,
) -> Comparison:
    """Measure networks, forward and forward + backward.

    Args:
        networks: Name to network.
        baseline: Name of the network whose faster memory format all ratios are to.
        input_size: Channels, height and width of an image.
        batch: Images.
        dtype: Of input and weights.
        compiled: Measure `torch.compile` of every network.
        device: "cpu", "cuda" or "cuda:1".
        graphs: Time CUDA graphs, so that launches cost nothing.
        seconds: Time to spend on each of the two comparisons, forward and training.
        tell: Called while measuring, in sum with twice `seconds`.

    Raises:
        RuntimeError: If a network's output is wrong; then nothing is measured.
    """
    image = torch.randn(batch, *input_size).to(device, dtype)
    candidates = {}
    for name, network in networks.items():
        exact = _by_definition(network).to(device)
        for label, memory_format in FORMATS.items():
            module = copy.deepcopy(network).to(device, dtype)
            module.to(memory_format=memory_format)
            _keep_paths(module)
            if compiled:
                module.compile()
            candidates[f"{name}, {label}"] = Candidate(module, image.contiguous(memory_format=memory_format), exact)
    settings: dict[str, object] = {
        "networks": list(networks),
        "input_size": list(input_size),
        "batch": batch,
        "dtype": str(dtype).removeprefix("torch."),
        "compiled": compiled,
        "device": device,
        "graphs": graphs,
    }
    title = f"{' beside '.join(networks)}, {' x '.join(map(str, input_size))}, batch {batch}"
    baselines = [f"{baseline}, {label}" for label in FORMATS]
    return compare(
        title, settings, candidates, baselines, seconds=seconds, input_gradient=False, graphs=graphs, tell=tell
    )


def _keep_paths(network: nn.Module) -> None:
    """Drop no residual branches: networks of timm differ in how many they drop unless told."""
    for module in network.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0


def _by_definition(network: nn.Module) -> nn.Module:
    """A float64 copy whose operators compute by the definition."""
    exact = copy.deepcopy(network).double()
    for module in exact.modules():
        if isinstance(module, TwoPaths):
            module.backend = "reference"
    return exact
