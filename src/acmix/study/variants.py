"""The networks of a study: one shape, other operators in the place of the 3x3 convolutions."""

import bisect
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from acmix import ops
from acmix.accounting import Cost, account
from acmix.errors import InputError
from acmix.models.names import check_name
from acmix.models.resnet import ResNet
from acmix.nn import ACmix
from acmix.ops.geometry import position_map
from acmix.study.results import ACMIX, CONVOLUTION

Route = Literal["attention", "convolution"]
# base_width of timm's bottlenecks, 64 for those of the plain network: the range of the search.
_WIDTHS = range(8, 257)


class OnePath(nn.Module):
    """One path of an ACmix alone: nothing of the other one is computed, or counted among the parameters.

    out = att(q, k, v) or conv(q, k, v), q, k, v = W x + b (arXiv 2111.14556, eq. 14 with one rate 1 and the other 0).
    The scale of the rate would not matter: a batch norm follows.

    Args:
        operator: Whose parameters and settings it takes.
        path: Which path stays.

    Shape:
        `(B, C_in, H, W)` to `(B, C, ceil(H / s), ceil(W / s))`.
    """

    def __init__(self, operator: ACmix, path: Route) -> None:
        super().__init__()
        self.path, self.heads, self.window = path, operator.heads, operator.kernel_att
        self.steps = {"stride": operator.stride[0], "dilation": operator.dilation[0], "backend": operator.backend}
        self.qkv = operator.qkv
        if path == "attention":
            self.position_weight = operator.position_weight
        else:
            self.fc_weight, self.dep_weight = operator.fc_weight, operator.dep_weight

    def forward(self, x: Tensor) -> Tensor:
        """Apply the path: `(B, C_in, H, W)` to `(B, C, ceil(H / s), ceil(W / s))`."""
        projections = self.qkv(x).unflatten(1, (3 * self.heads, -1))
        steps: dict[str, Any] = self.steps
        if self.path == "attention":
            query, key, value = projections.chunk(3, 1)
            key = key - position_map(self.position_weight, *x.shape[-2:]).to(key.dtype)
            # Channel n D + d.
            return ops.local_attention(query, key, value, window=self.window, **steps).flatten(1, 2)
        return ops.shift_conv(projections, self.fc_weight, self.dep_weight, **steps)


@dataclass(frozen=True)
class Variant:
    """A network of the study.

    Attributes:
        title: In words.
        network: Makes it, with fresh weights, from timm's name of an ACmix-ResNet, the number of classes and options
            of timm's ResNet.
        change: What is then changed in it, in place.
        unused: The path whose multiply-adds it does without.
    """

    title: str
    network: Callable[..., ResNet]
    change: Callable[[ResNet], None] | None = None
    unused: Route | None = None

    def build(self, model: str, classes: int, **options: Any) -> ResNet:
        """The network with fresh weights.

        Args:
            model: timm's name of an ACmix-ResNet.
            classes: How many.
            **options: Of timm's ResNet.

        Raises:
            InputError: If the model is no ACmix-ResNet.
        """
        network = self.network(model, classes, **options)
        if self.change is not None:
            self.change(network)
        return network

    def cost(self, model: str, classes: int, input_size: tuple[int, int, int]) -> Cost:
        """Parameters and multiply-adds of one image; of one path those of a kernel that computes that path alone.

        Raises:
            InputError: If the model is no ACmix-ResNet.
            ValueError: If it cannot take the size.
        """
        network = self.build(model, classes)
        counted = self.network(model, classes) if self.unused else network
        cost = account(counted, input_size).network
        spared = getattr(cost, self.unused).multiply_adds if self.unused else 0
        parameters = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        return Cost(parameters, cost.total.multiply_adds - spared)


def _acmix(model: str, classes: int, **options: Any) -> ResNet:
    check_name(model)
    network = timm.create_model(model, num_classes=classes, **options)
    if not isinstance(network, ResNet):
        raise InputError(f"model must be an ACmix-ResNet, which has a twin with convolutions, got {model!r}")
    return network


def _operators(network: nn.Module) -> list[ACmix]:
    return [module for module in network.modules() if isinstance(module, ACmix)]


def _convolution(model: str, classes: int, **options: Any) -> ResNet:
    return _acmix(model, classes, block=Bottleneck, **options)


def _equal_convolution(model: str, classes: int, **options: Any) -> ResNet:
    """3x3 convolutions in bottlenecks whose width brings the parameters nearest to those of ACmix."""

    def parameters(**shape: Any) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in _acmix(model, classes, **shape).parameters())

    def of_width(width: int) -> int:
        return parameters(block=Bottleneck, base_width=width)

    wanted = parameters()
    first = bisect.bisect_left(_WIDTHS, wanted, hi=len(_WIDTHS) - 1, key=of_width)
    nearest = min(_WIDTHS[max(0, first - 1) : first + 1], key=lambda width: abs(of_width(width) - wanted))
    return _acmix(model, classes, block=Bottleneck, base_width=nearest, **options)


_window_3 = functools.partial(_acmix, block_args={"kernel_att": 3})
_quiet_shifts = functools.partial(_acmix, block_args={"quiet_shifts": True})


def _keep_path(network: ResNet, *, path: Route) -> None:
    for block in network.modules():
        if isinstance(operator := getattr(block, "conv2", None), ACmix):
            block.add_module("conv2", OnePath(operator, path))


def _fix_rates(network: ResNet) -> None:
    for operator in _operators(network):
        operator.rate_attention.requires_grad_(False)
        operator.rate_convolution.requires_grad_(False)


def _randomise_kernels(network: ResNet) -> None:
    """What the published ResNet's constructor makes of the shifts, see DESIGN.md: Kaiming's normal distribution."""
    for operator in _operators(network):
        nn.init.kaiming_normal_(operator.dep_weight, mode="fan_out", nonlinearity="relu")


def _drop_positions(network: ResNet) -> None:
    for operator in _operators(network):
        nn.init.zeros_(operator.position_weight.requires_grad_(False))


_attention_alone = functools.partial(_keep_path, path="attention")
_convolution_alone = functools.partial(_keep_path, path="convolution")

# The first is what every other is an alternative to; ACmix itself is the other reference of all comparisons.
_COMPARED: dict[str, Variant] = {
    CONVOLUTION: Variant("3x3 convolutions", _convolution),
    "equal-convolution": Variant("3x3 convolutions, as many parameters as ACmix", _equal_convolution),
    "attention": Variant("attention path alone", _acmix, _attention_alone, unused="convolution"),
    "convolution-path": Variant("convolution path alone", _acmix, _convolution_alone, unused="attention"),
    "equal-rates": Variant("ACmix, both rates fixed at 0.5", _acmix, _fix_rates),
    ACMIX: Variant("ACmix, learned rates", _acmix),
    "random-kernels": Variant("ACmix, random kernels in place of shifts", _acmix, _randomise_kernels),
}
# What tells why one of those wins or loses.
_PROBES: dict[str, Variant] = {
    "quiet-shifts": Variant("ACmix, shifts as small as random kernels", _quiet_shifts),
    "no-positions": Variant("ACmix without positions", _acmix, _drop_positions),
    "window-3": Variant("ACmix, window of 3", _window_3),
    "attention-window-3": Variant(
        "attention path alone, window of 3", _window_3, _attention_alone, unused="convolution"
    ),
}
VARIANTS = _COMPARED | _PROBES
# What is trained where nobody says what to train.
USUAL_VARIANTS = tuple(_COMPARED)


def rates(network: nn.Module) -> list[tuple[float, float]]:
    """The rates of every ACmix of a network, attention and convolution."""
    return [(operator.rate_attention.item(), operator.rate_convolution.item()) for operator in _operators(network)]
