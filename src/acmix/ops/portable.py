"""Stage II in plain PyTorch, fast on every device: halo tiles through `scaled_dot_product_attention`."""

from contextlib import nullcontext
from functools import partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.nn.attention import SDPBackend, sdpa_kernel

from acmix.ops import algebra
from acmix.ops.derivatives import pull_back
from acmix.ops.precision import widen
from acmix.ops.tiling import is_symbolic
from acmix.ops.tracing import is_transformed


def why_not(features: Tensor | None, window: int, stride: int, dilation: int) -> str | None:  # noqa: ARG001
    """Plain PyTorch takes everything."""
    return None


# Of the logits, in roundings to 1: above it weights made again from a log-sum-exp are wrong in the fourth digit.
_LARGEST_LOGIT = 2.0**-11


def _has_exact_gradient(query: Tensor, key: Tensor) -> bool:
    """Whether fused attention's gradient is right: it takes exp(logit - log-sum-exp) for weights, rounded both.

    Of logits of 1e9 that is infinite. Numbers are looked at where that takes no waiting for a device.
    """
    if type(query) is not Tensor or query.device.type != "cpu" or query.numel() == 0:
        return True
    wide = torch.promote_types(query.dtype, torch.float32)
    largest = (torch.linalg.vector_norm(tensor, float("inf"), dtype=wide).item() for tensor in (query, key))
    return prod(largest) * query.shape[-1] ** 0.5 * torch.finfo(wide).eps <= _LARGEST_LOGIT


class _DifferentiateExactly(Function):
    """The identity of `attended`, whose gradient goes through `attended`, or past it where that would not be right.

    PyTorch's fused attention has one derivative, for logits that are not huge; all others are the algebra's.
    """

    @staticmethod
    def forward(*inputs: Any, **_: Any) -> Tensor:
        ctx, attended, *arguments = inputs
        ctx.save_for_backward(*arguments)
        return attended.view_as(attended)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        query, key, value, mask = ctx.saved_tensors
        if not torch.is_grad_enabled() and _has_exact_gradient(query, key):
            return gradient, None, None, None, None
        return None, *pull_back(partial(_explicit_attention, mask), (query, key, value), gradient), None


def _explicit_attention(mask: Tensor, *maps: Tensor) -> Tensor:
    query, key, value = widen(*maps)
    return algebra.attention(query, key, value, mask).to(maps[0].dtype)


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Fused attention of tiles, with all derivatives."""
    if is_transformed():
        return _explicit_attention(mask, query, key, value)
    # PyTorch 2.11's fused kernel divides by the number of heads: of an empty batch, none here.
    empty = not is_symbolic(query.shape[1]) and query.shape[1] == 0
    with sdpa_kernel(SDPBackend.MATH) if empty else nullcontext():
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=query.shape[-1] ** -0.5)
    # A compiled graph has first derivatives only, and PyTorch says so.
    if torch.compiler.is_compiling() or not attended.requires_grad:
        return attended
    return _DifferentiateExactly.apply(attended, query, key, value, mask)


def local_attention(query: Tensor, key: Tensor, value: Tensor, window: int, stride: int, dilation: int) -> Tensor:
    """Attention of every query over its reflected window; see `acmix.ops.local_attention`."""
    return algebra.attend(query, key, value, window, stride, dilation, _attention).unflatten(1, query.shape[1:3])


def shift_conv(projections: Tensor, fc_weight: Tensor | None, dep_weight: Tensor, stride: int, dilation: int) -> Tensor:
    """The convolution path; see `acmix.ops.shift_conv`."""
    return algebra.convolve(projections, fc_weight, dep_weight, None, stride, dilation)


def mix(
    projections: Tensor,
    position_weight: Tensor,
    fc_weight: Tensor | None,
    dep_weight: Tensor,
    rate_attention: Tensor,
    rate_convolution: Tensor | None,
    window: int,
    stride: int,
    dilation: int,
) -> Tensor:
    """Both paths and their sum; see `acmix.ops.mix`."""
    return algebra.add_paths(
        projections,
        position_weight,
        fc_weight,
        dep_weight,
        rate_attention,
        rate_convolution,
        window,
        stride,
        dilation,
        _attention,
    )
