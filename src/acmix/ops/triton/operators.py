"""The kernels as PyTorch operators: `acmix_triton::attend` and `acmix_triton::convolve` with their backward passes.

All maps are contiguous `(B, H, W, ...)`, so that no compiler can change their strides: projections `(B, H, W, 3 N, D)`,
outputs `(B, H', W', C)`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from acmix.ops import algebra
from acmix.ops.contract import Convolution, Grid
from acmix.ops.derivatives import Operator
from acmix.ops.triton.launch import (
    Attention,
    attend,
    attend_backward,
    convolution_weight_gradient,
    convolve_maps,
)
from acmix.ops.triton.plans import Maps, Shape

# Output = addend + offset + rate * attention; of what is None, nothing, or a rate of 1. Channel n * D + d, offsets
# `(H', W', C)`, which all images share. Also the log-sum-exp in two parts, `(B, 2, N, H', W')`.
_ATTENDED = "Tensor projections, Tensor? position, Tensor? rate"
_SIZES = "int window, int stride"
# Channel d * N + m of the output; kernel `(D, N, P, k, k)`, mixing `(P, 3 N)` or None.
_CONVOLVED = "Tensor projections, Tensor kernel, Tensor? mixing, int stride"
_library = torch.library.Library("acmix_triton", "DEF")
_library.define(f"attend({_ATTENDED}, Tensor? addend, Tensor? offset, {_SIZES}) -> (Tensor, Tensor)")
_library.define(
    f"attend_backward(Tensor output_gradient, Tensor log_sum_exp, {_ATTENDED}, {_SIZES}) -> (Tensor, Tensor, Tensor)"
)
_library.define(f"convolve({_CONVOLVED}) -> Tensor")
_library.define(f"convolve_backward(Tensor output_gradient, {_CONVOLVED}) -> (Tensor, Tensor, Tensor)")


def _shape(projections: Tensor, window: int, stride: int) -> Shape:
    batch, height, width, maps, size = projections.shape
    return Shape(batch, maps // 3, size, height, width, window, stride)


def _new_output(projections: Tensor, shape: Shape) -> Tensor:
    return projections.new_empty((shape.batch, shape.output_height, shape.output_width, shape.heads * shape.size))


def _contiguous(*tensors: Tensor | None) -> Any:
    """The tensors as kernels read them, which parts of batches that torch.vmap makes are not."""
    return (tensor if tensor is None else tensor.contiguous() for tensor in tensors)


def _attend(
    projections: Tensor,
    position: Tensor | None,
    rate: Tensor | None,
    addend: Tensor | None,
    offset: Tensor | None,
    window: int,
    stride: int,
) -> tuple[Tensor, Tensor]:
    projections, position, addend, offset = _contiguous(projections, position, addend, offset)
    shape = _shape(projections, window, stride)
    output = _new_output(projections, shape)
    return output, attend(Attention(shape, projections, position, rate), addend, offset, output)


def _fake_attend(projections: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    shape = _shape(projections, *arguments[-2:])
    sizes = shape.batch, 2, shape.heads, shape.output_height, shape.output_width
    return _new_output(projections, shape), projections.new_empty(sizes, dtype=torch.float32)


def _attend_backward(
    output_gradient: Tensor,
    log_sum_exp: Tensor,
    projections: Tensor,
    position: Tensor | None,
    rate: Tensor | None,
    window: int,
    stride: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of projections, W_p and rate; empty where there is nothing to differentiate."""
    output_gradient, log_sum_exp, projections, position = _contiguous(
        output_gradient, log_sum_exp, projections, position
    )
    given = Attention(_shape(projections, window, stride), projections, position, rate)
    return attend_backward(given, log_sum_exp, output_gradient)


def _fake_attend_backward(
    output_gradient: Tensor,  # noqa: ARG001
    log_sum_exp: Tensor,  # noqa: ARG001
    projections: Tensor,
    position: Tensor | None,
    rate: Tensor | None,
    *sizes: int,  # noqa: ARG001
) -> tuple[Tensor, ...]:
    return _new_gradient(projections), *(_gradient_like(projections, tensor) for tensor in (position, rate))


def _new_gradient(projections: Tensor) -> Tensor:
    return projections.new_empty(projections.shape)


def _gradient_like(projections: Tensor, tensor: Tensor | None) -> Tensor:
    return projections.new_empty((0,) if tensor is None else tensor.shape, dtype=torch.float32)


def _backward_of_attend(
    wanted: Sequence[bool],
    output_gradient: Tensor,
    beside: Sequence[Tensor],
    arguments: Sequence[Any],
) -> tuple[Tensor | None, ...]:
    given, sizes = arguments[:3], arguments[-2:]
    gradients: Sequence[Tensor | None] = (None, None, None)
    if any(wanted[:3]):
        found = torch.ops.acmix_triton.attend_backward(output_gradient, *beside, *given, *sizes)
        gradients = [None if tensor is None else gradient for tensor, gradient in zip(given, found, strict=True)]
    of_addend = output_gradient.view_as(output_gradient)
    return *gradients, of_addend, output_gradient.sum(0) if wanted[4] else None, None, None


def _define_attention(
    projections: Tensor,
    position: Tensor | None,
    rate: Tensor | None,
    addend: Tensor | None,
    offset: Tensor | None,
    window: int,
    stride: int,
) -> Tensor:
    """The same in differentiable operations, `(B, H', W', C)`."""
    query, key, value = projections.permute(0, 3, 4, 1, 2).chunk(3, 1)
    grid = Grid(query.shape[1], window, stride, 1)
    output = algebra.attend(query, key, value, position, grid).permute(0, 2, 3, 1)
    if rate is not None:
        output = rate * output
    for term in (addend, offset):
        output = output if term is None else output + term
    return output


def _mix_maps(projections: Tensor, mixing: Tensor) -> Tensor:
    """The maps that the grouped convolution reads, `(B, H, W, P, D)`."""
    *cells, maps, size = projections.shape
    mixed = projections.new_empty((*cells, mixing.shape[0], size))
    layouts = Maps.by_map(maps, size), Maps.by_map(mixing.shape[0], size)
    weight = mixing.t()[None, None, None].to(projections.dtype).contiguous()
    convolve_maps(projections, weight, mixed, layouts, size, 1)
    return mixed


def _convolve(projections: Tensor, kernel: Tensor, mixing: Tensor | None, stride: int) -> Tensor:
    projections = projections.contiguous()
    shape = _shape(projections, kernel.shape[-1], stride)
    output = _new_output(projections, shape)
    maps = projections if mixing is None else _mix_maps(projections, mixing)
    layouts = Maps.by_map(maps.shape[3], shape.size), Maps.by_channel(shape.heads, shape.size)
    weight = kernel.permute(0, 3, 4, 2, 1).to(projections.dtype).contiguous()
    convolve_maps(maps, weight, output, layouts, shape.size, stride)
    return output


def _fake_convolve(projections: Tensor, kernel: Tensor, mixing: Tensor | None, stride: int) -> Tensor:  # noqa: ARG001
    return _new_output(projections, _shape(projections, kernel.shape[-1], stride))


def _convolve_backward(
    output_gradient: Tensor, projections: Tensor, kernel: Tensor, mixing: Tensor | None, stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of projections, kernel and mixing, which is empty without one."""
    output_gradient, projections = _contiguous(output_gradient, projections)
    gradient, size = _new_gradient(projections), projections.shape[4]
    maps = projections if mixing is None else _mix_maps(projections, mixing)
    maps_gradient = gradient if mixing is None else torch.empty_like(maps)
    inner, outer = Maps.by_map(maps.shape[3], size), Maps.by_channel(kernel.shape[1], size)
    weight = kernel.permute(0, 3, 4, 1, 2).to(projections.dtype).contiguous()
    convolve_maps(output_gradient, weight, maps_gradient, (outer, inner), size, stride, transposed=True)
    kernel_gradient = convolution_weight_gradient(maps, output_gradient, (inner, outer), size, kernel.shape[-1], stride)
    kernel_gradient = kernel_gradient.permute(0, 4, 3, 1, 2).contiguous()
    if mixing is None:
        return gradient, kernel_gradient, _gradient_like(projections, None)
    projected = Maps.by_map(projections.shape[3], size)
    weight = mixing[None, None, None].to(projections.dtype).contiguous()
    convolve_maps(maps_gradient, weight, gradient, (inner, projected), size, 1)
    mixing_gradient = convolution_weight_gradient(projections, maps_gradient, (projected, inner), size, 1, 1)
    return gradient, kernel_gradient, mixing_gradient.sum(0)[0, 0].t().contiguous()


def _fake_convolve_backward(
    output_gradient: Tensor,  # noqa: ARG001
    projections: Tensor,
    kernel: Tensor,
    mixing: Tensor | None,
    stride: int,  # noqa: ARG001
) -> tuple[Tensor, ...]:
    return _new_gradient(projections), *(_gradient_like(projections, tensor) for tensor in (kernel, mixing))


def _backward_of_convolve(
    wanted: Sequence[bool],  # noqa: ARG001
    output_gradient: Tensor,
    beside: Sequence[Tensor],  # noqa: ARG001
    arguments: Sequence[Any],
) -> tuple[Tensor | None, ...]:
    return *torch.ops.acmix_triton.convolve_backward(output_gradient, *arguments), None


def _define_convolution(projections: Tensor, kernel: Tensor, mixing: Tensor | None, stride: int) -> Tensor:
    maps = projections.permute(0, 3, 4, 1, 2)
    grid = Grid(kernel.shape[1], kernel.shape[-1], stride, 1)
    return algebra.convolve(maps, Convolution(kernel.flatten(0, 1), mixing), grid).permute(0, 2, 3, 1)


def _register(name: str, compute: Any, fake: Any) -> None:
    _library.impl(name, compute, "CompositeExplicitAutograd")
    torch.library.register_fake(f"acmix_triton::{name}", fake)


_register("attend", _attend, _fake_attend)
_register("attend_backward", _attend_backward, _fake_attend_backward)
_register("convolve", _convolve, _fake_convolve)
_register("convolve_backward", _convolve_backward, _fake_convolve_backward)
attend_maps = Operator("acmix_triton::attend", _backward_of_attend, _define_attention)
convolve_projections = Operator("acmix_triton::convolve", _backward_of_convolve, _define_convolution)
