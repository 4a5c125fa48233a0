"""Compiled CPU kernels: local attention and the convolution path, forward and backward, in C++.

The shared library is built with the package where a compiler is at hand (setup.py) and loaded with this
module. It holds two operators, `acmix::stage2` and `acmix::stage2_backward`, on LibTorch's stable ABI; both paths
read query, key and value by their strides, so that views of one projection cost no copies.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acmix.ops.geometry import composes_kernels, output_size

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_LARGEST_WINDOW = 31


def _load() -> str | None:
    """Load the library and complete its operators; why that failed, or None."""
    libraries = sorted(Path(__file__).parent.glob("_stage2*.so"))
    if not libraries:
        return "its library was not built: install a C++20 compiler, then install acmix again from source"
    try:
        torch.ops.load_library(libraries[0])
    except OSError as error:
        return f"its library does not load with torch {torch.__version__}: {error}"
    _register()
    return None


def why_not(query: Tensor | None, window: int, stride: int, dilation: int) -> str | None:  # noqa: ARG001
    """Why the compiled kernels cannot compute, or None."""
    if _MISSING is not None or query is None:
        return _MISSING
    if query.device.type != "cpu":
        return f"it needs tensors on the CPU, got {query.device}"
    if query.dtype not in _DTYPES:
        return f"it needs float32, float64, float16 or bfloat16, got {query.dtype}"
    if dilation != 1:
        return f"it has no dilation, got dilation={dilation}"
    if window > _LARGEST_WINDOW:
        return f"it needs a window of at most {_LARGEST_WINDOW}, got {window}"
    if torch.compiler.is_exporting():
        return "an exported graph holds standard operators only"
    return None


def _empty_map(query: Tensor, channels: int, height: int, width: int) -> Tensor:
    """What the kernels allocate: `(B, channels, height, width)` in the memory order of `query`."""
    last = query.stride(2) == 1 and query.shape[2] > 1 and query.shape[3] * query.shape[4] > 1
    memory_format = torch.channels_last if last else torch.contiguous_format
    return torch.empty(
        (query.shape[0], channels, height, width),
        dtype=query.dtype,
        device=query.device,
        memory_format=memory_format,
    )


def _fake_forward(
    query: Tensor,
    key: Tensor,  # noqa: ARG001
    value: Tensor,  # noqa: ARG001
    position: Tensor | None,  # noqa: ARG001
    rate: Tensor | None,  # noqa: ARG001
    kernel: Tensor | None,  # noqa: ARG001
    mixing: Tensor | None,  # noqa: ARG001
    window: int,  # noqa: ARG001
    stride: int,
) -> Tensor:
    _, heads, head_size, height, width = query.shape
    return _empty_map(query, heads * head_size, output_size(height, stride), output_size(width, stride))


def _fake_backward(
    output_gradient: Tensor,  # noqa: ARG001
    query: Tensor,
    key: Tensor,  # noqa: ARG001
    value: Tensor,  # noqa: ARG001
    position: Tensor | None,  # noqa: ARG001
    rate: Tensor | None,  # noqa: ARG001
    kernel: Tensor | None,
    mixing: Tensor | None,
    window: int,  # noqa: ARG001
    stride: int,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _, heads, head_size, height, width = query.shape
    wide = torch.promote_types(query.dtype, torch.float32)
    return (
        _empty_map(query, 3 * heads * head_size, height, width),
        query.new_empty((2 * head_size + 1,), dtype=wide),
        query.new_empty(kernel.shape if kernel is not None else (0,), dtype=wide),
        query.new_empty(mixing.shape if mixing is not None else (0,), dtype=wide),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    ctx.save_for_backward(*inputs[:7])
    ctx.window, ctx.stride = inputs[7:]


def _backward(ctx: Any, output_gradient: Tensor) -> tuple[Tensor | None, ...]:
    # Read once: activation checkpointing hands saved tensors out a single time.
    saved = ctx.saved_tensors
    query, _, _, position, rate, kernel, mixing = saved
    gradient, small, kernel_gradient, mixing_gradient = torch.ops.acmix.stage2_backward(
        output_gradient, *saved, ctx.window, ctx.stride
    )
    heads, head_size = query.shape[1:3]
    gradients = gradient.unflatten(1, (3, heads, head_size)).unbind(1)
    return (
        *gradients,
        None if position is None else small[:-1].reshape(head_size, 2),
        None if rate is None else small[-1:].reshape(rate.shape),
        None if kernel is None else kernel_gradient,
        None if mixing is None else mixing_gradient,
        None,
        None,
    )


def _register() -> None:
    torch.library.register_fake("acmix::stage2", _fake_forward)
    torch.library.register_fake("acmix::stage2_backward", _fake_backward)
    torch.library.register_autograd("acmix::stage2", _backward, setup_context=_setup_context)


def _wide(query: Tensor, parameter: Tensor) -> Tensor:
    """A parameter in the dtype that the kernels compute in."""
    return parameter.to(torch.promote_types(query.dtype, torch.float32))


def _kernel(query: Tensor, fc_weight: Tensor, dep_weight: Tensor, rate: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Kernel `(D, N, P, k, k)` with the rate in it and fc, or `(D, N, 3 N, k, k)` and None where that is cheaper."""
    heads, head_size = query.shape[1:3]
    positions, size = dep_weight.shape[1], dep_weight.shape[-1]
    fc, dep = _wide(query, fc_weight), _wide(query, dep_weight)
    if rate is not None:
        dep = dep * _wide(query, rate)
    if not composes_kernels(heads, positions, size):
        return dep.reshape(head_size, heads, positions, size, size).contiguous(), fc.contiguous()
    # (3 N, P) @ (C, P, k k): the kernel of every output channel composed (DESIGN.md, identity E3).
    composed = fc.t() @ dep.flatten(2)
    return composed.reshape(head_size, heads, 3 * heads, size, size), None


def local_attention(query: Tensor, key: Tensor, value: Tensor, window: int, stride: int, dilation: int) -> Tensor:  # noqa: ARG001
    """Attention of every query over its reflected window; see `acmix.ops.local_attention`."""
    output = torch.ops.acmix.stage2(query, key, value, None, None, None, None, window, stride)
    return output.unflatten(1, query.shape[1:3])


def shift_conv(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    fc_weight: Tensor,
    dep_weight: Tensor,
    stride: int,
    dilation: int,  # noqa: ARG001
) -> Tensor:
    """The convolution path; see `acmix.ops.shift_conv`."""
    with torch.autocast("cpu", enabled=False):
        kernel, mixing = _kernel(query, fc_weight, dep_weight, None)
    return torch.ops.acmix.stage2(query, key, value, None, None, kernel, mixing, 0, stride)


def mix(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    position_weight: Tensor,
    fc_weight: Tensor,
    dep_weight: Tensor,
    rate_attention: Tensor,
    rate_convolution: Tensor,
    window: int,
    stride: int,
    dilation: int,  # noqa: ARG001
) -> Tensor:
    """Both paths and their sum; see `acmix.ops.mix`."""
    with torch.autocast("cpu", enabled=False):
        kernel, mixing = _kernel(query, fc_weight, dep_weight, rate_convolution)
    position = _wide(query, position_weight).contiguous()
    rate = _wide(query, rate_attention)
    return torch.ops.acmix.stage2(query, key, value, position, rate, kernel, mixing, window, stride)


# At import, not at the first question: a question may be traced into a graph.
_MISSING = _load()
