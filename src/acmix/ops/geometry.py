"""Shapes, reflection and positions: what every backend must agree on."""

import torch
from torch import Tensor

from acmix.ops.tracing import at_least_one


def output_size(size: int, stride: int) -> int:
    """Number of queries along an axis of `size` cells: ceil(size / stride), as for a "same" convolution."""
    # As convolutions write it, so that tools find both paths of one size.
    return (size - 1) // stride + 1


def window_offsets(window: int, dilation: int, device: torch.device | None = None) -> Tensor:
    """Offsets of the window cells from their query along one axis, dilation * [-r, ..., r], shape `(window,)`."""
    radius = window // 2
    return dilation * torch.arange(-radius, radius + 1, device=device)


def composes_kernels(heads: int, positions: int, kernel_size: int) -> bool:
    """Whether fc and the grouped convolution are cheaper as one composed convolution (DESIGN.md, identity E3).

    Multiply-adds a cell and group: 3 N N k^2 composed, 3 N P + P N k^2 in two steps.
    """
    return 3 * heads * kernel_size**2 <= positions * (3 + kernel_size**2)


def reflect(position: Tensor, size: int | Tensor) -> Tensor:
    """Mirror integer positions into [0, size) without repeating the edge cell, as often as needed.

    The reflected axis has period 2 (size - 1); an axis of one cell maps everything to 0.
    """
    half_period = at_least_one(size - 1)
    # The mirror at the first cell comes first: ExecuTorch's remainder of negative integers is negative.
    triangle = half_period - (position.abs().remainder(2 * half_period) - half_period).abs()
    return triangle.clamp(max=size - 1)


def position_map(position_weight: Tensor, height: int, width: int) -> Tensor:
    """Position embedding W_p loc without its bias (which cancels in the softmax), shape `(D, H, W)`.

    loc(y, x) = (linspace(-1, 1, W)[x], linspace(-1, 1, H)[y]). Half precision is computed and returned in float32.

    Args:
        position_weight: W_p, shape `(D, 2)`; column 0 weighs x, column 1 weighs y.
        height: H, in cells.
        width: W, in cells.
    """
    dtype = torch.promote_types(position_weight.dtype, torch.float32)
    weight = position_weight.to(dtype)

    across, down = (location(size, dtype, weight.device) for size in (width, height))
    return weight[:, 0, None, None] * across + weight[:, 1, None, None] * down[:, None]


def location(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """linspace(-1, 1, size); one cell lies at -1."""
    # torch.linspace would fix the size of an exported graph; OpenVINO and CoreML know no maximum of symbols.
    cells = torch.arange(size, dtype=dtype, device=device)
    return 2 * cells / cells[-1:].clamp(min=1) - 1
