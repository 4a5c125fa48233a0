"""The ACmix layers of a network, their rates, and the maps that reach them."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from acmix.errors import InputError
from acmix.paths import TwoPaths, operators_of
from acmix.surgery import FusedACmix


@dataclass(frozen=True)
class Rates:
    """The two learned rates of one layer: of its attention path (alpha) and its convolution path (beta)."""

    layer: str
    attention: float
    convolution: float

    @property
    def log_ratio(self) -> float:
        """log |alpha / beta|, as the paper draws it over depth; infinite or NaN where a rate is 0."""
        alpha, beta = torch.tensor([self.attention, self.convolution], dtype=torch.float64).abs().log().tolist()
        return alpha - beta


def operators(network: nn.Module) -> dict[str, TwoPaths]:
    """The ACmix layers of a network by name, in the order of the network.

    Raises:
        InputError: If it has none, or is fused.
    """
    layers = _layers(network)
    if not layers:
        raise InputError(
            f"the network {type(network).__name__} has no ACmix layer to look into; give one with ACmix layers, "
            "acmix_resnet26 for instance"
        )
    return layers


def rates(network: nn.Module) -> list[Rates]:
    """The learned rates of every ACmix layer, in the order of the network.

    Raises:
        InputError: If the network is fused.
    """
    return [
        Rates(name, layer.rate_attention.item(), layer.rate_convolution.item())
        for name, layer in _layers(network).items()
    ]


def layer_inputs(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The input map of every ACmix layer for a batch of images, by layer name.

    Args:
        network: A network with ACmix layers; it is run once, without gradients, in the mode it is in.
        images: Shape `(B, C, H, W)`.

    Raises:
        InputError: If the network is fused.
    """
    return {name: arguments[0] for name, arguments in layer_arguments(network, images).items()}


def layer_arguments(network: nn.Module, images: Tensor) -> dict[str, tuple[Any, ...]]:
    """All that every ACmix layer is called with, as `layer_inputs`: a Swin's gets the shift, a PVT's the map's size."""
    inputs: dict[str, tuple[Any, ...]] = {}
    names: dict[nn.Module, str] = {layer: name for name, layer in _layers(network).items()}

    def keep(layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        maps, *others = inspect.signature(layer.forward).bind(*arguments, **named).args
        inputs[names[layer]] = (maps.detach(), *others)

    hooks = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in names]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return inputs


def _layers(network: nn.Module) -> dict[str, TwoPaths]:
    if any(isinstance(module, FusedACmix) for module in network.modules()):
        raise InputError(
            f"the network {type(network).__name__} is fused: its rates and kernels are no longer apart from other "
            "weights; explain the network that acmix.fuse was given"
        )
    return operators_of(network)
