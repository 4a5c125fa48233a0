"""ACmix-ResNet: timm's `ResNet` with the 3x3 convolution of every bottleneck replaced by the operator.

Pan et al., On the Integration of Self-Attention and Convolution, CVPR 2022, arXiv 2111.14556.
"""

from collections.abc import Sequence
from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models import resnet as timm_resnet
from torch import nn

from acmix.errors import InputError
from acmix.nn import ACmix

__all__ = ["Bottleneck", "ResNet", "SmallImageResNet"]

_SMALL_OUTPUT_STRIDES = (4, 8, 16, 32)
_STAGES = (1, 2, 3, 4)


class Bottleneck(timm_resnet.Bottleneck):
    """timm's bottleneck with `acmix.ACmix` as `conv2`, stride and first dilation included.

    Args:
        inplanes: Channels of the input.
        planes: Base width; the output has 4 `planes` channels.
        stride: Stride of the operator.
        downsample: Module of the shortcut, or None.
        dilation: Dilation of the stage.
        first_dilation: Dilation of the operator, by default `dilation`.
        cardinality: 1; the operator has no groups.
        aa_layer: None; the operator strides itself.
        heads: Attention heads N.
        kernel_att: Attention window k_a, odd.
        kernel_conv: Convolution kernel k_c, odd.
        quiet_shifts: Start the shifts small, see `acmix.ACmix`.
        backend: "auto" or a name from `acmix.ops.backends()`.
        device: Where the parameters are made.
        dtype: Floating dtype of the parameters.
        **kwargs: Further arguments of `timm.models.resnet.Bottleneck`.

    Shape:
        `(B, inplanes, H, W)` to `(B, 4 planes, ceil(H / stride), ceil(W / stride))`.

    Raises:
        ValueError: If `cardinality` is not 1, an `aa_layer` is given or an argument of the operator breaks its rule.
    """

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        *,
        dilation: int = 1,
        first_dilation: int | None = None,
        cardinality: int = 1,
        aa_layer: type[nn.Module] | None = None,
        heads: int = 4,
        kernel_att: int = 7,
        kernel_conv: int = 3,
        quiet_shifts: bool = False,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        if cardinality != 1:
            raise ValueError(f"cardinality must be 1, ACmix has no groups, got {cardinality}; change base_width")
        if aa_layer is not None:
            raise ValueError(f"aa_layer must be None, ACmix strides by itself, got {aa_layer!r}; leave it out")
        super().__init__(
            inplanes,
            planes,
            stride,
            downsample,
            dilation=dilation,
            first_dilation=first_dilation,
            device=device,
            dtype=dtype,
            **kwargs,
        )
        operator = ACmix(
            self.conv1.out_channels,
            self.conv3.in_channels,
            heads=heads,
            kernel_att=kernel_att,
            kernel_conv=kernel_conv,
            quiet_shifts=quiet_shifts,
            stride=stride,
            dilation=first_dilation or dilation,
            backend=backend,
            device=device,
            dtype=dtype,
        )
        self.add_module("conv2", operator)


class _Convolutional(timm_resnet.Bottleneck):
    """timm's bottleneck among those with the operator, whose arguments are of no meaning to it."""

    def __init__(
        self,
        *args: Any,
        heads: int = 4,
        kernel_att: int = 7,
        kernel_conv: int = 3,
        quiet_shifts: bool = False,
        backend: str = "auto",
        **kwargs: Any,
    ) -> None:
        del heads, kernel_att, kernel_conv, quiet_shifts, backend
        super().__init__(*args, **kwargs)


class ResNet(timm_resnet.ResNet):
    """timm's `ResNet`, initialised as published: query, key and value projections each as a convolution of its own."""

    def init_weights(self, zero_init_last: bool = True) -> None:
        """Initialise as timm's `ResNet` does, with the fan-out of one projection instead of all three.

        Args:
            zero_init_last: Let every residual branch start at zero.
        """
        super().init_weights(zero_init_last)
        for module in self.modules():
            if isinstance(module, ACmix):
                for weight in module.qkv.weight.detach().chunk(3):
                    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")


class SmallImageResNet(ResNet):
    """`ResNet` without its stem pooling: half the usual reduction, so 2, 2, 4, 8, 16 instead of 2, 4, ..., 32.

    Args:
        output_stride: Largest reduction, 4, 8, 16 or 32; the network itself ends at 16.
        **kwargs: Further arguments of timm's `ResNet`.

    Shape:
        `(B, in_chans, H, W)` to `(B, num_classes)`.

    Raises:
        ValueError: If `output_stride` is none of those.
    """

    def __init__(self, *, output_stride: int = 32, **kwargs: Any) -> None:
        if output_stride not in _SMALL_OUTPUT_STRIDES:
            raise ValueError(f"output_stride must be one of {_SMALL_OUTPUT_STRIDES}, got {output_stride}")
        # timm counts the pooling that is left out: its strides are twice the real ones.
        super().__init__(output_stride=min(2 * output_stride, 32), **kwargs)
        self.add_module("maxpool", nn.Identity())
        for stage in self.feature_info[1:]:
            stage["reduction"] //= 2


def _create(
    variant: str,
    pretrained: bool,
    settings: dict[str, Any],
    model_class: type[ResNet] = ResNet,
) -> ResNet:
    """Make a network; `acmix_stages` are those of 1 to 4 with the operator, 3x3 convolutions stand in the others."""
    stages = settings.pop("acmix_stages", None)
    # A caller may ask for timm's own bottleneck: the same network with 3x3 convolutions.
    settings = {"block": Bottleneck if stages is None else _blocks(stages), **settings}
    return build_model_with_cfg(model_class, variant, pretrained, **settings)


def _blocks(stages: Sequence[int]) -> tuple[type[timm_resnet.Bottleneck], ...]:
    if isinstance(stages, str) or not isinstance(stages, Sequence) or not all(each in _STAGES for each in stages):
        raise InputError(f"acmix_stages must be a list of stages, 1 to {_STAGES[-1]}, got {stages!r}")
    return tuple(Bottleneck if stage in stages else _Convolutional for stage in _STAGES)


def _cfg(**kwargs: Any) -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "conv1",
        "classifier": "fc",
        "license": "apache-2.0",
        "paper_ids": "arXiv:2111.14556",
        **kwargs,
    }


default_cfgs = generate_default_cfgs(
    {
        "acmix_resnet26": _cfg(),
        "acmix_resnet38": _cfg(),
        "acmix_resnet50": _cfg(),
        "acmix_resnet14_small": _cfg(
            num_classes=10, input_size=(3, 32, 32), pool_size=(2, 2), crop_pct=1.0, first_conv="conv1.0"
        ),
    }
)


@register_model
def acmix_resnet26(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ACmix-ResNet-26, 10.5 M parameters."""
    return _create("acmix_resnet26", pretrained, {"layers": (1, 2, 4, 1), **kwargs})


@register_model
def acmix_resnet38(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ACmix-ResNet-38, 14.4 M parameters."""
    return _create("acmix_resnet38", pretrained, {"layers": (2, 3, 5, 2), **kwargs})


@register_model
def acmix_resnet50(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ACmix-ResNet-50, 18.3 M parameters."""
    return _create("acmix_resnet50", pretrained, {"layers": (3, 4, 6, 3), **kwargs})


@register_model
def acmix_resnet14_small(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """A narrow ACmix-ResNet-14 for images of 32 to 64 pixels: stem of 3x3 convolutions, no pooling."""
    settings = {
        "layers": (1, 1, 1, 1),
        "channels": (16, 32, 64, 128),
        "stem_type": "deep",
        "stem_width": 16,
        **kwargs,
    }
    return _create("acmix_resnet14_small", pretrained, settings, SmallImageResNet)
