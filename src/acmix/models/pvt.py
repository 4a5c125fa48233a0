"""ACmix-PVT: Pyramid Vision Transformer (Wang et al., ICCV 2021, arXiv 2102.12122) with a convolution path.

No code of the paper's ACmix-PVT (Pan et al., CVPR 2022, arXiv 2111.14556) is public: this definition is ours. Attention
reduces its keys and values as PVT does; the convolution path works at full resolution on queries and on the reduced
keys and values, each of which stands for the cells that it was made of. The class token has attention alone.
"""

from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import calculate_drop_path_rates, to_2tuple, trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from acmix.models.patches import Pair
from acmix.models.pyramid import PyramidStage
from acmix.models.stages import StagedNetwork

__all__ = ["PyramidTransformer"]


class PyramidTransformer(StagedNetwork):
    """ACmix-PVT, with the surface of timm's networks, for images of any size.

    Args:
        img_size: That positions are learned for; they are interpolated for others.
        in_chans: Channels of the image.
        num_classes: Size of the output, or 0 for pooled features.
        global_pool: "token", "avg" over cells, or "" for all tokens.
        channels: C of every stage.
        depths: Blocks of every stage.
        num_heads: N of every stage.
        mlp_ratios: Width of the hidden layers of every stage, in C.
        ratios: Of the reduction of keys and values of every stage.
        qkv_bias: Whether projections have one.
        drop_rate: Share of features dropped before the classifier.
        pos_drop_rate: Share dropped behind positions.
        proj_drop_rate: Share dropped behind projections.
        attn_drop_rate: Share of attention weights dropped.
        drop_path_rate: Share of residual branches dropped, rising with depth to this.
        kernel_conv: Convolution kernel k_c, odd.
        backend: Of the convolution path, "auto" or a name from `acmix.ops.backends()`.
        device: Where the parameters are made.
        dtype: Floating dtype of the parameters.

    Shape:
        `(B, in_chans, H, W)` to `(B, num_classes)`.

    Raises:
        ValueError: If an argument breaks its rule.
    """

    poolings = ("token", "avg", "")

    def __init__(
        self,
        *,
        img_size: int | Pair = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        channels: tuple[int, ...] = (64, 128, 320, 512),
        depths: tuple[int, ...] = (2, 2, 2, 2),
        num_heads: tuple[int, ...] = (1, 2, 5, 8),
        mlp_ratios: tuple[float, ...] = (8, 8, 4, 4),
        ratios: tuple[int, ...] = (8, 4, 2, 1),
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
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
        dropped: Any = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
        size: Any = to_2tuple(img_size)
        stages: list[PyramidStage] = []
        inputs = in_chans
        for index, width in enumerate(channels):
            stage = PyramidStage(
                inputs,
                width,
                img_size=size,
                patch=4 if index == 0 else 2,
                tokens=int(index == len(channels) - 1),
                drop_paths=dropped[index],
                pos_drop=pos_drop_rate,
                heads=num_heads[index],
                ratio=ratios[index],
                mlp_ratio=mlp_ratios[index],
                qkv_bias=qkv_bias,
                proj_drop=proj_drop_rate,
                attn_drop=attn_drop_rate,
                kernel_conv=kernel_conv,
                backend=backend,
                made=made,
            )
            stages.append(stage)
            inputs, size = width, stage.size
        self.stages = nn.ModuleList(stages)
        self.feature_info = [
            {"num_chs": width, "reduction": 4 * 2**index, "module": f"stages.{index}"}
            for index, width in enumerate(channels)
        ]
        self.norm: nn.Module = nn.LayerNorm(self.num_features, eps=1e-6, **made)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(self.num_features, num_classes, **made) if num_classes else nn.Identity()
        self.init_weights()

    @torch.jit.ignore
    def init_weights(self) -> None:
        """Initialise linear maps and positions as PVT does; shifts and rates stay."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, PyramidStage):
                module.init_weights()

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Parameters that are not decayed: positions, token, rates."""
        kinds = ("pos_embed", "cls_token", "rate_attention", "rate_convolution")
        return {name for name, _ in self.named_parameters() if name.endswith(kinds)}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers of the network, for layer-wise learning rates."""
        return {"stem": r"^stages\.0\.(?:patch_embed|pos_embed)", "blocks": self.stage_groups(coarse)}

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The maps behind stages, without the token, and the features, as timm's networks have it.

        Args:
            x: Images.
            indices: Of stages, or how many of the last.
            norm: Norm the last map, too.
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
        tokens = x
        for index, stage in enumerate(self.stages):
            if stop_early and index > last:
                break
            tokens, size = stage(x)
            if index == len(self.stages) - 1:
                normed = self.norm(tokens)
                seen = normed if norm else tokens
                tokens = normed
            else:
                seen = tokens
            x = seen[:, -size[0] * size[1] :].transpose(1, 2).unflatten(2, size)
            if index in taken:
                maps.append(x)
        return maps if intermediates_only else (tokens, maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Leave out what no chosen stage needs."""
        taken, last = feature_take_indices(len(self.stages), indices)
        shortened = last < len(self.stages) - 1
        del self.stages[last + 1 :]
        if prune_norm or shortened:
            self.norm = nn.Identity().train(self.training)
        if shortened:
            self.num_features = self.head_hidden_size = int(self.feature_info[last]["num_chs"])
        if prune_head or shortened:
            self.reset_classifier(0, "")
        return taken

    def forward_features(self, x: Tensor) -> Tensor:
        """Normed tokens of the last stage, the class token first, `(B, 1 + H W, C)`."""
        tokens = x
        for index, stage in enumerate(self.stages):
            tokens, size = stage(x)
            if index < len(self.stages) - 1:
                x = tokens.transpose(1, 2).unflatten(2, size)
        return self.norm(tokens)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pooled features to logits, or the pooled features."""
        if self.global_pool == "token":
            x = x[:, 0]
        elif self.global_pool == "avg":
            x = x[:, 1:].mean(1)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)


def _create(variant: str, pretrained: bool, settings: dict[str, Any]) -> PyramidTransformer:
    out_indices = settings.pop("out_indices", (0, 1, 2, 3))
    features = {"out_indices": out_indices, "feature_cls": "getter"}
    return build_model_with_cfg(PyramidTransformer, variant, pretrained, feature_cfg=features, **settings)


def _cfg(**kwargs: Any) -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stages.0.patch_embed.proj",
        "classifier": "head",
        "license": "apache-2.0",
        "paper_ids": "arXiv:2111.14556",
        **kwargs,
    }


default_cfgs = generate_default_cfgs({"acmix_pvt_tiny": _cfg(), "acmix_pvt_small": _cfg()})


@register_model
def acmix_pvt_tiny(pretrained: bool = False, **kwargs: Any) -> PyramidTransformer:
    """ACmix-PVT-T by our definition, 13.4 M parameters."""
    return _create("acmix_pvt_tiny", pretrained, {"depths": (2, 2, 2, 2), **kwargs})


@register_model
def acmix_pvt_small(pretrained: bool = False, **kwargs: Any) -> PyramidTransformer:
    """ACmix-PVT-S by our definition, 24.8 M parameters."""
    return _create("acmix_pvt_small", pretrained, {"depths": (3, 4, 6, 3), **kwargs})
