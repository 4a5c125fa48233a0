"""Compiled CPU kernels: local attention and the convolution path, forward and backward, in C++.

The shared library is built with the package where a compiler is at hand (setup.py), without torch, and loaded with this
module. It holds the operators `acmix::project_and_mix`, `acmix::mix` and `acmix::local_attention` with their backward
passes, and `acmix::infer`, the first of them with what stands on its both sides and without derivatives, on LibTorch's
stable ABI; they read their maps by strides, so that views cost no copies. All other derivatives are those of `algebra`.
"""

import ctypes
import functools
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from acmix.ops import algebra
from acmix.ops.contract import Backend, Convolution, Ends, Features, Grid, Projection, Tail, Weights, follow
from acmix.ops.cpu.arguments import Parameters, parameters_of, sides_of, split_inference, stages_of
from acmix.ops.derivatives import Operator
from acmix.ops.geometry import output_size
from acmix.ops.precision import autocast_dtype
from acmix.ops.tracing import is_exporting, may_be_derived

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_LARGEST_WINDOW = 31


def _why_not_built(folder: Path) -> str:
    """What setup.py left in the library's place."""
    excuse = folder / "not_built.txt"
    if not excuse.exists():
        return "its library is not there: in a source tree, build it with `python setup.py build_ext --inplace`"
    reason = excuse.read_text(encoding="utf-8")
    return (
        f"its library was not built when acmix was installed: {reason}; with g++ 12 or newer, install acmix again: "
        "pip install --force-reinstall --no-deps --no-cache-dir and the folder or name as before"
    )


def _load(folder: Path) -> tuple[str | None, str | None]:
    """Load the library: the instruction set that it uses, or None and why that failed."""
    library = folder / "_stage2.so"
    if not library.exists():
        return None, _why_not_built(folder)
    try:
        torch.ops.load_library(library)
    except OSError as error:
        return None, f"its library does not load with torch {torch.__version__}: {error}"
    name = ctypes.CDLL(str(library)).acmix_instructions
    name.restype = ctypes.c_char_p
    chosen = name()
    if chosen is None:
        wanted = os.environ["ACMIX_INSTRUCTIONS"]
        return None, f"ACMIX_INSTRUCTIONS must be amx, avx512_bf16, avx512, avx2 or baseline, or unset, got {wanted!r}"
    return chosen.decode(), None


@functools.cache
def warn_if_missing() -> None:
    """Say once what is slow without the kernels, and why they are missing."""
    if _MISSING is not None:
        warnings.warn(
            "acmix computes with plain PyTorch operations, several times slower on a CPU than its compiled kernels, "
            f"which cannot run: {_MISSING}",
            stacklevel=2,
        )


def instructions() -> str | None:
    """The instruction set that the kernels use: the best of the processor, or less where ACMIX_INSTRUCTIONS says so.

    Returns:
        "amx", "avx512_bf16", "avx512", "avx2" or "baseline"; None where `why_not` says that they cannot compute.
    """
    return _INSTRUCTIONS


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
    return algebra.attend(query, key, value, None, Grid(query.shape[1], window, stride, 1))


def _fake_mix(projections: Tensor, *parameters: Any) -> Tensor:
    channels = projections.shape[1] // 3 * projections.shape[2]
    return _empty_map(projections, channels, Parameters(*parameters).stride)


def _fake_gradient(features: Tensor, parameter: Tensor | None) -> Tensor:
    """In the parameter's dtype and order of memory; empty where there is none."""
    if parameter is None:
        return features.new_empty((0,), dtype=torch.promote_types(features.dtype, torch.float32))
    kernel = parameter.ndim == 4 and not parameter.is_contiguous()
    last = kernel and parameter.is_contiguous(memory_format=torch.channels_last)
    return torch.empty_like(parameter, memory_format=torch.channels_last if last else torch.contiguous_format)


def _fake_gradients(features: Tensor, parameters: Parameters) -> tuple[Tensor, ...]:
    """Of the tensors among `Parameters`."""
    return tuple(_fake_gradient(features, parameter) for parameter in parameters[:5])


def _fake_mix_backward(output_gradient: Tensor, projections: Tensor, *parameters: Any) -> tuple[Tensor, ...]:  # noqa: ARG001
    maps, head_size = projections.shape[1:3]
    return _empty_map(projections, maps * head_size, 1), *_fake_gradients(projections, Parameters(*parameters))


def _fake_project_and_mix(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:  # noqa: ARG001
    *parameters, _ = rest
    return _empty_map(x[:, None], weight.shape[0] // 3, Parameters(*parameters).stride)


def _fake_infer(*arguments: Any) -> Tensor:
    between, beside = split_inference(arguments)
    output = _fake_project_and_mix(*between)
    if beside.tail is None:
        return output
    shape = output.shape[0], beside.tail.shape[0], *output.shape[2:]
    return torch.empty(shape, dtype=output.dtype, device=output.device, memory_format=torch.channels_last)


def _fake_project_and_mix_backward(
    output_gradient: Tensor,  # noqa: ARG001
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, ...]:
    *parameters, _, x_wanted, weight_wanted = rest
    return (
        _empty_map(x[:, None], x.shape[1], 1) if x_wanted else x.new_empty((0,)),
        weight.new_empty(weight.shape) if weight_wanted else weight.new_empty((0,)),
        _fake_gradient(x, bias) if weight_wanted or bias is None else bias.new_empty((0,)),
        *_fake_gradients(x, Parameters(*parameters)),
    )


def _mix_backward(
    wanted: Sequence[bool],  # noqa: ARG001
    output_gradient: Tensor,
    beside: Sequence[Tensor],  # noqa: ARG001
    arguments: Sequence[Any],
) -> tuple[Tensor | None, ...]:
    gradient, *gradients = torch.ops.acmix.mix_backward(output_gradient, *arguments)
    return gradient.reshape(arguments[0].shape), *gradients, None, None, None


def _define_mix(projections: Tensor, *parameters: Any) -> Tensor:
    given = Parameters(*parameters)
    convolution = Convolution(given.dep, given.fc, given.rate_convolution)
    grid = Grid(projections.shape[1] // 3, given.window, given.stride, 1)
    if given.position is None or given.rate is None:
        return algebra.convolve(projections, convolution, grid)
    return algebra.add_paths(projections, Weights(given.position, given.rate, convolution), grid)


def _project_and_mix_backward(
    wanted: Sequence[bool],
    output_gradient: Tensor,
    beside: Sequence[Tensor],  # noqa: ARG001
    arguments: Sequence[Any],
) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.acmix.project_and_mix_backward(output_gradient, *arguments, wanted[0], wanted[1] or wanted[2])
    return *gradients, None, None, None, None


def _define_project_and_mix(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    *parameters, heads = rest
    return _define_mix(functional.conv2d(x, weight, bias).unflatten(1, (3 * heads, -1)), *parameters)


def _register() -> dict[str, Operator]:
    """Complete the library's operators by what PyTorch asks of one."""
    torch.library.register_fake("acmix::local_attention", _fake_attention)
    torch.library.register_fake("acmix::local_attention_backward", _fake_attention_backward)
    torch.library.register_fake("acmix::mix", _fake_mix)
    torch.library.register_fake("acmix::mix_backward", _fake_mix_backward)
    torch.library.register_fake("acmix::project_and_mix", _fake_project_and_mix)
    torch.library.register_fake("acmix::project_and_mix_backward", _fake_project_and_mix_backward)
    torch.library.register_fake("acmix::infer", _fake_infer)
    return {
        "local_attention": Operator("acmix::local_attention", _attention_backward, _define_attention, maps=3),
        "mix": Operator("acmix::mix", _mix_backward, _define_mix),
        "project_and_mix": Operator("acmix::project_and_mix", _project_and_mix_backward, _define_project_and_mix),
    }


def _computes(layer: Projection, inputs: int, x: Tensor) -> bool:
    """Whether the kernels compute a 1x1 convolution beside the operator, and exactly what PyTorch would."""
    alike = all((each.dtype, each.device) == (x.dtype, x.device) for each in layer if each is not None)
    pixels = x.is_contiguous(memory_format=torch.channels_last)
    # With tiles of the processor's own, PyTorch's convolutions are faster.
    return alike and pixels and layer.weight.shape[1:] == (inputs, 1, 1) and _INSTRUCTIONS != "amx"


def _computes_tail(tail: Tail, x: Tensor, channels: int, stride: int) -> bool:
    """The same of all that follows an operator with so many channels."""
    (weight, _), shortcut, downsample, _ = tail
    if not _computes(tail.projection, channels, x) or shortcut is None:
        return _computes(tail.projection, channels, x)
    if shortcut.ndim != 4 or (shortcut.dtype, shortcut.device) != (x.dtype, x.device):
        return False
    batch, inputs, *sizes = shortcut.shape
    outputs = inputs
    if downsample is not None:
        if not _computes(downsample, inputs, x):
            return False
        outputs, sizes = downsample.weight.shape[0], [output_size(size, stride) for size in sizes]
    return [batch, outputs, *sizes] == [
        x.shape[0],
        weight.shape[0],
        *(output_size(size, stride) for size in x.shape[2:]),
    ]


class Compiled(Backend):
    """The compiled kernels."""

    def why_not(self, features: Features | None, grid: Grid) -> str | None:
        """Why the compiled kernels cannot compute, or None."""
        if _MISSING is not None or features is None:
            return _MISSING
        if features.device.type != "cpu":
            return f"it needs tensors on the CPU, got {features.device}"
        if features.dtype not in _DTYPES:
            return f"it needs float32, float64, float16 or bfloat16, got {features.dtype}"
        if grid.dilation != 1:
            return f"it has no dilation, got dilation={grid.dilation}"
        if grid.window > _LARGEST_WINDOW:
            return f"it needs a window of at most {_LARGEST_WINDOW}, got {grid.window}"
        if features.exported:
            return "an exported graph holds standard operators only"
        return None

    def checks(self, x: Tensor, projection: Projection, weights: Weights, grid: Grid) -> bool:
        """Whether it can compute all stages and its operators refuse what is wrong with these arguments.

        Checks in Python take longer than a small layer where caches hold a network's maps and not its code.
        """
        # A subclass may compute shapes alone.
        if type(x) is not Tensor or torch.compiler.is_dynamo_compiling():
            return False
        weight, bias = projection
        position, rate, (dep, fc, rate_convolution) = weights
        # They take the convolution path alone, too.
        if position is None or rate is None:
            return False
        for parameter in (weight, bias, position, rate, dep, fc, rate_convolution):
            if parameter is not None and not parameter.is_cpu:
                return False
        # And parameters of any dtype.
        alike = weight.dtype == x.dtype and (bias is None or bias.dtype == x.dtype)
        features = Features(x.device, autocast_dtype(x), x.shape, is_exporting())
        return (alike or torch.is_autocast_enabled("cpu")) and self.why_not(features, grid) is None

    def local_attention(self, query: Tensor, key: Tensor, value: Tensor, position: Tensor | None, grid: Grid) -> Tensor:
        """The attention path."""
        if position is not None:
            key = algebra.less_positions(key, position)
        output = _OPERATORS["local_attention"](query, key, value, grid.window, grid.stride)
        return output.unflatten(1, query.shape[1:3])

    def shift_conv(self, projections: Tensor, convolution: Convolution, grid: Grid) -> Tensor:
        """The convolution path."""
        return _OPERATORS["mix"](projections, *parameters_of(None, convolution, grid))

    def mix(self, projections: Tensor, weights: Weights, grid: Grid) -> Tensor:
        """Both paths and their sum."""
        return _OPERATORS["mix"](projections, *parameters_of(weights, weights.convolution, grid))

    def project_and_mix(self, x: Tensor, projection: Projection, weights: Weights, grid: Grid) -> Tensor:
        """All stages in one pass over bands of rows, and backward in one, without the maps of the projections."""
        if torch.is_autocast_enabled("cpu"):
            if autocast_dtype(x) != torch.bfloat16 or _INSTRUCTIONS != "avx512_bf16":
                # A convolution knows what autocast asks for, and where the kernels multiply no pairs it is faster.
                return super().project_and_mix(x, projection, weights, grid)
            x = x.to(torch.bfloat16)
        return _OPERATORS["project_and_mix"](*stages_of(x, projection, weights, grid))

    def project_and_mix_between(
        self, ends: Ends, x: Tensor, projection: Projection, weights: Weights, grid: Grid
    ) -> Tensor:
        """All stages with what stands on both sides, in one pass where nobody may ask for a derivative."""
        rectified_input, bias, rectified, head, tail = ends
        if not (rectified_input or rectified) and bias is head is tail is None:
            return self.project_and_mix(x, projection, weights, grid)
        position, rate, convolution = weights
        tensors = x, *projection, position, rate, *convolution, bias
        beside = (*(head or ()), *(() if tail is None else (*tail.projection, tail.shortcut, *(tail.downsample or ()))))
        if torch.is_autocast_enabled("cpu") or may_be_derived(*tensors, *beside):
            return super().project_and_mix_between(ends, x, projection, weights, grid)
        # No map has a name here, so that each is freed as soon as it is read.
        if tail is not None and not _computes_tail(tail, x, convolution.dep.shape[0], grid.stride):
            ends = ends._replace(tail=None)
            return follow(self.project_and_mix_between(ends, x, projection, weights, grid), tail, grid)
        if head is not None and not _computes(head, x.shape[1], x):
            ends = ends._replace(head=None)
            return self.project_and_mix_between(ends, functional.conv2d(x, *head), projection, weights, grid)
        return torch.ops.acmix.infer(*stages_of(x, projection, weights, grid), *sides_of(ends))


# At import, not at the first question: a question may be traced into a graph.
_INSTRUCTIONS, _MISSING = _load(Path(__file__).parent)
_OPERATORS = {} if _INSTRUCTIONS is None else _register()
