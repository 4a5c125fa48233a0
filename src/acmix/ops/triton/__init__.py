"""Triton kernels for GPUs: local attention and the convolution path, forward and backward.

Importing this module loads torch alone; triton and the operator `acmix_triton::mix` load with the first call. Maps are
channels-last inside: other layouts are copied on the way in and out.
"""

import importlib.util
import os

import torch
from torch import Tensor

from acmix.ops.composition import compose, widen_to
from acmix.ops.tracing import is_exporting

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_DEVICES = ("cuda", "xpu")
_LARGEST_WINDOW = 9
_HEAD_SIZES = (1, 128)
_STRIDES = (1, 2)
# Images are found with 64 bits; cells of the batch, also those of tiles that reach beyond it, and what lies in the 11
# rows of a tile are counted with 31.
_MOST_CELLS = 2**31 - 2**10
_LONGEST_ROW = _MOST_CELLS // (3 * 11)
# Asked once: PyTorch 2.11 cannot compile what asks.
_INSTALLED = importlib.util.find_spec("triton") is not None


def why_not(features: Tensor | None, window: int, stride: int, dilation: int) -> str | None:
    """Why the Triton kernels cannot compute, or None."""
    missing = _missing()
    if missing is not None or features is None:
        return missing
    if features.device.type not in _DEVICES and not _interpreted():
        return f"it needs tensors on a GPU, got {features.device}"
    if features.dtype not in _DTYPES:
        return f"it needs float32, float16 or bfloat16, got {features.dtype}"
    if dilation != 1:
        return f"it has no dilation, got dilation={dilation}"
    if stride not in _STRIDES:
        return f"it needs a stride of 1 or 2, got {stride}"
    if window > _LARGEST_WINDOW:
        return f"it needs a window of at most {_LARGEST_WINDOW}, got {window}"
    if not _HEAD_SIZES[0] <= features.shape[2] <= _HEAD_SIZES[1]:
        return f"it needs at most {_HEAD_SIZES[1]} channels a head, got {features.shape[2]}"
    batch, maps, size, height, width = features.shape
    if batch * height * width > _MOST_CELLS or maps * size * width > _LONGEST_ROW:
        return (
            f"it needs at most {_MOST_CELLS} cells and {_LONGEST_ROW} numbers a row, got "
            f"{batch * height * width} and {maps * size * width}"
        )
    if is_exporting():
        return "an exported graph holds standard operators only"
    return None


def _interpreted() -> bool:
    """Whether triton runs kernels on the CPU, for debugging and tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _missing() -> str | None:
    if not _INSTALLED:
        return "triton is not installed"
    if not (_interpreted() or torch.cuda.is_available() or torch.xpu.is_available()):
        return "PyTorch sees no GPU"
    return None


def _mix(
    projections: Tensor,
    position: Tensor | None,
    rate: Tensor | None,
    kernel: Tensor | None,
    mixing: Tensor | None,
    window: int,
    stride: int,
) -> Tensor:
    """Through the operator, `(B, C, H', W')` in the memory order of the projections."""
    from acmix.ops.triton import operators

    cells = projections.permute(0, 3, 4, 1, 2)
    output = operators.mix(cells.contiguous(), position, rate, kernel, mixing, window, stride)
    output = output.permute(0, 3, 1, 2)
    return output if cells.is_contiguous() else output.contiguous()


def local_attention(query: Tensor, key: Tensor, value: Tensor, window: int, stride: int, dilation: int) -> Tensor:  # noqa: ARG001
    """Attention of every query over its reflected window; see `acmix.ops.local_attention`."""
    projections = torch.cat((query, key, value), 1)
    return _mix(projections, None, None, None, None, window, stride).unflatten(1, query.shape[1:3])


def shift_conv(projections: Tensor, fc_weight: Tensor | None, dep_weight: Tensor, stride: int, dilation: int) -> Tensor:  # noqa: ARG001
    """The convolution path; see `acmix.ops.shift_conv`."""
    with torch.autocast(projections.device.type, enabled=False):
        kernel, mixing = compose(projections, fc_weight, dep_weight, None)
    return _mix(projections, None, None, kernel, mixing, 0, stride)


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
    with torch.autocast(projections.device.type, enabled=False):
        kernel, mixing = compose(projections, fc_weight, dep_weight, rate_convolution)
    position = widen_to(projections, position_weight).contiguous()
    rate = widen_to(projections, rate_attention)
    return _mix(projections, position, rate, kernel, mixing, window, stride)
