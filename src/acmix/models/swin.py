"""ACmix-Swin: timm's `SwinTransformer` with a convolution path beside the attention of every block.

Pan et al., On the Integration of Self-Attention and Convolution, CVPR 2022, arXiv 2111.14556, as published for Swin:
the path convolves the projections of the whole, cyclically shifted map, across its seam and without the mask of the
windows, and passes the projection of the attention by.
"""

from typing import Any, cast

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models import swin_transformer as timm_swin
from torch import Tensor, fx, nn
from torch.nn import functional

from acmix import ops
from acmix.models.patches import Pair, PatchEmbed, cropped, padded
from acmix.ops.tracing import is_transformed
from acmix.paths import ConvolutionPath, PathsApart, Route, scaled_linear

__all__ = ["SwinBlock", "SwinTransformer", "WindowACmix"]

# What timm and the published code add to the logit of a query and a key that lie on two sides of the seam.
_MASKED = -100.0


def _roll(x: Tensor, shift: Pair, sign: int) -> Tensor:
    """A map `(B, H, W, C)` moved down and to the right, or back, around its borders."""
    return torch.roll(x, [sign * cells for cells in shift], (1, 2)) if any(shift) else x


def _attend(projections: Tensor, bias: Tensor, mask: Tensor | None, window: Pair, heads: int, dropout: float) -> Tensor:
    """Attention within windows, `(B, H, W, 3 N D)` to `(B, H, W, N D)`; the windows divide H and W.

    Args:
        projections: Queries, keys and values, channel n D + d of each.
        bias: Of relative positions, `(N, A, A)`, A cells a window.
        mask: `(windows, A, A)` or None.
        window: Its height and width.
        heads: N.
        dropout: Probability of a weight to be dropped.
    """
    batch, rows, columns = projections.shape[0], projections.shape[1] // window[0], projections.shape[2] // window[1]
    maps = projections.reshape(batch, rows, window[0], columns, window[1], 3, heads, -1)
    # (B, rows, columns, N, h, w, D) each; apart, so that training keeps no more of them than it needs.
    query, key, value = maps.permute(5, 0, 1, 3, 6, 2, 4, 7).unbind()
    windows = rows * columns
    shape = (batch * windows, heads) if mask is None else (batch, windows * heads)
    added = bias[None] if mask is None else (mask[:, None] + bias).flatten(0, 1)[None]
    attended = _attend_windows(query, key, value, shape, added.to(projections.dtype), dropout)
    attended = attended.reshape(batch, rows, columns, heads, *window, -1).permute(0, 1, 4, 2, 5, 3, 6)
    return attended.flatten(5, 6).flatten(3, 4).flatten(1, 2)


def _attend_windows(query: Tensor, key: Tensor, value: Tensor, shape: Pair, added: Tensor, dropout: float) -> Tensor:
    """softmax(D^-1/2 q k^T + added) v, parts `(B, rows, columns, N, h, w, D)` joined to `(*shape, A, D)` each."""
    query, key = (part.reshape(*shape, added.shape[-1], -1) for part in (query, key))
    # On CPUs PyTorch's fused attention has no gradient of what is added, and what takes its place scales keys, too.
    if query.device.type == "cpu" and added.requires_grad and torch.is_grad_enabled():
        weights = ((query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1) + added).softmax(-1)
        weights = functional.dropout(weights, dropout)
        if torch.compiler.is_compiling() or is_transformed() or weights.dtype != value.dtype:
            return weights @ _joined(value, weights)
        return cast(Tensor, _Weighed.apply(weights, value))
    value = value.reshape(key.shape)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=added, dropout_p=dropout)


def _joined(value: Tensor, weights: Tensor) -> Tensor:
    return value.reshape(*weights.shape[:2], weights.shape[-1], -1)


class _Weighed(torch.autograd.Function):
    """weights v; what it keeps of v is the view that it is given, whose map the convolution path keeps anyway."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, value: Tensor) -> Tensor:  # type: ignore[bad-override]
        ctx.save_for_backward(weights, value)
        return weights @ _joined(value, weights)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[bad-override]
        weights, value = ctx.saved_tensors
        of_value = weights.transpose(-2, -1) @ slope
        return slope @ _joined(value, weights).transpose(-2, -1), of_value.reshape(value.shape)


def _shift_mask(height: int, width: int, window: Pair, shift: Pair, like: Tensor) -> Tensor:
    """What is added to the logits of a shifted map's windows, `(windows, A, A)`: nothing but across the seam."""

    def regions(size: int, cells: int, shifted: int) -> Tensor:
        places = torch.arange(size, device=like.device)
        return ((places >= size - cells).long() + (places >= size - shifted).long()).reshape(size // cells, cells)

    rows, columns = (regions(*axis) for axis in zip((height, width), window, shift, strict=True))
    region = 3 * rows[:, None, :, None] + columns[None, :, None, :]
    region = region.flatten(2).flatten(0, 1)
    apart = region[:, None, :] != region[:, :, None]
    return torch.zeros(apart.shape, dtype=like.dtype, device=like.device).masked_fill(apart, _MASKED)


# Nodes of their own where torch.fx traces: what they do depends on the input.
fx.wrap("padded")
fx.wrap("_attend")
fx.wrap("_shift_mask")


class WindowACmix(timm_swin.WindowAttention, PathsApart):
    r"""timm's window attention with a convolution path on the same projections.

    .. math:: out = \alpha \, proj(att(q, k, v)) + \beta \, conv(q, k, v)

    att is attention within windows, with a bias of relative positions, channel n D + d; conv is
    `acmix.paths.ConvolutionPath` on the whole map, channel d N + m.

    Args:
        attention: Whose projections, positions and settings it takes over.
        kernel_conv: Convolution kernel k_c, odd.
        backend: Of the convolution path, "auto" or a name from `acmix.ops.backends()`.

    Shape:
        `(B, H, W, C)` to the same.

    Raises:
        ValueError: If an argument breaks its rule.
    """

    channel_axis = 3
    shown = "Seen is its shifted window; where that reaches beyond the map, the weights sum to less than 1"
    stride = (1, 1)
    window_size: Any

    def __init__(self, attention: timm_swin.WindowAttention, *, kernel_conv: int = 3, backend: str = "auto") -> None:
        nn.Module.__init__(self)
        parts = vars(attention)
        # timm's own parts and settings as they are by now, in dictionaries of its own.
        vars(self).update({name: value.copy() if isinstance(value, dict) else value for name, value in parts.items()})
        table = attention.relative_position_bias_table
        made = {"device": table.device, "dtype": table.dtype}
        head_size = attention.proj.in_features // attention.num_heads
        if attention.proj.out_features != attention.proj.in_features:
            raise ValueError(
                f"head_dim times the heads must be the {attention.proj.out_features} channels of the map, to which the "
                f"convolution path adds, got {head_size} x {attention.num_heads}"
            )
        self.convolution = ConvolutionPath(attention.num_heads, head_size, kernel=kernel_conv, backend=backend, **made)
        self.rate_attention = nn.Parameter(torch.full((1,), 0.5, **made))
        self.rate_convolution = nn.Parameter(torch.full((1,), 0.5, **made))

    def reset_parameters(self) -> None:
        """Initialise anew: timm's own, both rates 0.5; the convolution path is reset as a module of its own."""
        super().reset_parameters()
        for rate in (self.rate_attention, self.rate_convolution):
            nn.init.constant_(rate, 0.5)

    def forward(self, x: Tensor, shift: Pair = (0, 0)) -> Tensor:  # type: ignore[bad-override]
        """Both paths of a map `(B, H, W, C)`, added.

        Args:
            x: The map.
            shift: Cells by which the map is shifted, up and to the left; attention does not cross the seam.
        """
        attended, convolved = self._rolled_paths(x, shift)
        return _roll(attended + convolved, shift, 1)

    def paths(self, x: Tensor, shift: Pair = (0, 0)) -> tuple[Tensor, Tensor]:  # type: ignore[bad-override]
        """alpha proj(att) and beta conv, `(B, H, W, C)` each; their sum is the output."""
        attended, convolved = self._rolled_paths(x, shift)
        return _roll(attended, shift, 1), _roll(convolved, shift, 1)

    def alone(self, path: Route, x: Tensor, shift: Pair = (0, 0)) -> Tensor:  # type: ignore[bad-override]
        """One path without its rate, `(B, H, W, C)`; that of attention is timm's window attention."""
        size, projections = self._project(x, shift)
        if path == "attention":
            return _roll(self._attended(projections, size, shift, None), shift, 1)
        return _roll(self._convolved(projections, size, None), shift, 1)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Its parameters by stage: projection, attention, convolution."""
        return {
            "projection": [*self.qkv.parameters()],
            "attention": [self.relative_position_bias_table, *self.proj.parameters(), self.rate_attention],
            "convolution": [*self.convolution.parameters(), self.rate_convolution],
        }

    def why_not(self, backend: str, x: Tensor, *_: Pair) -> str | None:  # type: ignore[bad-override]
        """Why a backend cannot compute the convolution path of a map, or None."""
        return ops.why_not(backend, self._maps(self.qkv(x)), window=self.kernels.shape[-1])

    def attention_of(  # type: ignore[bad-override]
        self, cell: Pair, x: Tensor, shift: Pair = (0, 0)
    ) -> Tensor:
        """What the query of a cell attends to within its window, on the cells of the map as it was before the shift.

        The weights sum to less than 1 where the window reaches cells that the map is padded with.
        """
        height, width = x.shape[1:3]
        whole = padded(_roll(x, shift, -1), self.window_size, 1)
        sizes = zip(cell, (height, width), shift, self.window_size, strict=True)
        (row, down), (column, right) = (divmod((place - by) % size, cells) for place, size, by, cells in sizes)
        top, left = (number * cells for number, cells in zip((row, column), self.window_size, strict=True))
        window = whole[:, top : top + self.window_size[0], left : left + self.window_size[1]]
        query, key, _ = self.qkv(window.flatten(1, 2)).unflatten(2, (3, self.num_heads, -1)).unbind(2)
        place = down * self.window_size[1] + right
        logits = torch.einsum("bnd,bjnd->bnj", query[:, place] * query.shape[-1] ** -0.5, key)
        logits = logits + self._get_rel_pos_bias()[:, :, place]
        mask = self._mask(whole, shift)
        if mask is not None:
            logits = logits + mask[row * (whole.shape[2] // self.window_size[1]) + column, place]
        weights = logits.softmax(-1).unflatten(-1, self.window_size)
        placed = weights.new_zeros(*weights.shape[:2], *whole.shape[1:3])
        placed[..., top : top + self.window_size[0], left : left + self.window_size[1]] = weights
        return torch.roll(placed[..., :height, :width], shift, (2, 3))

    def _maps(self, projections: Tensor) -> Tensor:
        """`(B, H, W, 3 N D)` as the convolution path reads it, `(B, 3 N, D, H, W)`."""
        return projections.unflatten(3, (3 * self.num_heads, -1)).permute(0, 3, 4, 1, 2)

    def _mask(self, x: Tensor, shift: Pair) -> Tensor | None:
        """Of the windows of a shifted, padded map `(B, H, W, ..)`, `(windows, A, A)`; None where there is no seam."""
        return _shift_mask(x.shape[1], x.shape[2], self.window_size, shift, x) if any(shift) else None

    def _project(self, x: Tensor, shift: Pair) -> tuple[Pair, Tensor]:
        """Size of the map, and projections of it as it lies shifted, padded to whole windows."""
        return (x.shape[1], x.shape[2]), self.qkv(padded(_roll(x, shift, -1), self.window_size, 1))

    def _attended(self, projections: Tensor, size: Pair, shift: Pair, rate: Tensor | None) -> Tensor:
        """alpha proj(att), shifted."""
        dropout = self.attn_drop.p if self.training else 0.0
        bias, mask = self._get_rel_pos_bias()[0], self._mask(projections, shift)
        attended = _attend(projections, bias, mask, self.window_size, self.num_heads, dropout)
        return self.proj_drop(scaled_linear(cropped(attended, size, 1), self.proj, rate))

    def _convolved(self, projections: Tensor, size: Pair, rate: Tensor | None) -> Tensor:
        """beta conv, shifted."""
        return self.convolution(self._maps(cropped(projections, size, 1)), rate).permute(0, 2, 3, 1)

    def _rolled_paths(self, x: Tensor, shift: Pair) -> tuple[Tensor, Tensor]:
        """alpha proj(att) and beta conv, shifted."""
        size, projections = self._project(x, shift)
        attended = self._attended(projections, size, shift, self.rate_attention)
        return attended, self._convolved(projections, size, self.rate_convolution)


class SwinBlock(timm_swin.SwinTransformerBlock):
    """timm's block, whose attention is `WindowACmix`; made of timm's by `mix_paths`."""

    input_resolution: Any
    window_size: Any
    shift_size: Any

    def forward(self, x: Tensor) -> Tensor:
        """A map `(B, H, W, C)` to the same."""
        x = x + self.drop_path1(self._attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))

    def _attn(self, x: Tensor) -> Tensor:
        return self.attn(x, self.shift_size)


class PatchMerging(timm_swin.PatchMerging):
    """timm's, `(B, H, W, C)` to `(B, ceil(H / 2), ceil(W / 2), C')`, in sizes that exporters know their way about."""

    def forward(self, x: Tensor) -> Tensor:
        """The four cells of every patch as channels, normed, to as many as the next stage has."""
        x = padded(x, (2, 2), 1)
        x = x.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(x))


def mix_paths(block: timm_swin.SwinTransformerBlock, *, kernel_conv: int = 3, backend: str = "auto") -> WindowACmix:
    """Put a convolution path beside the attention of timm's block, in place; its own weights and hooks stay.

    Args:
        block: timm's.
        kernel_conv: Convolution kernel k_c, odd.
        backend: Of the convolution path.

    Returns:
        The block's new `attn`.

    Raises:
        ValueError: If an argument breaks its rule; the block is then as it was.
    """
    mixed = WindowACmix(block.attn, kernel_conv=kernel_conv, backend=backend)
    block.attn = mixed
    block.__class__ = SwinBlock
    return mixed


class SwinTransformer(timm_swin.SwinTransformer):
    """timm's `SwinTransformer` with the convolution path in every block, for images of any size.

    Sizes that patches or windows do not divide are padded. As in timm, `img_size` and `set_input_size` fit the windows
    to a size, and no others are taken with `strict_img_size=True`.

    Args:
        kernel_conv: Convolution kernel k_c, odd.
        backend: Of the convolution path, "auto" or a name from `acmix.ops.backends()`.
        **kwargs: Of timm's `SwinTransformer`.

    Shape:
        `(B, in_chans, H, W)` to `(B, num_classes)`.

    Raises:
        ValueError: If an argument breaks its rule.
    """

    def __init__(self, *, kernel_conv: int = 3, backend: str = "auto", **kwargs: Any) -> None:
        settings: dict[str, Any] = {"embed_layer": PatchEmbed, "strict_img_size": False, **kwargs}
        super().__init__(**settings)
        for block in [*self.modules()]:
            if isinstance(block, timm_swin.SwinTransformerBlock):
                mix_paths(block, kernel_conv=kernel_conv, backend=backend)
            elif isinstance(block, timm_swin.PatchMerging):
                block.__class__ = PatchMerging

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Parameters that are not decayed, as published: timm's, and the rates."""
        names = (name for name, _ in self.named_parameters())
        return super().no_weight_decay() | {name for name in names if ".rate_" in name}


def _create(variant: str, pretrained: bool, settings: dict[str, Any]) -> SwinTransformer:
    out_indices = settings.pop("out_indices", tuple(range(len(settings["depths"]))))
    return build_model_with_cfg(
        SwinTransformer,
        variant,
        pretrained,
        pretrained_filter_fn=timm_swin.checkpoint_filter_fn,
        feature_cfg={"flatten_sequential": True, "out_indices": out_indices},
        **settings,
    )


def _cfg(**kwargs: Any) -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head.fc",
        "license": "apache-2.0",
        "paper_ids": "arXiv:2111.14556",
        **kwargs,
    }


default_cfgs = generate_default_cfgs(
    {
        "acmix_swin_tiny": _cfg(),
        "acmix_swin_small": _cfg(),
        "acmix_swin_nano": _cfg(num_classes=10, input_size=(3, 32, 32), pool_size=(8, 8), crop_pct=1.0),
    }
)
# timm's own drops paths unless told not to; those of the publication are in the recipes.
_TINY = {"patch_size": 4, "window_size": 7, "embed_dim": 96, "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.0}


@register_model
def acmix_swin_tiny(pretrained: bool = False, **kwargs: Any) -> SwinTransformer:
    """ACmix-Swin-T, 28.6 M parameters."""
    return _create("acmix_swin_tiny", pretrained, {**_TINY, "depths": (2, 2, 6, 2), **kwargs})


@register_model
def acmix_swin_small(pretrained: bool = False, **kwargs: Any) -> SwinTransformer:
    """ACmix-Swin-S, 50.3 M parameters."""
    return _create("acmix_swin_small", pretrained, {**_TINY, "depths": (2, 2, 18, 2), **kwargs})


@register_model
def acmix_swin_nano(pretrained: bool = False, **kwargs: Any) -> SwinTransformer:
    """A narrow ACmix-Swin of two stages for images of 32 to 64 pixels, in windows of 4 patches of 2 pixels; ours."""
    settings = {"patch_size": 2, "window_size": 4, "embed_dim": 32, "num_heads": (1, 2), "depths": (2, 2), **kwargs}
    return _create("acmix_swin_nano", pretrained, {"img_size": 32, "drop_path_rate": 0.0, **settings})
