"""ACmix-SAN: patchwise self-attention (Zhao et al., CVPR 2020, arXiv 2004.13621) with a convolution path.

No code of the paper's ACmix-SAN (Pan et al., CVPR 2022, arXiv 2111.14556) is public: this definition is ours. Weights
of attention are made of a query and the keys of its whole window, without a softmax. Queries and keys are one map of
D = C / 16 channels each and values four: the convolution path mixes these six maps.
"""

from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from acmix import ops
from acmix.models.stages import StagedNetwork
from acmix.ops.geometry import reflect, window_offsets
from acmix.paths import ConvolutionPath, PathsApart, Route

__all__ = ["PatchwiseACmix", "SelfAttentionNetwork"]

# Channels of values that share a weight.
_SHARED = 8
_VALUES = 4


def _windows(maps: Tensor, kernel: int) -> Tensor:
    """The reflected window of every cell: `(B, C, H, W)` to `(B, C, k^2, H, W)`."""
    offsets = window_offsets(kernel, 1, maps.device)[:, None]
    axes = (torch.arange(size, device=maps.device) for size in maps.shape[-2:])
    # The number of cells as a tensor, since PyTorch's ONNX exporter takes no symbol for a divisor.
    rows, columns = (reflect(cells + offsets, cells[-1:] + 1) for cells in axes)
    return maps[:, :, rows[:, None, :, None], columns[None, :, None, :]].flatten(2, 3)


def _maps(projections: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """What the convolution path reads, `(B, 6, D, H, W)`."""
    query, key, value = projections
    return torch.cat((query[:, None], key[:, None], value.unflatten(1, (_VALUES, -1))), 1)


def _pool(x: Tensor) -> Tensor:
    """The largest of 2 x 2 cells; of a border, of those that there are."""
    return functional.max_pool2d(x, 2, ceil_mode=True)


# A node of its own where torch.fx traces: what it does depends on the input.
fx.wrap("_windows")


class PatchwiseACmix(PathsApart):
    r"""SAN's patchwise attention with a convolution path on the same projections.

    .. math:: out_i = \alpha \sum_j w(q_i, k_{R(i)})_j \, v_j + \beta \, conv(q, k, v)

    Args:
        channels: C, divisible by 32.
        kernel: Window of the attention, k_a, odd.
        kernel_conv: Convolution kernel k_c, odd.
        backend: Of the convolution path, "auto" or a name from `acmix.ops.backends()`.
        device: Where the parameters are made.
        dtype: Floating dtype of the parameters.

    Shape:
        `(B, C, H, W)` to `(B, C / 4, H, W)`.

    Raises:
        ValueError: If an argument breaks its rule.
    """

    shown = "Weights have any sign here: shown are their sizes, as shares of the window's sum"
    stride = (1, 1)

    def __init__(
        self,
        channels: int,
        kernel: int,
        *,
        kernel_conv: int = 3,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if channels % 32:
            raise ValueError(f"channels must be divisible by 32, so that 8 of C / 4 share a weight, got {channels}")
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        size, values = channels // 16, channels // 4
        weights = values // _SHARED
        self.kernel = kernel
        self.query = nn.Conv2d(channels, size, 1, **made)
        self.key = nn.Conv2d(channels, size, 1, **made)
        self.value = nn.Conv2d(channels, values, 1, **made)
        seen = size * (kernel**2 + 1)
        self.weigh = nn.Sequential(
            nn.BatchNorm2d(seen, **made),
            nn.ReLU(),
            nn.Conv2d(seen, weights, 1, bias=False, **made),
            nn.BatchNorm2d(weights, **made),
            nn.ReLU(),
            nn.Conv2d(weights, kernel**2 * weights, 1, **made),
        )
        self.convolution = ConvolutionPath(2, size, times=2, bias=False, kernel=kernel_conv, backend=backend, **made)
        self.rate_attention = nn.Parameter(torch.full((1,), 0.5, **made))
        self.rate_convolution = nn.Parameter(torch.full((1,), 0.5, **made))

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Its parameters by stage: projection, attention, convolution."""
        projections = (self.query, self.key, self.value)
        return {
            "projection": [parameter for module in projections for parameter in module.parameters()],
            "attention": [*self.weigh.parameters(), self.rate_attention],
            "convolution": [*self.convolution.parameters(), self.rate_convolution],
        }

    def forward(self, x: Tensor) -> Tensor:
        """Both paths of a map, added."""
        projections = self._project(x)
        attended, convolved = self._attended(projections), self._convolved(projections, self.rate_convolution)
        return torch.addcmul(convolved, attended, self.rate_attention.to(attended.dtype))

    def paths(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[bad-override]
        """alpha aggregation and beta conv, `(B, C / 4, H, W)` each; their sum is the output."""
        projections = self._project(x)
        return self.rate_attention * self._attended(projections), self._convolved(projections, self.rate_convolution)

    def alone(self, path: Route, x: Tensor) -> Tensor:  # type: ignore[bad-override]
        """One path without its rate, `(B, C / 4, H, W)`."""
        projections = self._project(x)
        return self._attended(projections) if path == "attention" else self._convolved(projections, None)

    def why_not(self, backend: str, x: Tensor) -> str | None:  # type: ignore[bad-override]
        """Why a backend cannot compute the convolution path of a map, or None."""
        return ops.why_not(backend, _maps(self._project(x)), window=self.kernels.shape[-1])

    def attention_of(self, cell: tuple[int, int], x: Tensor) -> Tensor:  # type: ignore[bad-override]
        """How much the query of a cell makes of the cells of the map, `(B, G, H, W)`, G weights of its values.

        Weights have any sign and sum here: these are their sizes, as shares of the sum of all of the window; reflected
        cells are added to those they mirror.
        """
        query, key, _ = self._project(x)
        sizes = self._weights(query, key)[:, :, :, cell[0], cell[1]].abs()
        offsets = window_offsets(self.kernel, 1, x.device)
        rows, columns = (reflect(place + offsets, size) for place, size in zip(cell, x.shape[2:], strict=True))
        places = (rows[:, None] * x.shape[3] + columns).flatten()
        shares = sizes / sizes.sum(-1, keepdim=True).clamp(min=torch.finfo(sizes.dtype).tiny)
        whole = shares.new_zeros(*shares.shape[:2], x.shape[2] * x.shape[3])
        return whole.index_add(2, places, shares).unflatten(2, x.shape[2:])

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.query(x), self.key(x), self.value(x)

    def _weights(self, query: Tensor, key: Tensor) -> Tensor:
        """`(B, G, k^2, H, W)`; channel c of the values has the weights c mod G."""
        seen = torch.cat((query, _windows(key, self.kernel).flatten(1, 2)), 1)
        return self.weigh(seen).unflatten(1, (-1, self.kernel**2))

    def _attended(self, projections: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The aggregation."""
        query, key, value = projections
        windows = _windows(value, self.kernel).unflatten(1, (_SHARED, -1))
        return torch.einsum("bsgjyx,bgjyx->bsgyx", windows, self._weights(query, key)).flatten(1, 2)

    def _convolved(self, projections: tuple[Tensor, Tensor, Tensor], rate: Tensor | None) -> Tensor:
        """beta conv."""
        return self.convolution(_maps(projections), rate)


class SANBlock(nn.Module):
    """Norm, ReLU, attention, norm, ReLU, 1x1 convolution, beside the identity."""

    def __init__(self, channels: int, kernel: int, made: dict[str, Any], **operator: Any) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels, **made)
        self.attn = PatchwiseACmix(channels, kernel, **operator, **made)
        self.bn2 = nn.BatchNorm2d(channels // 4, **made)
        self.conv = nn.Conv2d(channels // 4, channels, 1, **made)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same."""
        return x + self.conv(self.bn2(self.attn(self.bn1(x).relu())).relu())


class SANStage(nn.Module):
    """Pooling, a 1x1 convolution to the stage's width, blocks, norm and ReLU."""

    def __init__(
        self, inputs: int, channels: int, depth: int, kernel: int, made: dict[str, Any], **operator: Any
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.transition = nn.Conv2d(inputs, channels, 1, **made)
        self.blocks = nn.ModuleList(SANBlock(channels, kernel, made, **operator) for _ in range(depth))
        self.bn = nn.BatchNorm2d(channels, **made)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C_in, H, W)` to `(B, C, ceil(H / 2), ceil(W / 2))`."""
        x = self.transition(_pool(x))
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.grad_checkpointing else block(x)
        return self.bn(x).relu()


class SelfAttentionNetwork(StagedNetwork):
    """ACmix-SAN, with the surface of timm's networks, for images of any size.

    Args:
        in_chans: Channels of the image.
        num_classes: Size of the output, or 0 for pooled features.
        global_pool: "avg", or "" for the last map.
        depths: Blocks of every stage.
        channels: C of every stage.
        kernels: Windows of every stage.
        drop_rate: Share of features dropped before the classifier.
        kernel_conv: Convolution kernel k_c, odd.
        backend: Of the convolution path, "auto" or a name from `acmix.ops.backends()`.
        device: Where the parameters are made.
        dtype: Floating dtype of the parameters.

    Shape:
        `(B, in_chans, H, W)` to `(B, num_classes)`.

    Raises:
        ValueError: If an argument breaks its rule.
    """

    poolings = ("avg", "")

    def __init__(
        self,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        depths: tuple[int, ...] = (2, 1, 2, 4, 1),
        channels: tuple[int, ...] = (64, 256, 512, 1024, 2048),
        kernels: tuple[int, ...] = (3, 7, 7, 7, 7),
        drop_rate: float = 0.0,
        kernel_conv: int = 3,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.check_pooling(global_pool)
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.num_classes, self.in_chans, self.global_pool = num_classes, in_chans, global_pool
        self.num_features = self.head_hidden_size = channels[-1]
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, channels[0], 1, **made), nn.BatchNorm2d(channels[0], **made), nn.ReLU()
        )
        inputs = (channels[0], *channels[:-1])
        shapes = zip(inputs, channels, depths, kernels, strict=True)
        self.stages = nn.ModuleList(
            SANStage(*shape, made, kernel_conv=kernel_conv, backend=backend) for shape in shapes
        )
        self.feature_info = [
            {"num_chs": width, "reduction": 2 ** (index + 1), "module": f"stages.{index}"}
            for index, width in enumerate(channels)
        ]
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(self.num_features, num_classes, **made) if num_classes else nn.Identity()

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers of the network, for layer-wise learning rates."""
        return {"stem": r"^stem", "blocks": self.stage_groups(coarse)}

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,  # noqa: ARG002
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The maps behind stages and the features, as timm's networks have it.

        Args:
            x: Images.
            indices: Of stages, or how many of the last.
            norm: Of no effect: every stage ends with one.
            stop_early: Compute no further than the last of them.
            output_fmt: "NCHW".
            intermediates_only: Return maps alone.

        Raises:
            ValueError: If `output_fmt` is another.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        taken, last = feature_take_indices(len(self.stages), indices)
        maps: list[Tensor] = []
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            if stop_early and index > last:
                break
            x = stage(x)
            if index in taken:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,  # noqa: ARG002
        prune_head: bool = True,
    ) -> list[int]:
        """Leave out what no chosen stage needs."""
        taken, last = feature_take_indices(len(self.stages), indices)
        shortened = last < len(self.stages) - 1
        del self.stages[last + 1 :]
        self.num_features = self.head_hidden_size = int(self.feature_info[last]["num_chs"])
        if prune_head or shortened:
            self.reset_classifier(0, "")
        return taken

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map, `(B, C, H, W)`."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pooled features to logits, or the pooled features."""
        x = self.head_drop(x.mean((2, 3)) if self.global_pool else x)
        return x if pre_logits else self.head(x)


def _create(variant: str, pretrained: bool, settings: dict[str, Any]) -> SelfAttentionNetwork:
    out_indices = settings.pop("out_indices", (0, 1, 2, 3, 4))
    features = {"out_indices": out_indices, "feature_cls": "getter"}
    return build_model_with_cfg(SelfAttentionNetwork, variant, pretrained, feature_cfg=features, **settings)


def _cfg() -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.0",
        "classifier": "head",
        "license": "apache-2.0",
        "paper_ids": "arXiv:2111.14556",
    }


default_cfgs = generate_default_cfgs({name: _cfg() for name in ("acmix_san10", "acmix_san15", "acmix_san19")})


@register_model
def acmix_san10(pretrained: bool = False, **kwargs: Any) -> SelfAttentionNetwork:
    """ACmix-SAN-10 by our definition, 12.0 M parameters."""
    return _create("acmix_san10", pretrained, {"depths": (2, 1, 2, 4, 1), **kwargs})


@register_model
def acmix_san15(pretrained: bool = False, **kwargs: Any) -> SelfAttentionNetwork:
    """ACmix-SAN-15 by our definition, 16.4 M parameters."""
    return _create("acmix_san15", pretrained, {"depths": (3, 2, 3, 5, 2), **kwargs})


@register_model
def acmix_san19(pretrained: bool = False, **kwargs: Any) -> SelfAttentionNetwork:
    """ACmix-SAN-19 by our definition, 20.8 M parameters."""
    return _create("acmix_san19", pretrained, {"depths": (3, 3, 4, 6, 3), **kwargs})
