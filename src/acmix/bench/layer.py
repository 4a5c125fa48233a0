"""The operator beside the unfold formulation and the 3x3 convolution it replaces."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from acmix import ops
from acmix.bench import flex, unfold
from acmix.bench.comparison import Candidate, Comparison, compare, layer_case
from acmix.bench.measure import Hearer, nobody
from acmix.bench.processors import Speeds, bound_forward
from acmix.nn import ACmix

# Layers of ResNet-50 at 224 pixels: channels, side of the input map, stride.
RESNET50_LAYERS = (
    (64, 56, 1),
    (128, 28, 1),
    (256, 14, 1),
    (512, 7, 1),
    (128, 56, 2),
    (256, 28, 2),
    (512, 14, 2),
)


class Unfold(nn.Module):
    """A layer computed by the unfold formulation."""

    def __init__(self, layer: ACmix) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Apply it, `(B, C_in, H, W)` to `(B, C, H', W')`."""
        layer = self.layer
        projections = layer.qkv(x).unflatten(1, (3 * layer.heads, -1))
        weights = (layer.position_weight, layer.fc_weight, layer.dep_weight)
        rates = (layer.rate_attention, layer.rate_convolution)
        return unfold.mix(projections, *weights, *rates, window=layer.kernel_att, stride=layer.stride[0])


class Flex(nn.Module):
    """A layer whose attention is PyTorch's FlexAttention, for maps of one size; the rest is the portable backend's."""

    def __init__(self, layer: ACmix, height: int, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.attend = flex.WindowAttention(height, width, layer.kernel_att, layer.stride[0]).to(layer.fc_weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it, `(B, C_in, H, W)` to `(B, C, H', W')`."""
        layer = self.layer
        projections = layer.qkv(x).unflatten(1, (3 * layer.heads, -1))
        attention = self.attend(projections, layer.position_weight).flatten(1, 2)
        weights = (layer.fc_weight, layer.rate_convolution * layer.dep_weight)
        convolution = ops.shift_conv(projections, *weights, stride=layer.stride[0], backend="portable")
        return torch.addcmul(convolution, attention, layer.rate_attention)


def compare_layer(
    channels: int,
    size: int,
    stride: int = 1,
    *,
    batch: int = 4,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    compiled: bool = False,
    device: str = "cpu",
    graphs: bool = False,
    speeds: Speeds | None = None,
    seconds: float = 10.0,
    tell: Hearer = nobody,
) -> Comparison:
    """Measure every backend that can run, the unfold formulation and a 3x3 convolution of the same width.

    On a GPU, FlexAttention with the window's weights in its scores is a candidate too.

    Args:
        channels: Channels in and out.
        size: Side of the square map, in cells.
        stride: Stride of the layer.
        batch: Images.
        dtype: Of input and weights.
        channels_last: Memory format of the input, the weights and so of everything between.
        compiled: Measure `torch.compile` of every candidate.
        device: "cpu", "cuda" or "cuda:1".
        graphs: Time CUDA graphs, so that launches cost nothing.
        speeds: Of the processor, to hold forward passes against; None for none.
        seconds: Time to spend on each of the two comparisons, forward and training.
        tell: Called while measuring, in sum with twice `seconds`.

    Raises:
        RuntimeError: If a candidate's output is wrong; then nothing is measured.
    """
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    image = torch.randn(batch, channels, size, size).to(device, dtype, memory_format=memory_format)
    layer = ACmix(channels, channels, stride=stride).to(device, dtype)
    layer.to(memory_format=memory_format)
    reference = _with_backend(layer, "reference").double()
    convolution = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False).to(device, dtype)
    convolution.to(memory_format=memory_format)

    def candidate(module: nn.Module, exact: nn.Module) -> Candidate:
        if compiled:
            module.compile()
        return Candidate(module, image, exact)

    maps = image.unflatten(1, (layer.heads, -1))
    backends = [name for name in ops.backends() if name != "reference" and ops.why_not(name, maps) is None]
    candidates = {name: candidate(_with_backend(layer, name), reference) for name in backends}
    candidates["unfold"] = candidate(Unfold(copy.deepcopy(layer)), reference)
    if torch.device(device).type == "cuda":
        candidates["flex attention"] = candidate(Flex(copy.deepcopy(layer), size, size), reference)
    candidates["convolution"] = candidate(convolution, copy.deepcopy(convolution).double())
    title, settings = layer_case(channels, size, stride, batch, dtype, device)
    settings |= {
        "channels_last": channels_last,
        "compiled": compiled,
        "graphs": graphs,
        "qkv_bytes": 3 * image.numel() * image.element_size(),
    }
    compared = compare(
        title, settings, candidates, ["convolution"], seconds=seconds, input_gradient=True, graphs=graphs, tell=tell
    )
    if speeds is None:
        return compared
    forward = {name: measured.forward for name, measured in compared.candidates.items()}
    return replace(compared, bounds=bound_forward(settings, forward, dtype, speeds))


def _with_backend(layer: ACmix, backend: str) -> ACmix:
    twin = copy.deepcopy(layer)
    twin.backend = backend
    return twin
