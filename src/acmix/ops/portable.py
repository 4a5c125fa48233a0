"""Stage II in plain PyTorch, fast on every device: halo tiles through `scaled_dot_product_attention`."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from math import isfinite
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import Function
from torch.nn.attention import SDPBackend, sdpa_kernel

from acmix.ops import algebra, traced
from acmix.ops.contract import Backend, Convolution, Features, Grid, Projection, Weights
from acmix.ops.derivatives import pull_back
from acmix.ops.precision import widen
from acmix.ops.tiling import is_channels_last
from acmix.ops.tracing import is_exporting, is_transformed

# Of the logits, in roundings to 1: above it weights made again from a log-sum-exp are wrong in the fourth digit.
_LARGEST_LOGIT = 2.0**-11


def _may_look(maps: Tensor) -> bool:
    """Whether numbers can be looked at, without waiting for a device; a trace has none."""
    plain = type(maps) is Tensor and not is_legacy_batchedtensor(maps) and torch._C._len_torch_dispatch_stack() == 0
    return plain and maps.device.type == "cpu" and maps.numel() > 0


class _DifferentiateExactly(Function):
    """The identity of `attended`, whose gradient goes through `attended`, or past it where that would not be right.

    PyTorch's fused attention has one derivative, for logits that are not huge; all others are the algebra's.
    """

    @staticmethod
    def forward(*inputs: Any, **_: Any) -> Tensor:
        ctx, exact, attended, *arguments = inputs
        ctx.exact = exact
        ctx.save_for_backward(*arguments)
        return attended.view_as(attended)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        query, key, value, mask = ctx.saved_tensors
        if not torch.is_grad_enabled() and ctx.exact and _is_finite(gradient):
            return None, gradient, None, None, None, None
        finite = _finite_tiles(query, key, value, gradient)
        return None, None, *pull_back(partial(_explicit_attention, mask, finite), (query, key, value), gradient), None


def _finite_tiles(*maps: Tensor) -> list[bool]:
    """Of every tile whether its numbers are finite."""
    if not all(map(_may_look, maps)):
        return [True]
    return torch.stack([tensor.isfinite().flatten(1).all(1) for tensor in maps]).all(0).tolist()


def _explicit_attention(mask: Tensor, finite: Sequence[bool], *maps: Tensor) -> Tensor:
    query, key, value = widen(*maps)
    if all(finite):
        return algebra.attention(query, key, value, mask).to(maps[0].dtype)
    each = (
        (algebra.attention if whole else algebra.attention_of_pairs)(*tile)
        for whole, *tile in zip(finite, query, key, value, mask, strict=True)
    )
    return torch.stack(list(each)).to(maps[0].dtype)


def _attention(exact: bool, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Fused attention of tiles, with all derivatives; its own gradient where that is exact."""
    if is_transformed():
        return _explicit_attention(mask, [True], query, key, value)
    # PyTorch 2.11's fused kernel divides by the number of heads: of an empty batch, none here.
    empty = query.shape[1] == 0
    with sdpa_kernel(SDPBackend.MATH) if empty else nullcontext():
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=query.shape[-1] ** -0.5)
    # A compiled graph has first derivatives only, and PyTorch says so.
    if torch.compiler.is_compiling() or not attended.requires_grad:
        return attended
    return _DifferentiateExactly.apply(exact, attended, query, key, value, mask)


def _attention_of_finite_tiles(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    return _explicit_attention(mask, _finite_tiles(query, key, value), query, key, value)


def _attention_for(*maps: Tensor, position_weight: Tensor | None = None) -> algebra.Attention:
    """How queries, keys and values attend, maps `(B, ., D, H, W)` that are given in that order, in one tensor or three.

    Fused attention spreads over a tile what is not finite. Backward it takes exp(logit - log-sum-exp) for weights,
    rounded both: of logits of 1e9 that is infinite.
    """
    if torch.compiler.is_compiling() or is_transformed() or not all(map(_may_look, maps)):
        return partial(_attention, True)
    # Positions are at most 1 on either axis.
    reach = 0.0 if position_weight is None else 2 * _largest(position_weight)
    query, key, value = map(_largest, maps) if len(maps) > 1 else (_largest(maps[0]),) * 3
    if not isfinite(query + key + value + reach):
        return _attention_of_finite_tiles
    limit = _LARGEST_LOGIT / (maps[0].shape[2] ** 0.5 * torch.finfo(_wide(maps[0])).eps)
    if query * (key + reach) > limit and len(maps) == 1:
        query, key, _ = map(_largest, maps[0].chunk(3, 1))
    return partial(_attention, query * (key + reach) <= limit)


def _largest(tensor: Tensor) -> float:
    """The largest absolute value, NaN where there is one."""
    # In the order of memory, without which looking takes ten times as long.
    last = tensor.ndim == 5 and is_channels_last(tensor)
    low, high = torch.aminmax(tensor.detach().permute(0, 3, 4, 1, 2) if last else tensor.detach())
    return max(-low.item(), high.item())


def _is_finite(tensor: Tensor) -> bool:
    """Whether every number is finite, where that can be known."""
    return not _may_look(tensor) or isfinite(tensor.sum(dtype=_wide(tensor)).item())


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


class Portable(Backend):
    """Plain PyTorch."""

    def why_not(self, features: Features | None, grid: Grid) -> str | None:  # noqa: ARG002
        """None: it takes everything."""
        return None

    def local_attention(self, query: Tensor, key: Tensor, value: Tensor, position: Tensor | None, grid: Grid) -> Tensor:
        """The attention path."""
        if is_exporting():
            return traced.local_attention(query, key, value, position, grid)
        attention = _attention_for(query, key, value, position_weight=position)
        return algebra.attend(query, key, value, position, grid, attention).unflatten(1, query.shape[1:3])

    def shift_conv(self, projections: Tensor, convolution: Convolution, grid: Grid) -> Tensor:
        """The convolution path."""
        if is_exporting():
            return traced.shift_conv(projections, convolution, grid)
        return algebra.convolve(projections, convolution, grid)

    def mix(self, projections: Tensor, weights: Weights, grid: Grid) -> Tensor:
        """Both paths and their sum."""
        if is_exporting():
            return traced.mix(projections, weights, grid)
        attention = _attention_for(projections, position_weight=weights.position)
        return algebra.add_paths(projections, weights, grid, attention)

    def project_and_mix(self, x: Tensor, projection: Projection, weights: Weights, grid: Grid) -> Tensor:
        """All three stages."""
        if is_exporting():
            return traced.project_and_mix(x, projection, weights, grid)
        return super().project_and_mix(x, projection, weights, grid)
