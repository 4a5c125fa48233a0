"""From tensors to kernels: which is compiled for what plan, how many programs run it, on what numbers.

Maps are `(B, H, W, channels)`, contiguous: projections 3 C, channel (part * N + n) * D + d.
"""

import math
import os
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from acmix.ops.triton import table
from acmix.ops.triton.attention import attention_forward
from acmix.ops.triton.attention_backward import attention_key_gradient, attention_query_gradient
from acmix.ops.triton.convolution import convolve, convolve_weight_gradient
from acmix.ops.triton.plans import (
    AttentionPlan,
    Maps,
    Shape,
    attention_warps,
    plan_attention,
    plan_convolution,
    precision,
    tile_counts,
)

# Multiplications and additions fuse, as in every other library; triton 3.10 will not by default.
OPTIONS = {"num_stages": 1, "enable_fp_fusion": True}
# Not in the interpreter; and for other makers' GPUs triton looks at more than kinds.
_COMPILES_ONCE = os.environ.get("TRITON_INTERPRET") != "1" and torch.version.hip is None and torch.cuda.is_available()
# Partial sums of a weight gradient: enough programs to fill a device, few enough to add up quickly.
SPLITS = 64


def _device_of(tensor: Tensor) -> AbstractContextManager[object]:
    # The interpreter computes on the CPU.
    return nullcontext() if tensor.device.type == "cpu" else torch.accelerator.device_index(tensor.device.index)


class Launch:
    """A kernel, how many programs, and what they take besides tensors; compiled once for tensors of one kind."""

    def __init__(self, kernel: Any, programs: int, warps: int, arguments: dict[str, Any]) -> None:
        self.kernel, self.programs, self.warps = kernel, programs, warps
        self.arguments = arguments
        self._compiled: dict[tuple[Any, ...], Any] = {}

    def __call__(self, first: Tensor, *others: Tensor | None) -> None:
        """Launch it, on the device of the tensors."""
        if self.programs == 0:
            return
        # Absent tensors are never read; a pointer stands in for them.
        tensors = (first, *(first if tensor is None else tensor for tensor in others))
        with _device_of(first):
            # What triton compiles for: it takes longer to find that out than small kernels run.
            kind = first.device, *((tensor.dtype, tensor.data_ptr() % 16) for tensor in tensors)
            compiled = self._compiled.get(kind)
            if compiled is None:
                compiled = self.kernel[(self.programs,)](*tensors, **self.arguments, num_warps=self.warps, **OPTIONS)
                if _COMPILES_ONCE:
                    self._compiled[kind] = compiled
            else:
                names = self.kernel.arg_names[len(tensors) :]
                compiled[(self.programs, 1, 1)](*tensors, *(self.arguments[name] for name in names))


def reciprocal(divisor: int) -> tuple[int, int]:
    """Multiplier m and shift s of a quotient of numbers n below 2^31: n m / 2^(31 + s), rounded down.

    With s = ceil(log2 divisor) and m = ceil(2^(31 + s) / divisor) it is exact (Granlund and Montgomery, "Division by
    invariant integers using multiplication", 1994).
    """
    shift = (divisor - 1).bit_length()
    return -(-(1 << 31 + shift) // divisor), shift


def _reciprocals(y: int, x: int) -> dict[str, int]:
    """What kernels divide by, as they call it: a count through x, then y, becomes two and a rest."""
    (y_multiplier, y_shift), (x_multiplier, x_shift) = reciprocal(y), reciprocal(x)
    return {"x_multiplier": x_multiplier, "x_shift": x_shift, "y_multiplier": y_multiplier, "y_shift": y_shift}


def attention_programs(plan: AttentionPlan, batch: int, height: int, width: int) -> int:
    """Programs of an attention kernel that owns the cells of maps of height x width."""
    return batch * math.prod(tile_counts(plan, height, width)) * plan.groups


class Attention(NamedTuple):
    """What every attention kernel reads: projections `(B, H, W, 3 N, D)`, W_p or None, and a rate or None for 1."""

    shape: Shape
    projections: Tensor
    position: Tensor | None
    rate: Tensor | None

    def launch(self, kernel: str, **given: bool) -> Launch:
        """Of "forward", "query" or "key" (gradients); `given` says which other tensors there are."""
        dtype = self.projections.dtype
        given = {"POSITIONED": self.position is not None, "RATED": self.rate is not None, **given}
        return attention_launch(kernel, self.shape, dtype, precision(dtype), **given)


ATTENTION = {"forward": attention_forward, "query": attention_query_gradient, "key": attention_key_gradient}


@lru_cache(maxsize=1024)
def attention_launch(kernel: str, shape: Shape, dtype: torch.dtype, products: str, **given: bool) -> Launch:
    """Of programs that own the queries of all maps, or the keys; `products` as `precision` says."""
    tile = table.attention(kernel, shape.size, shape.stride, dtype)
    plan = plan_attention(shape, tile, products, gathers_queries=kernel == "key")
    cells = (shape.height, shape.width) if kernel == "key" else (shape.output_height, shape.output_width)
    arguments = {**shape.scalars(), **_reciprocals(*tile_counts(plan, *cells)), "PLAN": plan, **given}
    programs = attention_programs(plan, shape.batch, *cells)
    return Launch(ATTENTION[kernel], programs, attention_warps(plan, tile), arguments)


def attend(given: Attention, addend: Tensor | None, offset: Tensor | None, output: Tensor) -> Tensor:
    """Write addend + offset + rate * attention, all but attention optional; its log-sum-exp in two parts."""
    shape = given.shape
    cells = shape.output_height, shape.output_width
    log_sum_exp = output.new_empty((shape.batch, 2, shape.heads, *cells), dtype=torch.float32)
    launch = given.launch("forward", ADDED=addend is not None, OFFSET=offset is not None)
    launch(*given[1:], addend, offset, output, log_sum_exp)
    return log_sum_exp


def attend_backward(given: Attention, log_sum_exp: Tensor, output_gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of projections, W_p and rate, of float32 and empty where that is None."""
    # Cells between strided queries get no gradient as queries.
    make = torch.empty_like if given.shape.stride == 1 else torch.zeros_like
    gradient = make(given.projections)
    delta, of_position, of_rate = attend_backward_queries(given, log_sum_exp, output_gradient, gradient)
    attend_backward_keys(given, log_sum_exp, output_gradient, delta, gradient)
    return gradient, of_position, of_rate


def attend_backward_queries(
    given: Attention, log_sum_exp: Tensor, output_gradient: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Write the gradient of the queries; delta, gradients of W_p and rate."""
    launch = given.launch("query")
    delta = torch.empty_like(log_sum_exp[:, 0])
    positioned, rated = given.position is not None, given.rate is not None
    of_position = delta.new_empty((launch.programs if positioned else 0, 2, given.shape.size))
    of_rate = delta.new_empty(launch.programs if rated else 0)
    launch(*given[1:], output_gradient, log_sum_exp, delta, gradient, of_position, of_rate)
    of_position = of_position.sum(0).t().contiguous() if positioned else delta.new_empty(0)
    return delta, of_position, of_rate.sum(0).reshape(given.rate.shape) if given.rate is not None else of_rate


def attend_backward_keys(
    given: Attention, log_sum_exp: Tensor, output_gradient: Tensor, delta: Tensor, gradient: Tensor
) -> None:
    """Write the gradients of keys and values."""
    given.launch("key")(*given[1:], output_gradient, log_sum_exp, delta, gradient)


def _sizes(source: Tensor, target: Tensor) -> dict[str, int]:
    return {
        "height": source.shape[1],
        "width": source.shape[2],
        "output_height": target.shape[1],
        "output_width": target.shape[2],
    }


def convolve_maps(
    source: Tensor,
    weight: Tensor,
    output: Tensor,
    layouts: tuple[Maps, Maps],
    size: int,
    stride: int,
    *,
    transposed: bool = False,
) -> None:
    """Convolve with `weight`, `(D or 1, k, k, maps of the source, maps of the output)`, or its transposed."""
    tile = table.convolution("data" if transposed else "convolve", stride, source.dtype)
    # Cells that see the same taps of a transposed kernel are `stride` apart.
    phases = stride if transposed else 1
    height, width = triton.cdiv(output.shape[1], phases), triton.cdiv(output.shape[2], phases)
    extent = output.shape[0] * height, width
    plan = plan_convolution(layouts, size, weight.shape[1], stride, tile, extent, precision(source.dtype))
    tiles_y, tiles_x = tile_counts(plan, *extent)
    numbers = {**_sizes(source, output), "rows": extent[0], **_reciprocals(height, tiles_x)}
    arguments = {**numbers, "PLAN": plan, "SHARED": weight.shape[0] == 1, "TRANSPOSED": transposed}
    Launch(convolve, phases**2 * tiles_y * tiles_x * plan.groups, tile.warps, arguments)(source, weight, output)


def convolution_weight_gradient(
    source: Tensor, output_gradient: Tensor, layouts: tuple[Maps, Maps], size: int, kernel: int, stride: int
) -> Tensor:
    """Gradient of the weight of `convolve_maps`, `(D, k, k, maps of the source, maps of the output)`, in float32."""
    tile = table.convolution("weight", stride, source.dtype)
    batch, height, width = output_gradient.shape[:3]
    extent = batch * height, width
    plan = plan_convolution(layouts, size, kernel, stride, tile, extent, precision(source.dtype))
    tiles_y, tiles_x = tile_counts(plan, *extent)
    splits = min(SPLITS, tiles_y * tiles_x)
    maps = (layouts[0].number, layouts[1].number)
    partial = source.new_empty((splits, size, kernel, kernel, *maps), dtype=torch.float32)
    programs = splits * plan.groups * triton.cdiv(kernel**2 * maps[0], plan.chunk)
    numbers = {**_sizes(source, output_gradient), **_reciprocals(height, tiles_x)}
    arguments = {**numbers, "rows": extent[0], "tiles": tiles_y * tiles_x, "splits": splits, "PLAN": plan}
    Launch(convolve_weight_gradient, programs, tile.warps, arguments)(source, output_gradient, partial)
    return partial.sum(0)
