"""How the networks of a study are made: one shape, other operators in the place of the 3x3 convolutions."""

import bisect
import functools
from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
from timm.models.resnet import Bottleneck
from torch import nn

from acmix.accounting import account
from acmix.errors import InputError
from acmix.models.names import check_name
from acmix.models.resnet import ResNet
from acmix.models.swin import SwinTransformer
from acmix.nn import ACmix
from acmix.paths import operators_of

# base_width of timm's bottlenecks, 64 for those of the plain network: the range of the search.
_WIDTHS = range(8, 257)
_KINDS = {nn.Module: "ACmix network", ResNet: "ACmix-ResNet", SwinTransformer: "ACmix-Swin"}


def of_family(model: str, classes: int, *, kind: type[nn.Module] = nn.Module, **options: Any) -> Any:
    """A network with ACmix and fresh weights.

    Args:
        model: timm's name.
        classes: How many.
        kind: Of its class.
        **options: That the network has; with timm's `Bottleneck` as block an ACmix-ResNet has 3x3 convolutions.

    Raises:
        InputError: If the model has no ACmix, or is of another kind.
    """
    check_name(model)
    # Without numbers: seeds are for the network that is returned.
    with torch.device("meta"):
        plain = timm.create_model(model, num_classes=classes)
    if not operators_of(plain) or not isinstance(plain, kind):
        raise InputError(f"model must be an {_KINDS[kind]} for this network of a study, got {model!r}")
    return timm.create_model(model, num_classes=classes, **options)


resnet = functools.partial(of_family, kind=ResNet)
swin = functools.partial(of_family, kind=SwinTransformer)


def convolution(model: str, classes: int, *, base_width: int = 64, **options: Any) -> ResNet:
    """An ACmix-ResNet with its 3x3 convolutions; base_width is timm's, of the bottlenecks."""
    return resnet(model, classes, block=Bottleneck, base_width=base_width, **options)


def placed(
    model: str, classes: int, *, stages: Sequence[int] = range(4), last_block: bool = False, **options: Any
) -> ResNet:
    """An ACmix-ResNet with the operator in some of its bottlenecks, 3x3 convolutions in the others.

    Args:
        model: timm's name of an ACmix-ResNet.
        classes: How many.
        stages: Those with the operator, of 0 to 3.
        last_block: In the last bottleneck of each of them alone.
        **options: Of the network.

    Raises:
        InputError: If the model is none, or all of its bottlenecks would have the operator.
    """
    network = resnet(model, classes, **options)
    others: list[Any] = []
    for number, blocks in enumerate((network.layer1, network.layer2, network.layer3, network.layer4)):
        kept = blocks[-1:] if last_block else blocks
        others += [block for block in blocks if number not in stages or block not in kept]
    if not others:
        raise InputError(f"all bottlenecks of {model} would have ACmix, as the network acmix has; leave this one out")
    for block in others:
        block.conv2 = convolution_like(block.conv2)
    return network


def equal_convolution(model: str, classes: int, *, twin: Callable[..., nn.Module] = resnet, **options: Any) -> ResNet:
    """3x3 convolutions in bottlenecks whose width brings the parameters nearest to those of a network with ACmix."""

    def parameters(build: Callable[..., nn.Module], **shape: Any) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in build(model, classes, **shape).parameters())

    def of_width(width: int) -> int:
        return parameters(convolution, base_width=width)

    wanted = parameters(twin)
    first = bisect.bisect_left(_WIDTHS, wanted, hi=len(_WIDTHS) - 1, key=of_width)
    nearest = min(_WIDTHS[max(0, first - 1) : first + 1], key=lambda width: abs(of_width(width) - wanted))
    return convolution(model, classes, base_width=nearest, **options)


def wider_swin(model: str, classes: int, **options: Any) -> nn.Module:
    """A Swin whose hidden layers bring the multiply-adds of its attention alone to those of ACmix."""
    costs = []
    for ratio in (4, 8):
        with torch.device("meta"):
            network = swin(model, classes, mlp_ratio=ratio)
        costs.append(account(network, network.default_cfg["input_size"]).network)
    # They grow with the ratio, and with it alone.
    ratio = 4 + 4 * costs[0].convolution.multiply_adds / (costs[1].total.multiply_adds - costs[0].total.multiply_adds)
    return swin(model, classes, mlp_ratio=round(16 * ratio) / 16, **options)


def resnet_operators(network: nn.Module) -> dict[str, ACmix]:
    """The layers of an ACmix-ResNet, by name."""
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
