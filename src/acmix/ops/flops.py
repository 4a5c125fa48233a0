"""Formulas of the compiled kernels for PyTorch's `FlopCounterMode`; importing this module registers them.

A module of its own because PyTorch's counter imports triton, which takes seconds.
"""

from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from acmix.ops import cpu
from acmix.ops.geometry import output_size


def _multiply_adds(query: Any, kernel: Any, mixing: Any, window: int, stride: int) -> int:
    """Multiply-adds of the forward pass; shapes instead of tensors."""
    batch, heads, head_size, height, width = query
    cells = batch * output_size(height, stride) * output_size(width, stride)
    total = 2 * cells * heads * head_size * window**2
    if kernel is not None:
        total += cells * heads * head_size * kernel[2] * kernel[3] * kernel[4]
    if mixing is not None:
        total += batch * height * width * head_size * mixing[0] * mixing[1]
    return total


def _forward_flops(
    query: Any,
    key: Any,  # noqa: ARG001
    value: Any,  # noqa: ARG001
    position: Any,  # noqa: ARG001
    rate: Any,  # noqa: ARG001
    kernel: Any,
    mixing: Any,
    window: int,
    stride: int,
    **_: Any,
) -> int:
    return 2 * _multiply_adds(query, kernel, mixing, window, stride)


def _backward_flops(
    output_gradient: Any,  # noqa: ARG001
    query: Any,
    key: Any,  # noqa: ARG001
    value: Any,  # noqa: ARG001
    position: Any,  # noqa: ARG001
    rate: Any,  # noqa: ARG001
    kernel: Any,
    mixing: Any,
    window: int,
    stride: int,
    **_: Any,
) -> int:
    # Attention multiplies five times instead of twice, each convolution twice instead of once.
    attention = _multiply_adds(query, None, None, window, stride)
    convolution = _multiply_adds(query, kernel, mixing, 0, stride)
    return 5 * attention + 4 * convolution


if cpu.why_not(None, 7, 1, 1) is None:
    register_flop_formula(torch.ops.acmix.stage2)(_forward_flops)
    register_flop_formula(torch.ops.acmix.stage2_backward)(_backward_flops)
