"""Compiled CPU kernels: local attention and the convolution path, forward and backward, in C++.

The shared library is built with the package where a compiler is at hand (setup.py) and loaded with this
module. It holds the operators `acmix::project_and_mix`, `acmix::mix` and `acmix::local_attention` with their backward
passes, on LibTorch's stable ABI; they read their maps by strides, so that views cost no copies. All other derivatives
are those of `algebra`.
"""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from acmix.ops import algebra
from acmix.ops.composition import widen_to
from acmix.ops.derivatives import Operator
from acmix.ops.geometry import composes_kernels, output_size
from acmix.ops.tracing import is_exporting

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_LARGEST_WINDOW = 31


def _load() -> tuple[str | None, str | None]:
    """Load the library: the instruction set that it uses, or None and why that failed."""
    libraries = sorted(Path(__file__).parent.glob("_stage2*.so"))
    if not libraries:
        return None, "its library was not built: install a C++20 compiler, then install acmix again from source"
    try:
        torch.ops.load_library(libraries[0])
    except OSError as error:
        return None, f"its library does not load with torch {torch.__version__}: {error}"
    name = ctypes.CDLL(str(libraries[0])).acmix_instructions
    name.restype = ctypes.c_char_p
    chosen = name()
    if chosen is None:
        wanted = os.environ["ACMIX_INSTRUCTIONS"]
        return None, f"ACMIX_INSTRUCTIONS must be amx, avx512, avx2 or baseline, or unset, got {wanted!r}"
    return chosen.decode(), None


def instructions() -> str | None:
    """The instruction set that the kernels use: the best of the processor, or less where ACMIX_INSTRUCTIONS says so.

    Returns:
        "amx", "avx512", "avx2" or "baseline"; None where `why_not` says that they cannot compute.
    """
    return _INSTRUCTIONS


def why_not(features: Tensor | None, window: int, stride: int, dilation: int) -> str | None:  # noqa: ARG001
    """Why the compiled kernels cannot compute, or None."""
    if _MISSING is not None or features is None:
        return _MISSING
    if features.device.type != "cpu":
        return f"it needs tensors on the CPU, got {features.device}"
    if features.dtype not in _DTYPES:
        return f"it needs float32, float64, float16 or bfloat16, got {features.dtype}"
    if dilation != 1:
        return f"it has no dilation, got dilation={dilation}"
    if window > _LARGEST_WINDOW:
        return f"it needs a window of at most {_LARGEST_WINDOW}, got {window}"
    if is_exporting():
        return "an exported graph holds standard operators only"
    return None


def _empty_map(like: Tensor, channels: int, stride: int) -> Tensor:
    """What the kernels allocate: `(B, channels, H', W')` in the memory order of `like`, `(B, heads, D, H, W)`."""
    batch, _, head_size, height, width = like.shape
    last = like.stride(2) == 1 and head_size > 1 and height * width > 1
    return torch.empty(
        (batch, channels, output_size(height, stride), output_size(width, stride)),
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )


def _fake_attention(query: Tensor, key: Tensor, value: Tensor, window: int, stride: int) -> Tensor:  # noqa: ARG001
    return _empty_map(query, query.shape[1] * query.shape[2], stride)


def _fake_attention_backward(
    output_gradient: Tensor,  # noqa: ARG001
    query: Tensor,
    key: Tensor,  # noqa: ARG001
    value: Tensor,  # noqa: ARG001
    window: int,  # noqa: ARG001
    stride: int,  # noqa: ARG001
) -> Tensor:
    return _empty_map(query, 3 * query.shape[1] * query.shape[2], 1)


def _attention_backward(
    wanted: Sequence[bool],  # noqa: ARG001
    output_gradient: Tensor,
    beside: Sequence[Tensor],  # noqa: ARG001
    arguments: Sequence[Any],
) -> tuple[Tensor | None, ...]:
    gradient = torch.ops.acmix.local_attention_backward(output_gradient, *arguments)
    batch, *sizes = arguments[0].shape
    return *gradient.reshape(batch, 3, *sizes).unbind(1), None, None


def _define_attention(query: Tensor, key: Tensor, value: Tensor, window: int, stride: int) -> Tensor:
    return algebra.attend(query, key, value, window, stride, 1)


def _fake_mix(
    projections: Tensor,
    position: Tensor | None,  # noqa: ARG001
    rate: Tensor | None,  # noqa: ARG001
    fc: Tensor | None,  # noqa: ARG001
    dep: Tensor,  # noqa: ARG001
    rate_convolution: Tensor | None,  # noqa: ARG001
    composed: bool,  # noqa: ARG001
    window: int,  # noqa: ARG001
    stride: int,
) -> Tensor:
    return _empty_map(projections, projections.shape[1] // 3 * projections.shape[2], stride)


def _fake_mix_backward(
    output_gradient: Tensor,  # noqa: ARG001
    projections: Tensor,
    position: Tensor | None,  # noqa: ARG001
    rate: Tensor | None,  # noqa: ARG001
    fc: Tensor | None,
    dep: Tensor,
    rate_convolution: Tensor | None,
    composed: bool,  # noqa: ARG001
    window: int,  # noqa: ARG001
    stride: int,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    maps, head_size = projections.shape[1:3]
    last = not dep.is_contiguous() and dep.is_contiguous(memory_format=torch.channels_last)
    return (
        _empty_map(projections, maps * head_size, 1),
        dep.new_empty((2 * head_size + 1,)),
        dep.new_empty(fc.shape if fc is not None else (0,)),
        torch.empty_like(dep, memory_format=torch.channels_last if last else torch.contiguous_format),
        dep.new_empty((int(rate_convolution is not None),)),
    )


def _fake_project_and_mix(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,  # noqa: ARG001
    heads: int,  # noqa: ARG001
    position: Tensor | None,  # noqa: ARG001
    rate: Tensor | None,  # noqa: ARG001
    fc: Tensor | None,  # noqa: ARG001
    dep: Tensor,  # noqa: ARG001
    rate_convolution: Tensor | None,  # noqa: ARG001
    composed: bool,  # noqa: ARG001
    window: int,  # noqa: ARG001
    stride: int,
) -> Tensor:
    return _empty_map(input[:, None], weight.shape[0] // 3, stride)


def _fake_project_and_mix_backward(
    output_gradient: Tensor,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    heads: int,
    input_wanted: bool,
    weight_wanted: bool,
    *arguments: Any,
) -> tuple[Tensor, ...]:
    batch, inputs, height, width = input.shape
    maps = input.new_empty((batch, 3 * heads, weight.shape[0] // (3 * heads), height, width))
    return (
        _empty_map(input[:, None], inputs, 1) if input_wanted else input.new_empty((0,)),
        weight.new_empty(weight.shape if weight_wanted else (0,)),
        weight.new_empty((bias.shape[0] if bias is not None and weight_wanted else 0,)),
        *_fake_mix_backward(output_gradient, maps, *arguments)[1:],
    )


def _parameter_gradients(
    arguments: Sequence[Any], small: Tensor, fc: Tensor, dep: Tensor, rate_convolution: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of position, rate, fc, dep, rate_convolution and of what says how to compute."""
    position, rate, fc_weight, _, rate_weight = arguments[:5]
    return (
        None if position is None else small[:-1].reshape(position.shape),
        None if rate is None else small[-1:].reshape(rate.shape),
        None if fc_weight is None else fc,
        dep,
        None if rate_weight is None else rate_convolution.reshape(rate_weight.shape),
        None,
        None,
        None,
    )


def _mix_backward(
    wanted: Sequence[bool],  # noqa: ARG001
    output_gradient: Tensor,
    beside: Sequence[Tensor],  # noqa: ARG001
    arguments: Sequence[Any],
) -> tuple[Tensor | None, ...]:
    gradient, *gradients = torch.ops.acmix.mix_backward(output_gradient, *arguments)
    return gradient.reshape(arguments[0].shape), *_parameter_gradients(arguments[1:], *gradients)


def _define_mix(
    projections: Tensor,
    position: Tensor | None,
    rate: Tensor | None,
    fc: Tensor | None,
    dep: Tensor,
    rate_convolution: Tensor | None,
    composed: bool,  # noqa: ARG001
    window: int,
    stride: int,
) -> Tensor:
    if position is None or rate is None:
        return algebra.convolve(projections, fc, dep, rate_convolution, stride, 1)
    return algebra.add_paths(projections, position, fc, dep, rate, rate_convolution, window, stride, 1)


def _project_and_mix_backward(
    wanted: Sequence[bool],
    output_gradient: Tensor,
    beside: Sequence[Tensor],  # noqa: ARG001
    arguments: Sequence[Any],
) -> tuple[Tensor | None, ...]:
    input_wanted, weight_wanted = wanted[0], any(wanted[1:3])
    x, weight, bias, *gradients = torch.ops.acmix.project_and_mix_backward(
        output_gradient, *arguments[:4], input_wanted, weight_wanted, *arguments[4:]
    )
    return x, weight, bias, None, *_parameter_gradients(arguments[4:], *gradients)


def _define_project_and_mix(x: Tensor, weight: Tensor, bias: Tensor | None, heads: int, *arguments: Any) -> Tensor:
    return _define_mix(functional.conv2d(x, weight, bias).unflatten(1, (3 * heads, -1)), *arguments)


def _register() -> dict[str, Operator]:
    """Complete the library's operators by what PyTorch asks of one."""
    torch.library.register_fake("acmix::local_attention", _fake_attention)
    torch.library.register_fake("acmix::local_attention_backward", _fake_attention_backward)
    torch.library.register_fake("acmix::mix", _fake_mix)
    torch.library.register_fake("acmix::mix_backward", _fake_mix_backward)
    torch.library.register_fake("acmix::project_and_mix", _fake_project_and_mix)
    torch.library.register_fake("acmix::project_and_mix_backward", _fake_project_and_mix_backward)
    return {
        "local_attention": Operator("acmix::local_attention", _attention_backward, _define_attention, maps=3),
        "mix": Operator("acmix::mix", _mix_backward, _define_mix),
        "project_and_mix": Operator("acmix::project_and_mix", _project_and_mix_backward, _define_project_and_mix),
    }


def local_attention(query: Tensor, key: Tensor, value: Tensor, window: int, stride: int, dilation: int) -> Tensor:  # noqa: ARG001
    """Attention of every query over its reflected window; see `acmix.ops.local_attention`."""
    output = _OPERATORS["local_attention"](query, key, value, window, stride)
    return output.unflatten(1, query.shape[1:3])


def _weights(
    maps: int, features: Tensor, fc_weight: Tensor | None, dep_weight: Tensor, rate: Tensor | None
) -> tuple[Tensor | None, Tensor, Tensor | None, bool]:
    """What the operators take of the convolution path; fc and dep become one kernel where that is cheaper."""
    composed = composes_kernels(maps // 3, dep_weight.shape[1], dep_weight.shape[-1])
    fc = None if fc_weight is None else widen_to(features, fc_weight)
    rate = None if rate is None else widen_to(features, rate)
    return fc, widen_to(features, dep_weight), rate, composed


def shift_conv(projections: Tensor, fc_weight: Tensor | None, dep_weight: Tensor, stride: int, dilation: int) -> Tensor:  # noqa: ARG001
    """The convolution path; see `acmix.ops.shift_conv`."""
    weights = _weights(projections.shape[1], projections, fc_weight, dep_weight, None)
    return _OPERATORS["mix"](projections, None, None, *weights, 0, stride)


def mix(
    projections: Tensor,
    position_weight: Tensor,
    fc_weight: Tensor | None,
    dep_weight: Tensor,
    rate_attention: Tensor,
    rate_convolution: Tensor | None,
    window: int,
    stride: int,
    dilation: int,  # noqa: ARG001
) -> Tensor:
    """Both paths and their sum; see `acmix.ops.mix`."""
    position = widen_to(projections, position_weight)
    rate = widen_to(projections, rate_attention)
    weights = _weights(projections.shape[1], projections, fc_weight, dep_weight, rate_convolution)
    return _OPERATORS["mix"](projections, position, rate, *weights, window, stride)


def projects(x: Tensor, window: int, stride: int, dilation: int) -> bool:
    """Whether `project_and_mix` computes: nothing asks for another dtype."""
    return why_not(x, window, stride, dilation) is None and not torch.is_autocast_enabled("cpu")


def project_and_mix(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    position_weight: Tensor,
    fc_weight: Tensor | None,
    dep_weight: Tensor,
    rate_attention: Tensor,
    rate_convolution: Tensor | None,
    heads: int,
    window: int,
    stride: int,
) -> Tensor:
    """All three stages in one pass over bands of rows, and backward in one, without the maps of the projections."""
    weight, bias = widen_to(x, weight), None if bias is None else widen_to(x, bias)
    position, rate = widen_to(x, position_weight), widen_to(x, rate_attention)
    weights = _weights(3 * heads, x, fc_weight, dep_weight, rate_convolution)
    return _OPERATORS["project_and_mix"](x, weight, bias, heads, position, rate, *weights, window, stride)


# At import, not at the first question: a question may be traced into a graph.
_INSTRUCTIONS, _MISSING = _load()
_OPERATORS = {} if _INSTRUCTIONS is None else _register()
