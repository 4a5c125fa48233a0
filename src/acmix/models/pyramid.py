"""Parts of ACmix-PVT: attention on a reduced map with a convolution path at full resolution, blocks, stages."""

import math
from typing import Any

import torch
from timm.layers import DropPath, Mlp, trunc_normal_
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from acmix import ops
from acmix.models.patches import Pair, PatchEmbed, cropped, padded, rounded_up
from acmix.ops.tracing import is_symbolic
from acmix.paths import ConvolutionPath, PathsApart, Route, scaled_linear


def _maps(query: Tensor, reduced: Tensor, size: Pair, ratio: int, heads: int) -> Tensor:
    """Queries `(B, H W, C)`, and keys and values of fewer cells `(B, h w, 2 C)`, as `(B, 3 N, D, H, W)`."""
    height, width = size
    rows, columns = rounded_up(height, ratio), rounded_up(width, ratio)
    cells = reduced.reshape(-1, rows, 1, columns, 1, reduced.shape[2])
    cells = cells.expand(-1, -1, ratio, -1, ratio, -1).flatten(3, 4).flatten(1, 2)
    maps = torch.cat((query.reshape(-1, height, width, query.shape[2]), cropped(cells, size, 1)), 3)
    return maps.unflatten(3, (3 * heads, -1)).permute(0, 3, 4, 1, 2)


def _reduced(cells: Tensor, size: Pair, ratio: int) -> Tensor:
    """Cells `(B, H W, C)` as a map `(B, C, h ratio, w ratio)`, with zeros below and right."""
    return padded(cells.transpose(1, 2).reshape(-1, cells.shape[2], *size), (ratio, ratio), 2)


def _placed(positions: Tensor, size: Pair, old: Pair, tokens: int) -> Tensor:
    """Positions `(1, tokens + h w, C)` of a map of another size, interpolated."""
    # A graph for every size must not ask whether it is the old one.
    if not any(is_symbolic(cells) for cells in size) and tuple(size) == tuple(old):
        return positions
    maps = positions[:, tokens:].unflatten(1, old).permute(0, 3, 1, 2)
    maps = functional.interpolate(
        maps.to(torch.promote_types(maps.dtype, torch.float32)), size, mode="bilinear", antialias=True
    ).to(positions.dtype)
    return torch.cat((positions[:, :tokens], maps.flatten(2).transpose(1, 2)), 1)


# Nodes of their own where torch.fx traces: what they do depends on the input.
fx.wrap("_maps")
fx.wrap("_reduced")
fx.wrap("_placed")


class PyramidACmix(PathsApart):
    r"""PVT's attention, whose keys and values are reduced, with a convolution path on the same projections.

    .. math:: out = \alpha \, proj(att(q, k, v)) + \beta \, conv(q, k, v)

    Args:
        channels: C.
        heads: N.
        ratio: Cells of the map, along either axis, that a key is made of.
        tokens: Class tokens before the cells, which have the attention path alone.
        qkv_bias: Whether the projections have one.
        attn_drop: Share of weights dropped.
        proj_drop: Share of outputs of the attention dropped.
        kernel_conv: Convolution kernel k_c, odd.
        backend: Of the convolution path, "auto" or a name from `acmix.ops.backends()`.
        device: Where the parameters are made.
        dtype: Floating dtype of the parameters.

    Shape:
        `(B, tokens + H W, C)` to the same.

    Raises:
        ValueError: If an argument breaks its rule.
    """

    channel_axis = 2
    shown = "The weight of a reduced key lies evenly on its cells; what a class token gets is missing from the sum"
    stride = (1, 1)

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        ratio: int = 1,
        tokens: int = 0,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        kernel_conv: int = 3,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels must be divisible by heads, got channels={channels} and heads={heads}")
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.heads, self.ratio, self.tokens, self.attn_drop = heads, ratio, tokens, attn_drop
        self.q = nn.Linear(channels, channels, bias=qkv_bias, **made)
        self.kv = nn.Linear(channels, 2 * channels, bias=qkv_bias, **made)
        if ratio > 1:
            self.sr = nn.Conv2d(channels, channels, ratio, stride=ratio, **made)
            self.norm = nn.LayerNorm(channels, **made)
        self.proj = nn.Linear(channels, channels, **made)
        self.proj_drop = nn.Dropout(proj_drop)
        self.convolution = ConvolutionPath(heads, channels // heads, kernel=kernel_conv, backend=backend, **made)
        self.rate_attention = nn.Parameter(torch.full((1,), 0.5, **made))
        self.rate_convolution = nn.Parameter(torch.full((1,), 0.5, **made))

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Its parameters by stage: projection, attention, convolution."""
        reduction = [] if self.ratio == 1 else [*self.sr.parameters(), *self.norm.parameters()]
        return {
            "projection": [*self.q.parameters(), *reduction, *self.kv.parameters()],
            "attention": [*self.proj.parameters(), self.rate_attention],
            "convolution": [*self.convolution.parameters(), self.rate_convolution],
        }

    def forward(self, x: Tensor, size: Pair) -> Tensor:
        """Both paths of the cells of a map of `size`, and of the tokens before them, added."""
        attended, convolved = self.paths(x, size)
        return attended + convolved

    def paths(self, x: Tensor, size: Pair) -> tuple[Tensor, Tensor]:  # type: ignore[bad-override]
        """alpha proj(att) and beta conv, `(B, tokens + H W, C)` each; their sum is the output."""
        query, keys = self._project(x, size)
        return self._attended(query, keys, self.rate_attention), self._convolved(
            query, keys, size, self.rate_convolution
        )

    def alone(self, path: Route, x: Tensor, size: Pair) -> Tensor:  # type: ignore[bad-override]
        """One path without its rate, `(B, tokens + H W, C)`."""
        query, keys = self._project(x, size)
        return self._attended(query, keys, None) if path == "attention" else self._convolved(query, keys, size, None)

    def map_size(self, x: Tensor, size: Pair) -> Pair:  # type: ignore[bad-override]  # noqa: ARG002
        """Height and width of the map that its cells are of."""
        return size

    def why_not(self, backend: str, x: Tensor, size: Pair) -> str | None:  # type: ignore[bad-override]
        """Why a backend cannot compute the convolution path of a map, or None."""
        return ops.why_not(backend, self._cells(*self._project(x, size), size), window=self.kernels.shape[-1])

    def attention_of(self, cell: Pair, x: Tensor, size: Pair) -> Tensor:  # type: ignore[bad-override]
        """What the query of a cell attends to, the weight of a reduced key spread over the cells that it is made of.

        The weights sum to less than 1 where keys are of class tokens, too.
        """
        query, keys = self._project(x, size)
        place = self.tokens + cell[0] * size[1] + cell[1]
        query = query[:, place].unflatten(1, (self.heads, -1)) * (query.shape[2] // self.heads) ** -0.5
        key = keys.unflatten(2, (2, self.heads, -1))[:, :, 0]
        weights = torch.einsum("bnd,bjnd->bnj", query, key).softmax(-1)
        rows, columns = (torch.arange(cells, device=x.device).div(self.ratio, rounding_mode="floor") for cells in size)
        reduced = int(rows[-1]) + 1, int(columns[-1]) + 1
        weights = weights[:, :, -reduced[0] * reduced[1] :].unflatten(2, reduced)
        sharing = rows.bincount()[:, None] * columns.bincount()
        return (weights / sharing)[:, :, rows[:, None], columns]

    def _project(self, x: Tensor, size: Pair) -> tuple[Tensor, Tensor]:
        """Queries `(B, tokens + H W, C)`, and keys and values of fewer cells `(B, h w, 2 C)`."""
        query, keys = self.q(x), x
        if self.ratio > 1:
            keys = self.norm(self.sr(_reduced(x[:, self.tokens :], size, self.ratio)).flatten(2).transpose(1, 2))
        return query, self.kv(keys)

    def _attended(self, query: Tensor, keys: Tensor, rate: Tensor | None) -> Tensor:
        """alpha proj(att)."""
        key, value = keys.unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        dropout = self.attn_drop if self.training else 0.0
        queries = query.unflatten(2, (self.heads, -1)).transpose(1, 2)
        attended = functional.scaled_dot_product_attention(queries, key, value, dropout_p=dropout)
        return self.proj_drop(scaled_linear(attended.transpose(1, 2).flatten(2), self.proj, rate))

    def _cells(self, query: Tensor, keys: Tensor, size: Pair) -> Tensor:
        """What the convolution path reads, `(B, 3 N, D, H, W)`."""
        # Reduced keys have no token.
        reduced = keys if self.ratio > 1 else keys[:, self.tokens :]
        return _maps(query[:, self.tokens :], reduced, size, self.ratio, self.heads)

    def _convolved(self, query: Tensor, keys: Tensor, size: Pair, rate: Tensor | None) -> Tensor:
        """beta conv, nothing of tokens."""
        convolved = self.convolution(self._cells(query, keys, size), rate).flatten(2).transpose(1, 2)
        return functional.pad(convolved, (0, 0, self.tokens, 0))


class PyramidBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), of tokens `(B, T, C)`."""

    def __init__(
        self,
        channels: int,
        *,
        mlp_ratio: float,
        drop_path: float,
        proj_drop: float,
        made: dict[str, Any],
        **attention: Any,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6, **made)
        self.attn = PyramidACmix(channels, proj_drop=proj_drop, **attention, **made)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6, **made)
        self.mlp = Mlp(channels, int(mlp_ratio * channels), drop=proj_drop, **made)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, size: Pair) -> Tensor:
        """The block, on the cells of a map of `size` and the tokens before them."""
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PyramidStage(nn.Module):
    """Patches of a map, their positions, and blocks: `(B, C_in, H, W)` to tokens `(B, T, C)` and their map's size."""

    def __init__(
        self,
        inputs: int,
        channels: int,
        *,
        img_size: Pair,
        patch: int,
        tokens: int,
        drop_paths: list[float],
        pos_drop: float,
        made: dict[str, Any],
        **block: Any,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(
            img_size, patch, inputs, channels, nn.LayerNorm, output_fmt="NHWC", strict_img_size=False, **made
        )
        self.tokens, self.grad_checkpointing = tokens, False
        self.cls_token = nn.Parameter(torch.zeros(1, tokens, channels, **made)) if tokens else None
        grid: Any = self.patch_embed.grid_size
        self.size: Pair = grid
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens + math.prod(grid), channels, **made))
        self.pos_drop = nn.Dropout(pos_drop)
        self.blocks = nn.ModuleList(
            PyramidBlock(channels, tokens=tokens, drop_path=drop_path, made=made, **block) for drop_path in drop_paths
        )

    def init_weights(self) -> None:
        """Initialise tokens and positions."""
        trunc_normal_(self.pos_embed, std=0.02)
        if self.cls_token is not None:
            trunc_normal_(self.cls_token, std=0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, Pair]:
        """Tokens, and height and width of the map that they are of."""
        x = self.patch_embed(x)
        size = x.shape[1], x.shape[2]
        x = x.flatten(1, 2)
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), 1)
        x = self.pos_drop(x + _placed(self.pos_embed, size, self.size, self.tokens))
        for block in self.blocks:
            x = checkpoint(block, x, size, use_reentrant=False) if self.grad_checkpointing else block(x, size)
        return x, size
