"""Triton kernels for GPUs: local attention and the convolution path, forward and backward.

Importing this module loads torch alone; triton and the operators `acmix_triton::attend` and `acmix_triton::convolve`
load with the first call. Maps are channels-last inside: other layouts are copied on the way in and out.
"""

import importlib.util
import os

import torch
from torch import Tensor
from torch.nn import functional

from acmix.ops.composition import compose, compose_all
from acmix.ops.contract import Backend, Convolution, Features, Grid, Projection, Weights
from acmix.ops.precision import widen_to, without_autocast

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_DEVICES = ("cuda", "xpu")
_LARGEST_WINDOW = 9
_HEAD_SIZES = (1, 128)
_STRIDES = (1, 2)
# Images are found with 64 bits; cells of the batch, also those of tiles that reach beyond it, and what lies in the rows
# of a halo are counted with 31.
_MOST_CELLS = 2**31 - 2**10
_HALO_ROWS = 15
_LONGEST_ROW = _MOST_CELLS // (3 * _HALO_ROWS)
# Asked once: PyTorch 2.11 cannot compile what asks.
_INSTALLED = importlib.util.find_spec("triton") is not None


def _interpreted() -> bool:
    """Whether triton runs kernels on the CPU, for debugging and tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _missing() -> str | None:
    if not _INSTALLED:
        return "triton is not installed"
    if not (_interpreted() or torch.cuda.is_available() or torch.xpu.is_available()):
        return "PyTorch sees no GPU"
    return None


def _attend(
    cells: Tensor,
    position: Tensor | None,
    rate: Tensor | None,
    addend: Tensor | None,
    offset: Tensor | None,
    grid: Grid,
) -> Tensor:
    """`(B, H', W', C)` of projections `(B, H, W, 3 N, D)`, with what is added to it."""
    from acmix.ops.triton import operators

    return operators.attend_maps(
        cells.contiguous(), *widen_to(cells, position, rate), addend, offset, grid.window, grid.stride
    )


def _convolve(cells: Tensor, convolution: Convolution, grid: Grid) -> Tensor:
    """The convolution path of projections `(B, H, W, 3 N, D)`, `(B, H', W', C)`."""
    from acmix.ops.triton import operators

    with without_autocast(cells.device):
        kernel, mixing = compose(cells, grid.heads, convolution)
    return operators.convolve_projections(cells.contiguous(), kernel, mixing, grid.stride)


def _in_order_of(maps: Tensor, last: bool) -> Tensor:
    """Channels-last maps `(B, H', W', C)` as `(B, C, H', W')`, with channels `last` in memory or not."""
    output = maps.permute(0, 3, 1, 2)
    return output if last else output.contiguous()


class Triton(Backend):
    """The Triton kernels."""

    def why_not(self, features: Features | None, grid: Grid) -> str | None:
        """Why the Triton kernels cannot compute, or None."""
        # Tensors on a GPU prove that there is one; PyTorch takes a millisecond to look for it.
        if features is None or not _INSTALLED:
            return _missing()
        if features.device.type not in _DEVICES and not _interpreted():
            return f"it needs tensors on a GPU, got {features.device}"
        if features.dtype not in _DTYPES:
            return f"it needs float32, float16 or bfloat16, got {features.dtype}"
        if grid.dilation != 1:
            return f"it has no dilation, got dilation={grid.dilation}"
        if grid.stride not in _STRIDES:
            return f"it needs a stride of 1 or 2, got {grid.stride}"
        if grid.window > _LARGEST_WINDOW:
            return f"it needs a window of at most {_LARGEST_WINDOW}, got {grid.window}"
        batch, maps, size, height, width = features.shape
        if not _HEAD_SIZES[0] <= size <= _HEAD_SIZES[1]:
            return f"it needs at most {_HEAD_SIZES[1]} channels a head, got {size}"
        if batch * height * width > _MOST_CELLS or maps * size * width > _LONGEST_ROW:
            return (
                f"it needs at most {_MOST_CELLS} cells and {_LONGEST_ROW} numbers a row, got "
                f"{batch * height * width} and {maps * size * width}"
            )
        if features.exported:
            return "an exported graph holds standard operators only"
        return None

    def local_attention(self, query: Tensor, key: Tensor, value: Tensor, position: Tensor | None, grid: Grid) -> Tensor:
        """The attention path."""
        cells = torch.cat((query, key, value), 1).permute(0, 3, 4, 1, 2)
        output = _attend(cells, position, None, None, None, grid)
        return _in_order_of(output, cells.is_contiguous()).unflatten(1, query.shape[1:3])

    def shift_conv(self, projections: Tensor, convolution: Convolution, grid: Grid) -> Tensor:
        """The convolution path."""
        cells = projections.permute(0, 3, 4, 1, 2)
        return _in_order_of(_convolve(cells, convolution, grid), cells.is_contiguous())

    def mix(self, projections: Tensor, weights: Weights, grid: Grid) -> Tensor:
        """Both paths and their sum."""
        cells = projections.permute(0, 3, 4, 1, 2)
        addend = _convolve(cells, weights.convolution, grid)
        output = _attend(cells, weights.position, weights.rate, addend, None, grid)
        return _in_order_of(output, cells.is_contiguous())

    def project_and_mix(self, x: Tensor, projection: Projection, weights: Weights, grid: Grid) -> Tensor:
        """All three stages, the convolution path as one dense convolution of x.

        On an H200 that takes a sixth to seven tenths of the time of the grouped convolution of the projections, and a
        linear map of channels-last maps a third to a half of the time of a 1x1 convolution with a bias.
        """
        last = x.is_contiguous(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
        cells = functional.linear(x.permute(0, 2, 3, 1), projection.weight.flatten(1), projection.bias)
        steps = {"stride": grid.stride, "padding": weights.convolution.dep.shape[-1] // 2}
        offset = None
        with without_autocast(x.device):
            dense, of_ones = compose_all(projection, grid.heads, weights.convolution)
            convolved = functional.conv2d(x.to(cells.dtype), dense.to(cells.dtype), **steps)
            if of_ones is not None:
                # Where a tap lies beside the map there is no bias: what the other taps see of a map of ones.
                offset = functional.conv2d(of_ones.new_ones(1, 1, *x.shape[2:]), of_ones, **steps)
                offset = offset[0].permute(1, 2, 0).to(cells.dtype)
        addend = convolved.permute(0, 2, 3, 1)
        cells = cells.unflatten(3, (3 * grid.heads, -1))
        return _in_order_of(_attend(cells, weights.position, weights.rate, addend, offset, grid), last)
