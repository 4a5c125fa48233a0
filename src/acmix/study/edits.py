"""What is changed in an ACmix network, in place, to make another one of a study out of it."""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from acmix.paths import Route, TwoPaths, operators_of
from acmix.study.networks import convolution_like, resnet_operators
from acmix.surgery.warm_start import warm_start

# How much faster than other parameters rates learn, where they learn faster.
_FASTER = 10.0


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


def keep_path(network: nn.Module, *, path: Route) -> None:
    """Leave one path of every operator."""
    for module in [*network.modules()]:
        for name, operator in [*module.named_children()]:
            if isinstance(operator, TwoPaths):
                module.add_module(name, OnePath(operator, path))


def fix_rates(network: nn.Module) -> None:
    """Leave both rates as they are."""
    for operator in operators_of(network).values():
        operator.rate_attention.requires_grad_(False)
        operator.rate_convolution.requires_grad_(False)


def randomise_kernels(network: nn.Module) -> None:
    """What the published ResNet's constructor makes of the shifts, see DESIGN.md: Kaiming's normal distribution."""
    for operator in operators_of(network).values():
        nn.init.kaiming_normal_(operator.kernels, mode="fan_out", nonlinearity="relu")


def drop_positions(network: nn.Module) -> None:
    """Let positions be zero for ever."""
    for operator in operators_of(network).values():
        nn.init.zeros_(operator.position_weight.requires_grad_(False))  # type: ignore[missing-attribute]


def start_as_convolutions(network: nn.Module, *, rate_attention: float) -> None:
    """Let every operator start as a freshly initialised 3x3 convolution, attention added with a rate."""
    for operator in resnet_operators(network).values():
        warm_start(operator, convolution_like(operator).weight, None)
        nn.init.constant_(operator.rate_attention, rate_attention)


def uneven_shifts(network: nn.Module) -> None:
    """Break what shifts have alike: all N outputs of a group start with one kernel.

    Half of the square of the norm stays with the shift, the other half is normal noise; the norm is that of the shifts.
    """
    for operator in operators_of(network).values():
        kernels = operator.kernels
        with torch.no_grad():
            noise = torch.randn_like(kernels)
            kernels.copy_((kernels + noise * (kernels.norm() / noise.norm())) / 2**0.5)


def hasten_rates(network: nn.Module) -> None:
    """Let rates learn ten times as fast: AdamW's steps are as long as the learning rate, whatever the gradient."""
    for operator in operators_of(network).values():
        for name in ("rate_attention", "rate_convolution"):
            parametrize.register_parametrization(operator, name, _Scaled())


class _Scaled(nn.Module):
    """A number as a multiple of what is learned."""

    def forward(self, learned: Tensor) -> Tensor:
        return _FASTER * learned

    def right_inverse(self, number: Tensor) -> Tensor:
        return number / _FASTER


def spare_projections(network: nn.Module) -> None:
    """Take weight decay off the projections of queries, keys and values."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    # By what a family calls them.
    spared = {names[id(each)] for operator in operators_of(network).values() for each in operator.parts()["projection"]}
    known = getattr(network, "no_weight_decay", set)
    network.no_weight_decay = functools.partial(set.union, spared, known())  # type: ignore[bad-assignment]
