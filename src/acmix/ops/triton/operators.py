"""The kernels as PyTorch operators: `acmix_triton::mix` and its backward pass.

All maps are contiguous `(B, H, W, ...)`, so that no compiler can change their strides: projections `(B, H, W, 3 N, D)`,
outputs `(B, H', W', C)`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from acmix.ops import algebra
from acmix.ops.derivatives import Operator
from acmix.ops.triton.launch import (
    Maps,
    Shape,
    attend,
    attend_backward_keys,
    attend_backward_queries,
    convolution_weight_gradient,
    convolve_maps,
)

_ARGUMENTS = (
    "Tensor projections, Tensor? position, Tensor? rate, Tensor? kernel, Tensor? mixing, int window, int stride"
)
_library = torch.library.Library("acmix_triton", "DEF")
_library.define(f"mix({_ARGUMENTS}) -> (Tensor, Tensor)")
_library.define(
    f"mix_backward(Tensor output_gradient, Tensor log_sum_exp, {_ARGUMENTS})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def _shape(projections: Tensor, window: int, stride: int) -> Shape:
    batch, height, width, maps, size = projections.shape
    return Shape(batch, maps // 3, size, height, width, window, stride)


def _new_output(projections: Tensor, shape: Shape) -> Tensor:
    return projections.new_empty((shape.batch, shape.output_height, shape.output_width, shape.heads * shape.size))


def _contiguous(*tensors: Tensor | None) -> Any:
    """The tensors as kernels read them, which parts of batches that torch.vmap makes are not."""
    return (tensor if tensor is None else tensor.contiguous() for tensor in tensors)


def _mix_maps(projections: Tensor, mixing: Tensor) -> Tensor:
    """The maps that the grouped convolution reads, `(B, H, W, P, D)`."""
    *cells, maps, size = projections.shape
    mixed = projections.new_empty((*cells, mixing.shape[0], size))
    layouts = Maps.by_map(maps, size), Maps.by_map(mixing.shape[0], size)
    weight = mixing.t()[None, None, None].to(projections.dtype).contiguous()
    convolve_maps(projections, weight, mixed, layouts, size, 1)
    return mixed


def _mix(
    projections: Tensor,
    position: Tensor | None,
    rate: Tensor | None,
    kernel: Tensor | None,
    mixing: Tensor | None,
    window: int,
    stride: int,
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of both paths, of attention alone (no kernel), or of the convolution path (window 0)."""
    projections, position = _contiguous(projections, position)
    shape = _shape(projections, window, stride)
    output = _new_output(projections, shape)
    if kernel is not None:
        maps = projections if mixing is None else _mix_maps(projections, mixing)
        layouts = Maps.by_map(maps.shape[3], shape.size), Maps.by_channel(shape.heads, shape.size)
        weight = kernel.permute(0, 3, 4, 2, 1).to(projections.dtype).contiguous()
        convolve_maps(maps, weight, output, layouts, shape.size, stride)
    if window == 0:
        return output, output.new_empty(0, dtype=torch.float32)
    return output, attend(shape, projections, position, rate, output)


def _fake_mix(
    projections: Tensor,
    position: Tensor | None,  # noqa: ARG001
    rate: Tensor | None,  # noqa: ARG001
    kernel: Tensor | None,  # noqa: ARG001
    mixing: Tensor | None,  # noqa: ARG001
    window: int,
    stride: int,
) -> tuple[Tensor, Tensor]:
    shape = _shape(projections, window, stride)
    sizes = (shape.batch, 2, shape.heads, shape.output_height, shape.output_width) if window else (0,)
    return _new_output(projections, shape), projections.new_empty(sizes, dtype=torch.float32)


def _mix_backward(
    output_gradient: Tensor,
    log_sum_exp: Tensor,
    projections: Tensor,
    position: Tensor | None,
    rate: Tensor | None,
    kernel: Tensor | None,
    mixing: Tensor | None,
    window: int,
    stride: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of projections, W_p, rate, kernel and mixing; empty where there is nothing to differentiate."""
    output_gradient, log_sum_exp, projections, position = _contiguous(
        output_gradient, log_sum_exp, projections, position
    )
    shape = _shape(projections, window, stride)
    # Without the convolution path, cells between strided queries get no gradient as queries.
    gradient = torch.empty_like(projections) if kernel is not None or stride == 1 else torch.zeros_like(projections)
    nothing = projections.new_empty(0, dtype=torch.float32)
    position_gradient = rate_gradient = kernel_gradient = mixing_gradient = nothing
    if kernel is not None:
        size = shape.size
        maps = projections if mixing is None else _mix_maps(projections, mixing)
        maps_gradient = gradient if mixing is None else torch.empty_like(maps)
        inner, outer = Maps.by_map(maps.shape[3], size), Maps.by_channel(shape.heads, size)
        weight = kernel.permute(0, 3, 4, 1, 2).to(projections.dtype).contiguous()
        convolve_maps(output_gradient, weight, maps_gradient, (outer, inner), size, stride, transposed=True)
        kernel_gradient = convolution_weight_gradient(
            maps, output_gradient, (inner, outer), size, kernel.shape[-1], stride
        )
        kernel_gradient = kernel_gradient.permute(0, 4, 3, 1, 2).contiguous()
        if mixing is not None:
            projected = Maps.by_map(projections.shape[3], size)
            weight = mixing[None, None, None].to(projections.dtype).contiguous()
            convolve_maps(maps_gradient, weight, gradient, (inner, projected), size, 1)
            mixing_gradient = convolution_weight_gradient(projections, maps_gradient, (projected, inner), size, 1, 1)
            mixing_gradient = mixing_gradient.sum(0)[0, 0].t().contiguous()
    if window > 0:
        given = shape, projections, position, rate, log_sum_exp, output_gradient
        delta, position_gradient, rate_gradient = attend_backward_queries(*given, gradient)
        attend_backward_keys(*given, delta, gradient)
    return gradient, position_gradient, rate_gradient, kernel_gradient, mixing_gradient


def _fake_mix_backward(
    output_gradient: Tensor,  # noqa: ARG001
    log_sum_exp: Tensor,  # noqa: ARG001
    projections: Tensor,
    position: Tensor | None,
    rate: Tensor | None,
    kernel: Tensor | None,
    mixing: Tensor | None,
    window: int,
    stride: int,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    mixed = window > 0 and rate is not None

    def like(tensor: Tensor | None, *, given: bool = True) -> Tensor:
        shape = tensor.shape if given and tensor is not None else (0,)
        return projections.new_empty(shape, dtype=torch.float32)

    return (
        torch.empty_like(projections),
        like(position, given=mixed),
        projections.new_empty(1 if mixed else 0, dtype=torch.float32),
        like(kernel),
        like(mixing),
    )


def _backward(
    wanted: Sequence[bool],  # noqa: ARG001
    output_gradient: Tensor,
    beside: Sequence[Tensor],
    arguments: Sequence[Any],
) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.acmix_triton.mix_backward(output_gradient, *beside, *arguments)
    given = (
        None if tensor is None else gradient.reshape(tensor.shape)
        for tensor, gradient in zip(arguments[:5], gradients, strict=True)
    )
    return *given, None, None


def _define(
    projections: Tensor,
    position: Tensor | None,
    rate: Tensor | None,
    kernel: Tensor | None,
    mixing: Tensor | None,
    window: int,
    stride: int,
) -> Tensor:
    """The same in differentiable operations, `(B, H', W', C)`."""
    maps = projections.permute(0, 3, 4, 1, 2)
    dep = None if kernel is None else kernel.flatten(0, 1)
    if window == 0 and dep is not None:
        output = algebra.convolve(maps, mixing, dep, None, stride, 1)
    elif dep is None or position is None or rate is None:
        query, key, value = maps.chunk(3, 1)
        output = algebra.attend(query, key, value, window, stride, 1)
    else:
        output = algebra.add_paths(maps, position, mixing, dep, rate, None, window, stride, 1)
    return output.permute(0, 2, 3, 1)


_library.impl("mix", _mix, "CompositeExplicitAutograd")
_library.impl("mix_backward", _mix_backward, "CompositeExplicitAutograd")
torch.library.register_fake("acmix_triton::mix", _fake_mix)
torch.library.register_fake("acmix_triton::mix_backward", _fake_mix_backward)
mix = Operator("acmix_triton::mix", _backward, _define)
