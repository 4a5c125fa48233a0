"""Networks that give every pixel a class: decoders of segmentation-models-pytorch on networks of timm's registry.

Semantic FPN: Kirillov et al., CVPR 2019, arXiv 1901.02446. UPerNet: Xiao et al., ECCV 2018, arXiv 1807.10221.
DeepLabV3+: Chen et al., ECCV 2018, arXiv 1802.02611.
"""

from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FeaturePyramidNetwork

from acmix.errors import InputError, first_line, nearest
from acmix.models.backbones import backbone_groups, backbone_undecayed, feature_strides
from acmix.models.names import check_name, unknown_argument

SEGMENTERS = ("semantic_fpn", "upernet", "deeplabv3_plus")
OUTPUT_STRIDES = (8, 16)
# Semantic FPN's norms have 32 groups, in half the channels of its pyramid, at least 64: one number is no group.
_FPN_CHANNELS = 64
# Of networks for small images: strides of their features, the first of which is met twice.
_SMALL = (2, 2, 4, 8, 16)
# Where the names of the backbone's parameters begin.
_BODY = "network.encoder.model."


class Segmenter(nn.Module):
    """A decoder on an encoder, for images of every size: they are continued to what strides divide, and cut again.

    Args:
        network: Of segmentation-models-pytorch.
        name: timm's name of the backbone.
        stride: Of its coarsest features.

    Shape:
        `(B, 3, H, W)` to logits `(B, classes, H, W)`.
    """

    def __init__(self, network: Any, name: str, stride: int = 32) -> None:
        super().__init__()
        self.network, self.name, self.stride = network, name, stride
        network.requires_divisible_input_shape = False

    @property
    def backbone(self) -> Any:
        """The network of timm that gives features."""
        return self.network.encoder.model

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits."""
        height, width = images.shape[-2:]
        return self.network(self.continued(images))[..., :height, :width]

    def continued(self, images: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` with the right and lower edges that strides divide."""
        height, width = images.shape[-2:]
        # The last row and column go on, as zeros would be an edge.
        return functional.pad(images, (0, -width % self.stride, 0, -height % self.stride), mode="replicate")

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """As networks of timm have it, see `backbone_groups`."""
        return backbone_groups(self.name, _BODY, coarse=coarse)

    def no_weight_decay(self) -> set[str]:
        """Parameters that are not decayed, as networks of timm have it: the backbone's own."""
        return backbone_undecayed(self.name, _BODY, self)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations of the backbone again in the backward pass."""
        self.backbone.set_grad_checkpointing(enable)


def segmenter(
    name: str,
    *,
    backbone: str,
    num_classes: int,
    decoder_channels: int = 256,
    output_stride: int | None = None,
    drop_rate: float | None = None,
    **options: Any,
) -> Segmenter:
    """Create a network for semantic segmentation with fresh weights.

    Args:
        name: `semantic_fpn`, `upernet` or `deeplabv3_plus`.
        backbone: Network of timm's registry, `acmix_resnet26` for instance.
        num_classes: Size of the output.
        decoder_channels: Channels of the pyramid, or of DeepLabV3+'s decoder.
        output_stride: 8 or 16 of DeepLabV3+, where the backbone's last stages dilate; None is 16.
        drop_rate: Share of features dropped before the last layer; None is the decoder's own.
        **options: Arguments of the backbone that matter if they are not zero or empty: drop_path_rate, block_args.

    Raises:
        InputError: If there is no such network, segmentation-models-pytorch does not take the backbone, or an argument
            breaks its rule.
        ModuleNotFoundError: If segmentation-models-pytorch is missing.
    """
    if name not in SEGMENTERS:
        raise InputError(f"model {name!r} is no segmenter; {nearest(name, SEGMENTERS) or ', '.join(SEGMENTERS)} is")
    check_name(backbone)
    given = {key: value for key, value in options.items() if value}
    arguments = given | _decoder(name, decoder_channels, output_stride, drop_rate)
    import segmentation_models_pytorch as smp

    kinds = {"semantic_fpn": smp.FPN, "upernet": smp.UPerNet, "deeplabv3_plus": smp.DeepLabV3Plus}
    try:
        if name == "semantic_fpn" and feature_strides(backbone) == _SMALL:
            return Segmenter(
                _SmallFPN(backbone, num_classes, decoder_channels, drop_rate, given), backbone, max(_SMALL)
            )
        network = kinds[name](f"tu-{backbone}", encoder_weights=None, classes=num_classes, **arguments)
        return Segmenter(network, backbone)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, AssertionError, IndexError) as error:
        reason = first_line(error)
        if unknown := unknown_argument(error):
            reason = f"it takes no {unknown}" + (", its stages do not dilate" * (unknown == "output_stride"))
        raise InputError(f"backbone {backbone!r} does not serve {name}: {reason}; choose another") from error


class _Features(nn.Module):
    """The image and the features of a network for small images, at strides 2 to 16."""

    def __init__(self, backbone: str, options: dict[str, Any]) -> None:
        super().__init__()
        levels = range(1, len(_SMALL))
        self.model: Any = timm.create_model(backbone, features_only=True, out_indices=tuple(levels), **options)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images, *self.model(images)]


class _SmallDecoder(nn.Module):
    """A pyramid at strides 4 to 16, whose levels one head reads; their sum meets the features at stride 2.

    Without norms, whose groups would be of two channels on maps of a few cells.

    Args:
        channels: Of the features at strides 2 to 16.
        width: Of the pyramid.
        drop_rate: Share of channels dropped before the last layer.
    """

    def __init__(self, channels: Sequence[int], width: int, drop_rate: float) -> None:
        super().__init__()
        self.out_channels = width // 2
        self.pyramid = FeaturePyramidNetwork(list(channels[1:]), width)
        self.level = nn.Sequential(_convolution(width, width), _convolution(width, width))
        self.coarse, self.fine = (nn.Conv2d(count, self.out_channels, 1) for count in (width, channels[0]))
        self.both = _convolution(self.out_channels, self.out_channels)
        self.dropout = nn.Dropout2d(drop_rate)

    def forward(self, features: list[Tensor]) -> Tensor:
        finest, *others = features[-4:]
        pyramid = self.pyramid({str(level): feature for level, feature in enumerate(others)})
        levels = [self.level(feature) for feature in pyramid.values()]
        read = torch.stack([_resized(level, levels[0]) for level in levels]).sum(0)
        joined = _resized(self.coarse(read), finest) + self.fine(finest)
        return self.dropout(self.both(joined.relu()))


def _convolution(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU())


def _resized(features: Tensor, other: Tensor) -> Tensor:
    return functional.interpolate(features, other.shape[-2:], mode="bilinear")


class _SmallFPN(nn.Module):
    """Semantic FPN at half the size of the image, with the names of smp's, which knows no such encoders."""

    def __init__(
        self, backbone: str, num_classes: int, width: int, drop_rate: float | None, options: dict[str, Any]
    ) -> None:
        super().__init__()
        from segmentation_models_pytorch.base import SegmentationHead

        self.encoder = _Features(backbone, options)
        self.decoder = _SmallDecoder(self.encoder.model.feature_info.channels(), width, drop_rate or 0.0)
        self.segmentation_head = SegmentationHead(self.decoder.out_channels, num_classes, kernel_size=1, upsampling=2)

    def forward(self, images: Tensor) -> Tensor:
        return self.segmentation_head(self.decoder(self.encoder(images)))


def _decoder(name: str, channels: int, output_stride: int | None, drop_rate: float | None) -> dict[str, Any]:
    """The decoder's arguments, as smp calls them."""
    if name != "deeplabv3_plus" and output_stride is not None:
        raise InputError(f"output_stride is of deeplabv3_plus, {name} has none; leave it out")
    if name == "semantic_fpn":
        if channels % _FPN_CHANNELS:
            raise InputError(f"decoder_channels of semantic_fpn must be a multiple of {_FPN_CHANNELS}, got {channels}")
        return {
            "decoder_pyramid_channels": channels,
            "decoder_segmentation_channels": max(channels // 2, _FPN_CHANNELS),
        } | _given(decoder_dropout=drop_rate)
    if name == "upernet":
        if drop_rate is not None:
            raise InputError("drop_rate is of semantic_fpn and deeplabv3_plus, upernet has none; leave it out")
        return {"decoder_channels": channels}
    if output_stride not in (None, *OUTPUT_STRIDES):
        raise InputError(f"output_stride must be one of {OUTPUT_STRIDES}, got {output_stride}")
    stride = max(OUTPUT_STRIDES) if output_stride is None else output_stride
    return {"decoder_channels": channels, "encoder_output_stride": stride} | _given(decoder_aspp_dropout=drop_rate)


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
