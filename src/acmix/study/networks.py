"""How the networks of a study are made: one shape, other operators in the place of the 3x3 convolutions."""

import bisect
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models import model_entrypoint
from timm.models.resnet import Bottleneck
from torch import nn

from acmix.accounting import network_cost
from acmix.errors import InputError
from acmix.models.names import check_name
from acmix.models.resnet import ResNet
from acmix.models.swin import SwinTransformer
from acmix.nn import ACmix
from acmix.paths import operators_of

# base_width of timm's bottlenecks, 64 for those of the plain network: the range of the search.
_WIDTHS = range(8, 257)
_KINDS = {nn.Module: "ACmix network", ResNet: "ACmix-ResNet", SwinTransformer: "ACmix-Swin"}


@dataclass(frozen=True)
class Shape:
    """What the networks of a study have alike.

    Attributes:
        model: timm's name of the network with ACmix, which may be the backbone of another.
        make: Makes the whole network, with fresh weights, from options of that one.
        on_images: What of the whole network is called on a batch of images, to be counted or timed.
    """

    model: str
    make: Callable[..., nn.Module]
    on_images: Callable[[nn.Module], nn.Module]


def with_operators(model: str, kind: type[nn.Module] = nn.Module) -> nn.Module:
    """A network of timm's registry without numbers, to be looked at and left as it is.

    Raises:
        InputError: If it has no ACmix, or is of another kind.
    """
    plain = _without_numbers(model, _entry_of(model))
    if not operators_of(plain) or not isinstance(plain, kind):
        raise InputError(f"model must be an {_KINDS[kind]} for this network of a study, got {model!r}")
    return plain


def _entry_of(model: str) -> Callable[..., nn.Module]:
    # Somebody may register a name anew: what is remembered is remembered of the function that makes the network.
    check_name(model)
    return model_entrypoint(model)


@functools.cache
def _without_numbers(model: str, _: Callable[..., nn.Module]) -> nn.Module:
    # Seeds are for the network that is trained.
    with torch.device("meta"):
        return timm.create_model(model)


def of_family(shape: Shape, *, kind: type[nn.Module] = nn.Module, **options: Any) -> nn.Module:
    """A network with ACmix and fresh weights.

    Args:
        shape: Of all networks of the study.
        kind: Class of the network with ACmix.
        **options: That it has; with timm's `Bottleneck` as block an ACmix-ResNet has 3x3 convolutions.

    Raises:
        InputError: If the model has no ACmix, or is of another kind.
    """
    with_operators(shape.model, kind)
    return shape.make(**options)


resnet = functools.partial(of_family, kind=ResNet)
swin = functools.partial(of_family, kind=SwinTransformer)


def convolution(shape: Shape, *, base_width: int = 64) -> nn.Module:
    """An ACmix-ResNet with its 3x3 convolutions; base_width is timm's, of the bottlenecks."""
    return resnet(shape, block=Bottleneck, base_width=base_width)


def last_of_stages(shape: Shape) -> nn.Module:
    """An ACmix-ResNet with the operator in the last bottleneck of each stage, 3x3 convolutions in the others.

    Raises:
        InputError: If the model is none, or all of its bottlenecks would have the operator.
    """
    network = resnet(shape)
    operators = resnet_operators(network)
    # The last one of a stage is met last.
    kept = {name.split(".")[-3]: name for name in operators}
    others = operators.keys() - kept.values()
    if not others:
        raise InputError(
            f"all bottlenecks of {shape.model} would have ACmix, as the network acmix has; leave this one out"
        )
    for name in [name for name in operators if name in others]:
        network.set_submodule(name, convolution_like(operators[name]))
    return network


def equal_convolution(shape: Shape, *, twin: Callable[[Shape], nn.Module] = resnet) -> nn.Module:
    """3x3 convolutions in bottlenecks whose width brings the parameters nearest to those of a network with ACmix."""

    def parameters(build: Callable[..., nn.Module], **own: Any) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in build(shape, **own).parameters())

    @functools.cache
    def of_width(width: int) -> int:
        return parameters(convolution, base_width=width)

    wanted = parameters(twin)
    first = bisect.bisect_left(_WIDTHS, wanted, hi=len(_WIDTHS) - 1, key=of_width)
    nearest = min(_WIDTHS[max(0, first - 1) : first + 1], key=lambda width: abs(of_width(width) - wanted))
    return convolution(shape, base_width=nearest)


def wider_swin(shape: Shape) -> nn.Module:
    """A Swin whose hidden layers bring the multiply-adds of its attention alone to those of ACmix."""
    return swin(shape, mlp_ratio=_ratio_of_wider_swin(shape.model, _entry_of(shape.model)))


@functools.cache
def _ratio_of_wider_swin(model: str, _: Callable[..., nn.Module]) -> float:
    with_operators(model, SwinTransformer)
    costs = []
    for ratio in (4, 8):
        with torch.device("meta"):
            network: Any = timm.create_model(model, mlp_ratio=ratio)
        costs.append(network_cost(network, network.default_cfg["input_size"]))
    # They grow with the ratio, and with it alone.
    ratio = 4 + 4 * costs[0].convolution.multiply_adds / (costs[1].total.multiply_adds - costs[0].total.multiply_adds)
    return round(16 * ratio) / 16


def resnet_operators(network: nn.Module) -> dict[str, ACmix]:
    """The layers of an ACmix-ResNet, by name, in their order."""
    return {name: module for name, module in network.named_modules() if isinstance(module, ACmix)}


def convolution_like(operator: ACmix) -> nn.Conv2d:
    """A 3x3 convolution in the place of an operator, initialised as timm's ResNet does."""
    convolution = nn.Conv2d(
        operator.in_channels,
        operator.out_channels,
        3,
        stride=operator.stride,
        padding=operator.dilation,
        dilation=operator.dilation,
        bias=False,
        device=operator.qkv.weight.device,
    )
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution
