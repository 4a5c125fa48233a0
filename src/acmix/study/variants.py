"""The networks of a study: one shape, other operators in the place of the 3x3 convolutions, or one path of both."""

import bisect
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from acmix.accounting import Cost, account
from acmix.errors import InputError
from acmix.models.names import check_name
from acmix.models.resnet import ResNet
from acmix.models.swin import SwinTransformer
from acmix.paths import Route, TwoPaths, operators_of
from acmix.study.results import ACMIX, CONVOLUTION

# base_width of timm's bottlenecks, 64 for those of the plain network: the range of the search.
_WIDTHS = range(8, 257)
_KINDS = {nn.Module: "ACmix network", ResNet: "ACmix-ResNet", SwinTransformer: "ACmix-Swin"}


class OnePath(nn.Module):
    """One path of an operator alone: nothing of the other one is computed, or counted among the parameters.

    The one with its rate 1, the other with 0 (arXiv 2111.14556, eq. 14); that of attention in a Swin is timm's.

    Args:
        operator: Whose parameters and settings it takes, the operator itself with them.
        path: Which path stays.

    Shape:
        As the operator.
    """

    def __init__(self, operator: TwoPaths, path: Route) -> None:
        super().__init__()
        self.operator, self.path = operator, path
        other = "convolution" if path == "attention" else "attention"
        gone = [*operator.parts()[other], operator.rate_attention, operator.rate_convolution]
        for module in operator.modules():
            for name, parameter in [*module.named_parameters(recurse=False)]:
                if any(parameter is item for item in gone):
                    setattr(module, name, None)

    def forward(self, *inputs: Any) -> Tensor:
        """Apply the path."""
        return self.operator.alone(self.path, *inputs)


@dataclass(frozen=True)
class Variant:
    """A network of the study.

    Attributes:
        title: In words.
        network: Makes it, with fresh weights, from timm's name of a network with ACmix, the number of classes and
            options of the network.
        change: What is then changed in it, in place.
        unused: The path whose multiply-adds it does without.
    """

    title: str
    network: Callable[..., nn.Module]
    change: Callable[[nn.Module], None] | None = None
    unused: Route | None = None

    def build(self, model: str, classes: int, **options: Any) -> nn.Module:
        """The network with fresh weights.

        Args:
            model: timm's name of a network with ACmix.
            classes: How many.
            **options: Of the network.

        Raises:
            InputError: If the model has no ACmix, or not this variant.
        """
        network = self.network(model, classes, **options)
        if self.change is not None:
            self.change(network)
        return network

    def cost(self, model: str, classes: int, input_size: tuple[int, int, int]) -> Cost:
        """Parameters and multiply-adds of one image; of one path those of a kernel that computes that path alone.

        Raises:
            InputError: If the model has no ACmix, or not this variant.
            ValueError: If it cannot take the size.
        """
        network = self.build(model, classes)
        counted = self.network(model, classes) if self.unused else network
        cost = account(counted, input_size).network
        spared = getattr(cost, self.unused).multiply_adds if self.unused else 0
        parameters = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        return Cost(parameters, cost.total.multiply_adds - spared)


def _acmix(model: str, classes: int, *, kind: type[nn.Module] = nn.Module, **options: Any) -> Any:
    """A network of a family, with options that it has."""
    check_name(model)
    # Without numbers: seeds are for the network that is returned.
    with torch.device("meta"):
        plain = timm.create_model(model, num_classes=classes)
    if not operators_of(plain) or not isinstance(plain, kind):
        raise InputError(f"model must be an {_KINDS[kind]} for this network of a study, got {model!r}")
    return timm.create_model(model, num_classes=classes, **options)


_resnet = functools.partial(_acmix, kind=ResNet)
_swin = functools.partial(_acmix, kind=SwinTransformer)


def _convolution(model: str, classes: int, **options: Any) -> nn.Module:
    return _resnet(model, classes, block=Bottleneck, **options)


def _equal_convolution(model: str, classes: int, **options: Any) -> nn.Module:
    """3x3 convolutions in bottlenecks whose width brings the parameters nearest to those of ACmix."""

    def parameters(**shape: Any) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in _resnet(model, classes, **shape).parameters())

    def of_width(width: int) -> int:
        return parameters(block=Bottleneck, base_width=width)

    wanted = parameters()
    first = bisect.bisect_left(_WIDTHS, wanted, hi=len(_WIDTHS) - 1, key=of_width)
    nearest = min(_WIDTHS[max(0, first - 1) : first + 1], key=lambda width: abs(of_width(width) - wanted))
    return _resnet(model, classes, block=Bottleneck, base_width=nearest, **options)


def _wider_swin(model: str, classes: int, **options: Any) -> nn.Module:
    """A Swin whose hidden layers bring the multiply-adds of its attention alone to those of ACmix."""
    costs = []
    for ratio in (4, 8):
        with torch.device("meta"):
            network = _swin(model, classes, mlp_ratio=ratio)
        costs.append(account(network, network.default_cfg["input_size"]).network)
    # They grow with the ratio, and with it alone.
    ratio = 4 + 4 * costs[0].convolution.multiply_adds / (costs[1].total.multiply_adds - costs[0].total.multiply_adds)
    return _swin(model, classes, mlp_ratio=round(16 * ratio) / 16, **options)


_window_3 = functools.partial(_resnet, block_args={"kernel_att": 3})
_quiet_shifts = functools.partial(_resnet, block_args={"quiet_shifts": True})


def _keep_path(network: nn.Module, *, path: Route) -> None:
    for module in [*network.modules()]:
        for name, operator in [*module.named_children()]:
            if isinstance(operator, TwoPaths):
                module.add_module(name, OnePath(operator, path))


def _fix_rates(network: nn.Module) -> None:
    for operator in operators_of(network).values():
        operator.rate_attention.requires_grad_(False)
        operator.rate_convolution.requires_grad_(False)


def _randomise_kernels(network: nn.Module) -> None:
    """What the published ResNet's constructor makes of the shifts, see DESIGN.md: Kaiming's normal distribution."""
    for operator in operators_of(network).values():
        nn.init.kaiming_normal_(operator.kernels, mode="fan_out", nonlinearity="relu")


def _drop_positions(network: nn.Module) -> None:
    for operator in operators_of(network).values():
        nn.init.zeros_(operator.position_weight.requires_grad_(False))  # type: ignore[missing-attribute]


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
    "no-positions": Variant("ACmix without positions", _resnet, _drop_positions),
    "window-3": Variant("ACmix, window of 3", _window_3),
    "attention-window-3": Variant(
        "attention path alone, window of 3", _window_3, _attention_alone, unused="convolution"
    ),
}
_OF_SWIN: dict[str, Variant] = {
    "equal-attention": Variant(
        "attention path alone, as many multiply-adds as ACmix", _wider_swin, _attention_alone, unused="convolution"
    ),
}
VARIANTS = _COMPARED | _PROBES | _OF_SWIN


def usual_variants(model: str) -> list[str]:
    """Names of what is trained where nobody says what to train.

    Raises:
        InputError: If the model has no ACmix.
    """
    with torch.device("meta"):
        network = _acmix(model, 2)
    if isinstance(network, ResNet):
        return [*_COMPARED]
    alone = [name for name, variant in _COMPARED.items() if variant.network is _acmix]
    return [*alone, *(_OF_SWIN if isinstance(network, SwinTransformer) else ())]


def rates(network: nn.Module) -> list[tuple[float, float]]:
    """The rates of every ACmix of a network, attention and convolution."""
    return [
        (operator.rate_attention.item(), operator.rate_convolution.item())
        for operator in operators_of(network).values()
    ]
