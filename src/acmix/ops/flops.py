"""Formulas of the compiled kernels for PyTorch's `FlopCounterMode`; importing this module registers them.

A module of its own because PyTorch's counter imports triton, which takes seconds.
"""

import importlib
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from acmix.ops import costs, dispatch
from acmix.ops.cpu.arguments import split_inference


def _attention(query: Any, window: int, stride: int) -> int:
    """Multiply-adds of both products of the attention path; shapes instead of tensors."""
    batch, heads, head_size, height, width = query
    return 2 * batch * costs.attention_product(costs.pairs(height, width, window, stride), heads * head_size)


def _convolution(projections: Any, kernel: Any, mixing: Any, stride: int) -> int:
    """Multiply-adds of the convolution path, 0 without a kernel."""
    if kernel is None:
        return 0
    batch, maps, head_size, height, width = projections
    channels, (*_, inputs, size, _) = maps // 3 * head_size, kernel
    total = costs.convolution(costs.pairs(height, width, size, stride), channels, inputs)
    if mixing is not None:
        total += costs.mixing(height * width, channels, mixing[0])
    return batch * total


def _query(projections: Any) -> Any:
    batch, maps, *sizes = projections
    return batch, maps // 3, *sizes


def _attention_flops(query: Any, key: Any, value: Any, window: int, stride: int, **_: Any) -> int:  # noqa: ARG001
    return 2 * _attention(query, window, stride)


def _attention_backward_flops(
    output_gradient: Any,  # noqa: ARG001
    query: Any,
    key: Any,  # noqa: ARG001
    value: Any,  # noqa: ARG001
    window: int,
    stride: int,
    **_: Any,
) -> int:
    # Five products instead of two.
    return 5 * _attention(query, window, stride)


def _mix_flops(
    projections: Any,
    position: Any,  # noqa: ARG001
    rate: Any,  # noqa: ARG001
    kernel: Any,
    mixing: Any,
    window: int,
    stride: int,
    **_: Any,
) -> int:
    attention = _attention(_query(projections), window, stride)
    return 2 * (attention + _convolution(projections, kernel, mixing, stride))


def _mix_backward_flops(
    output_gradient: Any,  # noqa: ARG001
    projections: Any,
    position: Any,  # noqa: ARG001
    rate: Any,  # noqa: ARG001
    kernel: Any,
    mixing: Any,
    window: int,
    stride: int,
    **_: Any,
) -> int:
    # Five products instead of two for attention, two instead of one for each convolution.
    attention = _attention(_query(projections), window, stride)
    return 5 * attention + 4 * _convolution(projections, kernel, mixing, stride)


def _convolved(fc: Any, dep: Any, composed: bool) -> tuple[Any, Any]:
    """The kernel and the mixing that the compiled kernels compute with."""
    if fc is None or not composed:
        return dep, fc
    return (dep[0], fc[1], *dep[2:]), None


def _parameters_flops(
    projections: Any, position: Any, rate: Any, fc: Any, dep: Any, _rate: Any, composed: bool, *sizes: int, **_: Any
) -> int:
    return _mix_flops(projections, position, rate, *_convolved(fc, dep, composed), *sizes)


def _parameters_backward_flops(
    output_gradient: Any,
    projections: Any,
    position: Any,
    rate: Any,
    fc: Any,
    dep: Any,
    _rate: Any,
    composed: bool,
    *sizes: int,
    **_: Any,
) -> int:
    return _mix_backward_flops(output_gradient, projections, position, rate, *_convolved(fc, dep, composed), *sizes)


def _projections(x: Any, weight: Any, heads: int) -> Any:
    batch, _, height, width = x
    return batch, 3 * heads, weight[0] // (3 * heads), height, width


def _projection(x: Any, weight: Any) -> int:
    batch, inputs, height, width = x
    return 2 * costs.projection(batch * height * width, inputs, weight[0] // 3)


def _all_stages_flops(x: Any, weight: Any, bias: Any, *arguments: Any, **_: Any) -> int:  # noqa: ARG001
    *parameters, heads = arguments
    return _projection(x, weight) + _parameters_flops(_projections(x, weight, heads), *parameters)


def _infer_flops(*arguments: Any, out_shape: Any, **_: Any) -> int:
    (x, *stages), sides = split_inference(arguments)
    batch, _, *sizes = x
    cells = (sides.head, sizes), (sides.tail, out_shape[2:]), (sides.downsample, out_shape[2:])
    layers = sum(prod(weight) * prod(of_map) for weight, of_map in cells if weight is not None)
    between = x if sides.head is None else (batch, sides.head[0], *sizes)
    return _all_stages_flops(between, *stages) + 2 * batch * layers


def _all_stages_backward_flops(
    output_gradient: Any,
    x: Any,
    weight: Any,
    bias: Any,  # noqa: ARG001
    *arguments: Any,
    **_: Any,
) -> int:
    *parameters, heads, input_wanted, weight_wanted = arguments
    # The projections again, then the gradients of their input and of their weights.
    return (1 + input_wanted + weight_wanted) * _projection(x, weight) + _parameters_backward_flops(
        output_gradient, _projections(x, weight, heads), *parameters
    )


def _channels_first(cells: Any) -> Any:
    batch, height, width, *maps = cells
    return batch, *maps, height, width


def _attend_flops(projections: Any, *arguments: Any, **_: Any) -> int:
    return 2 * _attention(_query(_channels_first(projections)), *arguments[-2:])


def _attend_backward_flops(output_gradient: Any, log_sum_exp: Any, projections: Any, *arguments: Any, **_: Any) -> int:  # noqa: ARG001
    # Five products instead of two.
    return 5 * _attention(_query(_channels_first(projections)), *arguments[-2:])


def _convolve_flops(projections: Any, kernel: Any, mixing: Any, stride: int, **_: Any) -> int:
    return 2 * _convolution(_channels_first(projections), kernel, mixing, stride)


def _convolve_backward_flops(output_gradient: Any, *arguments: Any, **_: Any) -> int:  # noqa: ARG001
    return 2 * _convolve_flops(*arguments)


if dispatch.why_not("cpu") is None:
    register_flop_formula(torch.ops.acmix.local_attention)(_attention_flops)
    register_flop_formula(torch.ops.acmix.local_attention_backward)(_attention_backward_flops)
    register_flop_formula(torch.ops.acmix.mix)(_parameters_flops)
    register_flop_formula(torch.ops.acmix.project_and_mix)(_all_stages_flops)
    register_flop_formula(torch.ops.acmix.infer)(_infer_flops)
    register_flop_formula(torch.ops.acmix.mix_backward)(_parameters_backward_flops)
    register_flop_formula(torch.ops.acmix.project_and_mix_backward)(_all_stages_backward_flops)
if dispatch.why_not("triton") is None:
    importlib.import_module("acmix.ops.triton.operators")
    register_flop_formula(torch.ops.acmix_triton.attend)(_attend_flops)
    register_flop_formula(torch.ops.acmix_triton.attend_backward)(_attend_backward_flops)
    register_flop_formula(torch.ops.acmix_triton.convolve)(_convolve_flops)
    register_flop_formula(torch.ops.acmix_triton.convolve_backward)(_convolve_backward_flops)
