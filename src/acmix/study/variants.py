"""The networks of a study, by name."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from acmix.accounting import Cost, network_cost
from acmix.models.resnet import ResNet
from acmix.models.swin import SwinTransformer
from acmix.paths import Route, operators_of
from acmix.study import edits
from acmix.study.networks import (
    Shape,
    convolution,
    equal_convolution,
    last_of_stages,
    of_family,
    resnet,
    wider_swin,
    with_operators,
)
from acmix.study.results import ACMIX, CONVOLUTION, FIXED


@dataclass(frozen=True)
class Variant:
    """A network of the study.

    Attributes:
        title: In words.
        network: Makes it, with fresh weights, from what all networks of a study have alike.
        change: What is then changed in it, in place.
        unused: The path whose multiply-adds it does without.
    """

    title: str
    network: Callable[[Shape], nn.Module]
    change: Callable[[nn.Module], None] | None = None
    unused: Route | None = None

    def build(self, shape: Shape) -> nn.Module:
        """The network with fresh weights.

        Args:
            shape: Of all networks of the study.

        Raises:
            InputError: If the model has no ACmix, or not this variant.
        """
        network = self.network(shape)
        if self.change is not None:
            self.change(network)
        return network

    def cost(self, shape: Shape, input_size: tuple[int, int, int]) -> Cost:
        """Parameters and multiply-adds of one image; of one path those of a kernel that computes that path alone.

        Raises:
            InputError: If the model has no ACmix, or not this variant.
            ValueError: If it cannot take the size.
        """
        network = self.build(shape)
        counted = self.network(shape) if self.unused else network
        cost = network_cost(shape.on_images(counted), input_size)
        spared = getattr(cost, self.unused).multiply_adds if self.unused else 0
        parameters = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        return Cost(parameters, cost.total.multiply_adds - spared)


_quiet = functools.partial(resnet, block_args={"quiet_shifts": True})
_window_3 = functools.partial(resnet, block_args={"kernel_att": 3})
_attention_alone = functools.partial(edits.keep_path, path="attention")
_convolution_alone = functools.partial(edits.keep_path, path="convolution")

# The first is what every other is an alternative to; ACmix itself is the other reference of all comparisons.
_COMPARED: dict[str, Variant] = {
    CONVOLUTION: Variant("3x3 convolutions", convolution),
    "equal-convolution": Variant("3x3 convolutions, as many parameters as ACmix", equal_convolution),
    "attention": Variant("attention path alone", of_family, _attention_alone, unused="convolution"),
    "convolution-path": Variant("convolution path alone", of_family, _convolution_alone, unused="attention"),
    FIXED: Variant("ACmix, both rates fixed at 0.5", of_family, edits.fix_rates),
    ACMIX: Variant("ACmix, learned rates", of_family),
    "random-kernels": Variant("ACmix, random kernels in place of shifts", of_family, edits.randomise_kernels),
}
# What tells why one of those wins or loses.
_PROBES: dict[str, Variant] = {
    "quiet-shifts": Variant("ACmix, shifts as small as random kernels", _quiet),
    "no-positions": Variant("ACmix without positions", resnet, edits.drop_positions),
    "window-3": Variant("ACmix, window of 3", _window_3),
    "attention-window-3": Variant(
        "attention path alone, window of 3", _window_3, _attention_alone, unused="convolution"
    ),
}
# How else the operator may start, and learn.
_STARTS: dict[str, Variant] = {
    "uneven-shifts": Variant("ACmix, small shifts, each with noise of its own", _quiet, edits.uneven_shifts),
    "as-convolution": Variant(
        "ACmix, started as a 3x3 convolution",
        resnet,
        functools.partial(edits.start_as_convolutions, rate_attention=0.0),
    ),
    "as-convolution-and-attention": Variant(
        "ACmix, started as a 3x3 convolution, attention at 0.5",
        resnet,
        functools.partial(edits.start_as_convolutions, rate_attention=0.5),
    ),
    "fast-rates": Variant("ACmix, rates learn ten times as fast", of_family, edits.hasten_rates),
    "spared-projections": Variant("ACmix, projections without weight decay", of_family, edits.spare_projections),
}
_LAST = functools.partial(resnet, acmix_stages=(4,))
_PLACES: dict[str, tuple[str, Callable[[Shape], nn.Module]]] = {
    "last-stage": ("the last stage", _LAST),
    "last-two-stages": ("the last two stages", functools.partial(resnet, acmix_stages=(3, 4))),
    "first-two-stages": ("the first two stages", functools.partial(resnet, acmix_stages=(1, 2))),
    "block-a-stage": ("the last block of each stage", last_of_stages),
}


def _placements() -> dict[str, Variant]:
    """ACmix in some places, and 3x3 convolutions with as many parameters as each."""
    found = {}
    for name, (words, network) in _PLACES.items():
        twin = functools.partial(equal_convolution, twin=network)
        found[name] = Variant(f"ACmix in {words}", network)
        found[f"equal-{name}"] = Variant(f"3x3 convolutions, as many parameters as ACmix in {words}", twin)
    return found


# Where the operator stands, and convolutions that cost as much: several widths, between which times are read off.
_WHERE: dict[str, Variant] = {
    **_placements(),
    "attention-last-stage": Variant(
        "attention path alone in the last stage", _LAST, _attention_alone, unused="convolution"
    ),
    "convolution-path-last-stage": Variant(
        "convolution path alone in the last stage", _LAST, _convolution_alone, unused="attention"
    ),
    **{
        f"convolution-{width}": Variant(
            f"3x3 convolutions, bottlenecks {width} / 64 as wide", functools.partial(convolution, base_width=width)
        )
        for width in (48, 80, 96, 112)
    },
}
_OF_SWIN: dict[str, Variant] = {
    "equal-attention": Variant(
        "attention path alone, as many multiply-adds as ACmix", wider_swin, _attention_alone, unused="convolution"
    ),
}
VARIANTS = _COMPARED | _PROBES | _STARTS | _WHERE | _OF_SWIN


def usual_variants(model: str) -> list[str]:
    """Names of what is trained where nobody says what to train.

    Raises:
        InputError: If the model has no ACmix.
    """
    network = with_operators(model)
    if isinstance(network, ResNet):
        return [*_COMPARED]
    alone = [name for name, variant in _COMPARED.items() if variant.network is of_family]
    return [*alone, *(_OF_SWIN if isinstance(network, SwinTransformer) else ())]


def rates(network: nn.Module) -> list[tuple[float, float]]:
    """The rates of every ACmix of a network, attention and convolution."""
    return [
        (operator.rate_attention.item(), operator.rate_convolution.item())
        for operator in operators_of(network).values()
    ]
