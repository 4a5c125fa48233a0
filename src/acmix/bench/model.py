"""Networks side by side, each in both memory formats."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from acmix.bench.comparison import Candidate, Comparison, compare
from acmix.bench.measure import Hearer, nobody
from acmix.paths import TwoPaths
from acmix.surgery import fuse

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Autocast(nn.Module):
    """A network whose forward pass computes in bfloat16 where PyTorch thinks it safe, on weights that stay as they are.

    Args:
        network: Weights are cast anew each call, as in an update of a training.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network."""
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.network(x)


def compare_networks(
    networks: dict[str, nn.Module],
    baseline: str,
    *,
    input_size: Sequence[int] = (3, 224, 224),
    batch: int = 4,
    dtype: torch.dtype = torch.float32,
    fused: bool = False,
    autocast: bool = False,
    compiled: bool = False,
    device: str = "cpu",
    graphs: bool = False,
    seconds: float = 60.0,
    tell: Hearer = nobody,
) -> Comparison:
    """Measure networks, forward and, unless they are fused, forward + backward.

    Args:
        networks: Name to network.
        baseline: Name of the network whose faster memory format all ratios are to.
        input_size: Channels, height and width of an image.
        batch: Images.
        dtype: Of input and weights.
        fused: Measure `acmix.fuse` of every network, which is for inference alone; held against the network itself.
        autocast: Compute in bfloat16 under `torch.autocast`, forward and so backward.
        compiled: Measure `torch.compile` of every network.
        device: "cpu", "cuda" or "cuda:1".
        graphs: Time CUDA graphs, so that launches cost nothing.
        seconds: Time to spend on each comparison, forward and training.
        tell: Called while measuring, in sum with `seconds` for each.

    Raises:
        RuntimeError: If a network's output is wrong; then nothing is measured.
    """
    image = torch.randn(batch, *input_size).to(device, dtype)
    candidates = {}
    for name, network in networks.items():
        exact = _by_definition(network).to(device)
        measured = fuse(network) if fused else network
        for label, memory_format in FORMATS.items():
            module = copy.deepcopy(measured).to(device, dtype)
            module.to(memory_format=memory_format)
            _keep_paths(module)
            if autocast:
                module = Autocast(module)
            if compiled:
                module.compile()
            candidates[f"{name}, {label}"] = Candidate(module, image.contiguous(memory_format=memory_format), exact)
    settings: dict[str, object] = {
        "networks": list(networks),
        "input_size": list(input_size),
        "batch": batch,
        "dtype": str(dtype).removeprefix("torch."),
        "fused": fused,
        "autocast": autocast,
        "compiled": compiled,
        "device": device,
        "graphs": graphs,
    }
    how = ", fused" * fused + ", autocast to bfloat16" * autocast
    title = f"{' beside '.join(networks)}, {' x '.join(map(str, input_size))}, batch {batch}{how}"
    return compare(
        title,
        settings,
        candidates,
        [f"{baseline}, {label}" for label in FORMATS],
        seconds=seconds,
        input_gradient=False,
        trained=not fused,
        graphs=graphs,
        tell=tell,
    )


def _keep_paths(network: nn.Module) -> None:
    """Drop no residual branches: networks of timm differ in how many they drop unless told."""
    # Timings are read by those who measure nothing, and timm takes seconds to load.
    from timm.layers import DropPath

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
