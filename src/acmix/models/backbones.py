"""Networks of timm's registry as backbones of torchvision's detectors and segmenters.

Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017, arXiv 1612.03144.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, cast, get_args

import timm
import torch
from timm.layers import Format
from timm.models import group_parameters
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    FeaturePyramidNetwork,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from acmix.errors import InputError, first_line
from acmix.models.names import check_name, unknown_argument
from acmix.ops.validation import check_positive_integer

__all__ = ["DetectionBackbone", "SegmentationBackbone", "detection_backbone", "segmentation_backbone"]

ExtraLevels = Literal["pool", "convolutions"]
_OUTPUT_STRIDES = (8, 16, 32)


class DetectionBackbone(nn.Module):
    """Features of a network and a pyramid on them, with the names of torchvision's `BackboneWithFPN`.

    Args:
        body: Network of timm made with `features_only`, features in order of falling resolution.
        out_channels: Channels of every level.
        extra_levels: What makes the levels beyond the features; None makes none.
        name: timm's name of the network.

    Shape:
        `(B, C, H, W)` to an OrderedDict of `(B, out_channels, H_l, W_l)`, finest level first.
    """

    def __init__(self, body: nn.Module, out_channels: int, extra_levels: ExtraFPNBlock | None, name: str = "") -> None:
        super().__init__()
        self.name = name
        self.body = body
        self.fpn = FeaturePyramidNetwork(_channels(body), out_channels, extra_levels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the levels, named "0", "1", ... and then as the extra levels name theirs."""
        return self.fpn(OrderedDict((str(i), feature) for i, feature in enumerate(_features(self.body, x))))


class SegmentationBackbone(nn.Module):
    """The last feature of a network and, for an auxiliary head, the one before it.

    Args:
        body: Network of timm made with `features_only`, with one feature or two.

    Attributes:
        out_channels: Channels of "out".
        aux_channels: Channels of "aux", or None without.

    Shape:
        `(B, C, H, W)` to an OrderedDict of `(B, out_channels, H_o, W_o)` and `(B, aux_channels, H_a, W_a)`.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        channels = _channels(body)
        self.out_channels = channels[-1]
        self.aux_channels = channels[0] if len(channels) == 2 else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute "out" and, if there is one, "aux"."""
        return OrderedDict(zip(("out", "aux"), reversed(_features(self.body, x)), strict=False))


def detection_backbone(
    name: str,
    *,
    out_channels: int = 256,
    out_indices: Sequence[int] | None = None,
    extra_levels: ExtraLevels = "pool",
    extra_count: int | None = None,
    pretrained: bool = False,
    **kwargs: Any,
) -> DetectionBackbone:
    """Create the backbone of torchvision's `FasterRCNN`, `MaskRCNN` or `RetinaNet`.

    By default it has the five levels of `FasterRCNN` and `MaskRCNN`; a ResNet has those of `RetinaNet` with
    `out_indices=(2, 3, 4)`, a Swin or PVT with `(1, 2, 3)`, and `extra_levels="convolutions"`.

    Args:
        name: Network of timm's registry, `acmix_resnet50` for instance.
        out_channels: Channels of every level.
        out_indices: Features under the pyramid, increasing, as timm counts them; 0 is a ResNet's stem. None for the
            last four.
        extra_levels: "pool" adds one level, every second cell of the coarsest; "convolutions" adds two, each by a
            convolution of stride 2.
        extra_count: How many of them there are; by default all.
        pretrained: Load the network's weights.
        **kwargs: Further arguments of `timm.create_model`.

    Returns:
        A module from `(B, C, H, W)`, of any size the network takes, to an OrderedDict of levels
        `(B, out_channels, H_l, W_l)`, finest first, named "0", "1", ... and then "pool" or "p6", "p7".

    Raises:
        ValueError: If there is no such network, it lacks such features or an argument breaks its rule.
        TypeError: If `out_channels` is not an integer.
    """
    check_positive_integer("out_channels", out_channels)
    if extra_levels not in get_args(ExtraLevels):
        raise InputError(f"extra_levels must be one of {get_args(ExtraLevels)}, got {extra_levels!r}")
    count = len(feature_strides(name))
    out_indices = range(max(count - 4, 0), count) if out_indices is None else out_indices
    if not out_indices or list(out_indices) != sorted(set(range(count)).intersection(out_indices)):
        raise InputError(
            f"out_indices must increase and lie in 0 to {count - 1}, the features of {name!r}, got {out_indices}"
        )
    own = {"pretrained": pretrained, "features_only": True, "out_indices": tuple(out_indices)}
    try:
        body = timm.create_model(name, **own, **kwargs)
    except TypeError as error:
        if (unknown := unknown_argument(error)) is None:
            raise
        raise InputError(f"{name!r} takes no {unknown}; leave it out, or choose another network") from error
    return DetectionBackbone(body, out_channels, _extra(extra_levels, extra_count, out_channels), name)


def feature_strides(name: str) -> tuple[int, ...]:
    """Pixels between cells of each feature of a network, as timm counts features.

    Raises:
        InputError: If there is no such network, or it gives no features.
    """
    return tuple(_without_storage(name).feature_info.reduction())


def backbone_groups(name: str, prefix: str, *, coarse: bool) -> Callable[[str], int]:
    """Groups of parameters of a network built on another's features, as `group_matcher` of timm's networks has them.

    Args:
        name: timm's name of the network that gives features.
        prefix: Of the names of its parameters.
        coarse: Groups are stages, not blocks.

    Returns:
        The group of a parameter by its name: the backbone's own; what lies behind it is of the last, as a head.
    """
    whole = _whole(name)
    own: dict[str, int] = cast("Any", group_parameters)(whole, whole.group_matcher(coarse=coarse), reverse=True)
    groups: dict[str, int] = {}
    for parameter, group in own.items():
        for part in _lineage(parameter):
            groups.setdefault(_plain(part), group)
    last = max(own.values())

    def group_of(parameter: str) -> int:
        within = parameter.removeprefix(prefix)
        if within == parameter:
            return last
        # Where other operators stand in the place of the network's own, the part that they stand in has a group.
        return next(groups[part] for part in map(_plain, _lineage(within)) if part in groups)

    return group_of


def backbone_undecayed(name: str, prefix: str, network: nn.Module) -> set[str]:
    """What of a network built on another's features is not decayed, as `no_weight_decay` of timm's networks has it.

    Args:
        name: timm's name of the network that gives features.
        prefix: Of the names of its parameters.
        network: The whole.

    Returns:
        Names of those parameters that the other one does not decay by itself: positions and the like.
    """
    wanted = {_plain(parameter) for parameter in getattr(_whole(name), "no_weight_decay", set)()}
    names = (parameter for parameter, _ in network.named_parameters())
    return {each for each in names if each.startswith(prefix) and _plain(each.removeprefix(prefix)) in wanted}


def _whole(name: str) -> Any:
    """A network of timm's registry, on the meta device."""
    with torch.device("meta"):
        return timm.create_model(name)


def _plain(parameter: str) -> str:
    """A name within a network, the same within its features, where timm has underscores for some dots."""
    return parameter.removeprefix("model.").replace(".", "_")


def _lineage(parameter: str) -> Iterator[str]:
    """A parameter's name, and those of the parts that it lies in, the innermost first."""
    while parameter:
        yield parameter
        parameter = parameter.rpartition(".")[0]


def _extra(kind: ExtraLevels, count: int | None, channels: int) -> ExtraFPNBlock | None:
    """What makes the levels beyond the features; None makes none."""
    most = 1 if kind == "pool" else 2
    if count is not None and not 0 <= count <= most:
        raise InputError(f"extra_count must be 0 to {most} with extra_levels {kind!r}, got {count}")
    if count == 0:
        return None
    if kind == "pool":
        return LastLevelMaxPool()
    return _P6(channels) if count == 1 else LastLevelP6P7(channels, channels)


class _P6(ExtraFPNBlock):
    """One level, by a convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(channels, channels, 3, 2, 1)
        nn.init.kaiming_uniform_(self.p6.weight, a=1)
        nn.init.zeros_(cast("Tensor", self.p6.bias))

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        """Add the level, as `LastLevelP6P7` adds its first."""
        del x
        return [*results, self.p6(results[-1])], [*names, "p6"]


def segmentation_backbone(
    name: str,
    *,
    output_stride: int = 8,
    auxiliary: bool = False,
    pretrained: bool = False,
    **kwargs: Any,
) -> SegmentationBackbone:
    """Create the backbone of torchvision's `FCN` or `DeepLabV3`.

    Heads start from its channels: `FCN(backbone, FCNHead(backbone.out_channels, classes))`, and with `auxiliary`
    a third argument `FCNHead(backbone.aux_channels, classes)`.

    Args:
        name: Network of timm's registry, `acmix_resnet50` for instance.
        output_stride: Largest reduction: later stages dilate where they would stride. 32 leaves the network as it is.
        auxiliary: Return the feature before the last, too.
        pretrained: Load the network's weights.
        **kwargs: Further arguments of `timm.create_model`.

    Returns:
        A module from `(B, C, H, W)`, of any size the network takes, to an OrderedDict of "out"
        `(B, out_channels, ceil(H / output_stride), ceil(W / output_stride))` and, if asked for, "aux".

    Raises:
        ValueError: If there is no such network, it cannot dilate or `output_stride` is not 8, 16 or 32.
    """
    if output_stride not in _OUTPUT_STRIDES:
        raise InputError(f"output_stride must be one of {_OUTPUT_STRIDES}, got {output_stride}")
    # 32 is timm's own; networks that cannot dilate do not know the argument.
    dilation: dict[str, Any] = {} if output_stride == max(_OUTPUT_STRIDES) else {"output_stride": output_stride}
    try:
        _without_storage(name, **dilation)
    except (AssertionError, TypeError) as error:
        raise InputError(
            f"output_stride must be 32 for {name!r}, which cannot dilate, got {output_stride}; or choose a ResNet"
        ) from error
    out_indices = (-2, -1) if auxiliary else (-1,)
    body = timm.create_model(
        name, pretrained=pretrained, features_only=True, out_indices=out_indices, **dilation, **kwargs
    )
    return SegmentationBackbone(body)


def _without_storage(name: str, **settings: Any) -> Any:
    """A network's features on the meta device: knows their number before weights are fetched or made."""
    check_name(name)
    with torch.device("meta"):
        try:
            return timm.create_model(name, features_only=True, **settings)
        except RuntimeError as error:
            raise InputError(
                f"{name!r} gives no features for a pyramid: {first_line(error)}; choose a ResNet"
            ) from error


def _channels(network: Any) -> list[int]:
    return network.feature_info.channels()


def _features(network: nn.Module, x: Tensor) -> list[Tensor]:
    features = network(x)
    if getattr(network, "output_fmt", Format.NCHW) is Format.NHWC:  # Swin, for one
        return [feature.permute(0, 3, 1, 2) for feature in features]
    return features
