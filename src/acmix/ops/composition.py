"""Weights of the convolution path as backends compute with them. A leaf."""

import torch
from torch import Tensor

from acmix.ops.geometry import composes_kernels


def compose(
    projections: Tensor, fc_weight: Tensor | None, dep_weight: Tensor, rate: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The kernel of the grouped convolution with its rate in it, and the weights that mix maps before it.

    Args:
        projections: Shape `(B, 3 N, D, H, W)`; weights are returned in its dtype, or in float32 where that is wider.
        fc_weight: Shape `(P, 3 N)`, or None where dep_weight is composed already.
        dep_weight: Shape `(D * N, P, k, k)`.
        rate: beta, one element, or None for 1.

    Returns:
        Kernel `(D, N, 3 N, k, k)` and None where one composed convolution is cheaper (DESIGN.md, identity E3), else
        kernel `(D, N, P, k, k)` and `(P, 3 N)`; contiguous.
    """
    maps, head_size = projections.shape[1:3]
    heads, positions, size = maps // 3, dep_weight.shape[1], dep_weight.shape[-1]
    dep = widen_to(projections, dep_weight)
    if rate is not None:
        dep = dep * widen_to(projections, rate)
    if fc_weight is None:
        return dep.reshape(head_size, heads, maps, size, size).contiguous(), None
    fc = widen_to(projections, fc_weight)
    if not composes_kernels(heads, positions, size):
        return dep.reshape(head_size, heads, positions, size, size).contiguous(), fc.contiguous()
    # (3 N, P) @ (C, P, k k): the kernel of every output channel composed.
    composed = fc.t() @ dep.flatten(2)
    return composed.reshape(head_size, heads, maps, size, size), None


def widen_to(projections: Tensor, parameter: Tensor) -> Tensor:
    """A parameter in the dtype that kernels accumulate in: that of the projections, or float32 where wider."""
    wide = torch.float64 if projections.dtype == torch.float64 else torch.float32
    return parameter if parameter.dtype == wide else parameter.to(wide)
