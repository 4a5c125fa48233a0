"""From tensors to kernels: grids and the constants that a kernel is compiled for.

Maps are `(B, H, W, channels)`, contiguous: projections 3 C, channel (part * N + n) * D + d.
"""

import math
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from acmix.ops.geometry import output_size
from acmix.ops.triton import table
from acmix.ops.triton.attention import attention_forward
from acmix.ops.triton.attention_backward import attention_key_gradient, attention_query_gradient
from acmix.ops.triton.convolution import convolve, convolve_weight_gradient

# Multiplications and additions fuse, as in every other library; triton 3.10 will not by default.
OPTIONS = {"num_stages": 1, "enable_fp_fusion": True}
# Not in the interpreter; and for other makers' GPUs triton looks at more than kinds.
_COMPILES_ONCE = os.environ.get("TRITON_INTERPRET") != "1" and torch.version.hip is None and torch.cuda.is_available()
# Partial sums of a weight gradient: enough programs to fill a device, few enough to add up quickly.
SPLITS = 64


@dataclass(frozen=True)
class Shape:
    """Sizes of a call: N heads of D channels (`size`) on maps of height x width cells."""

    batch: int
    heads: int
    size: int
    height: int
    width: int
    window: int
    stride: int

    @property
    def output_height(self) -> int:
        """H', rows of the output."""
        return output_size(self.height, self.stride)

    @property
    def output_width(self) -> int:
        """W', columns of the output."""
        return output_size(self.width, self.stride)

    def scalars(self) -> dict[str, int | float]:
        """Arguments of every attention kernel that are neither tensors nor constants."""
        return {
            "height": self.height,
            "width": self.width,
            "output_height": self.output_height,
            "output_width": self.output_width,
            "step_y": 2 / max(self.height - 1, 1),
            "step_x": 2 / max(self.width - 1, 1),
        }


def precision(dtype: torch.dtype) -> str:
    """How products of float32 are made: as PyTorch is set to make those of convolutions, or as good as exact."""
    if dtype != torch.float32:
        return "tf32"
    if torch.version.hip is not None:
        return "ieee"
    # pyrefly: ignore[missing-attribute]
    return "tf32" if torch.backends.cudnn.conv.fp32_precision == "tf32" else "tf32x3"


def attention_constants(
    shape: Shape, dtype: torch.dtype, tile: table.AttentionTile, *, gathers_queries: bool = False
) -> dict[str, Any]:
    """Constants of an attention kernel; `gathers_queries` for the one whose programs own keys."""
    heads = math.gcd(shape.heads, tile.heads)
    constants = {
        "HEADS": heads,
        "GROUPS": shape.heads // heads,
        "SIZE": shape.size,
        "PADDED": table.padded(shape.size),
        "STRIDE": shape.stride,
        "RADIUS": shape.window // 2,
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "REPEATED": min(shape.height, shape.width) <= shape.window // 2,
        "PRECISION": precision(dtype),
    }
    if gathers_queries:
        name, sizes = "QUERY", (shape.output_height, shape.output_width)
        spans = [(length + shape.window - 2) // shape.stride + 1 for length in (tile.rows, tile.columns)]
    else:
        name, sizes = "KEY", (shape.height, shape.width)
        spans = [(length - 1) * shape.stride + shape.window for length in (tile.rows, tile.columns)]
    rows, columns = (min(span, size) for span, size in zip(spans, sizes, strict=True))
    width = triton.next_power_of_2(columns)
    # A product sums over at least 16 cells; rows beyond the last are computed and dropped.
    chunk_rows = max(min(tile.cells // width, triton.next_power_of_2(rows)), 16 // width, 1)
    sizes = {f"{name}_ROWS": rows, f"{name}_COLUMNS": columns, f"{name}_WIDTH": width, "CHUNK_ROWS": chunk_rows}
    return {**constants, **sizes}


def attention_warps(constants: dict[str, Any], tile: table.AttentionTile) -> int:
    """Of a program with the constants' heads, which may be fewer than the tile's."""
    return max(1, tile.warps * constants["HEADS"] // tile.heads)


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


def tile_counts(constants: dict[str, Any], height: int, width: int) -> tuple[int, int]:
    """Tiles that cover a map, along its height and its width."""
    return triton.cdiv(height, constants["ROWS"]), triton.cdiv(width, constants["COLUMNS"])


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


def attention_programs(shape: Shape, constants: dict[str, Any], height: int, width: int) -> int:
    """Programs of an attention kernel that owns the cells of maps of height x width."""
    return shape.batch * math.prod(tile_counts(constants, height, width)) * constants["GROUPS"]


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


_ATTENTION = {"forward": attention_forward, "query": attention_query_gradient, "key": attention_key_gradient}


@lru_cache(maxsize=1024)
def attention_launch(kernel: str, shape: Shape, dtype: torch.dtype, products: str, **given: bool) -> Launch:
    """Of programs that own the queries of all maps, or the keys; `products` as `precision` says."""
    tile = table.attention(kernel, shape.size, shape.stride, dtype)
    constants = attention_constants(shape, dtype, tile, gathers_queries=kernel == "key")
    cells = (shape.height, shape.width) if kernel == "key" else (shape.output_height, shape.output_width)
    numbers = {**shape.scalars(), **_reciprocals(*tile_counts(constants, *cells))}
    programs = attention_programs(shape, constants, *cells)
    arguments = {**numbers, **constants, "PRECISION": products, **given}
    return Launch(_ATTENTION[kernel], programs, attention_warps(constants, tile), arguments)


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
    return delta, of_position, of_rate.sum(0, keepdim=True) if rated else of_rate


def attend_backward_keys(
    given: Attention, log_sum_exp: Tensor, output_gradient: Tensor, delta: Tensor, gradient: Tensor
) -> None:
    """Write the gradients of keys and values."""
    given.launch("key")(*given[1:], output_gradient, log_sum_exp, delta, gradient)


@dataclass(frozen=True)
class Maps:
    """Where channel d of map m of a cell lies: `cell * pixel + m * map + d * channel`; `count` maps."""

    count: int
    pixel: int
    map: int
    channel: int

    @classmethod
    def by_map(cls, count: int, size: int) -> "Maps":
        """Channel m * D + d, as in projections."""
        return cls(count, count * size, size, 1)

    @classmethod
    def by_channel(cls, count: int, size: int) -> "Maps":
        """Channel d * M + m, as in the output of the convolution path."""
        return cls(count, count * size, 1, count)

    def constants(self, name: str, maps: str) -> dict[str, int]:
        """As the kernels call them."""
        return {
            f"{name}_PIXEL": self.pixel,
            f"{name}_MAP": self.map,
            f"{name}_CHANNEL": self.channel,
            maps: self.count,
        }


def tile_sides(cells: int, rows: int, width: int) -> tuple[int, int]:
    """Sides, powers of two, of tiles of so many cells: the fewest tiles that cover a map, of those the widest."""
    sides = [(cells >> shift, 1 << shift) for shift in reversed(range(cells.bit_length()))]
    return min(sides, key=lambda side: triton.cdiv(rows, side[0]) * triton.cdiv(width, side[1]))


def convolution_constants(
    source: Maps,
    target: Maps,
    size: int,
    kernel: int,
    stride: int,
    dtype: torch.dtype,
    tile: table.ConvolutionTile,
    rows: int,
    width: int,
) -> dict[str, Any]:
    """Constants of both convolution kernels, for `rows` of all images of the target together."""
    tile_rows, tile_columns = tile_sides(tile.pixels, rows, width)
    maps = triton.next_power_of_2(target.count)
    channels = min(max(1, tile.channels * tile.maps // max(maps, tile.maps)), triton.next_power_of_2(size))
    paired = min(tile.paired, channels)
    return {
        **source.constants("SOURCE", "MAPS"),
        **target.constants("OUTPUT", "OUTPUT_MAPS"),
        # A product has at least 8 columns.
        "PADDED_MAPS": max(8 // paired, maps),
        "SIZE": size,
        "KERNEL": kernel,
        "STRIDE": stride,
        "ROWS": tile_rows,
        "COLUMNS": tile_columns,
        "CHANNELS": channels,
        "PAIRED": paired,
        "CHUNK": tile.terms,
        "PRECISION": precision(dtype),
    }


def _sizes(source: Tensor, target: Tensor) -> dict[str, int]:
    batch, output_height, output_width = target.shape[:3]
    return {
        "rows": batch * output_height,
        "height": source.shape[1],
        "width": source.shape[2],
        "output_height": output_height,
        "output_width": output_width,
    }


def convolve_constants(
    constants: dict[str, Any], tile: table.ConvolutionTile, *, shared: bool, transposed: bool
) -> dict[str, Any]:
    """Constants of the convolution itself, besides those of both kernels."""
    maps = min(tile.terms, triton.next_power_of_2(constants["MAPS"]))
    return {**constants, "CHUNK_MAPS": maps, "SHARED": shared, "TRANSPOSED": transposed}


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
    kernel = weight.shape[1]
    sizes = _sizes(source, output)
    # Cells that see the same taps of a transposed kernel are `stride` apart.
    phases = stride if transposed else 1
    height, width = triton.cdiv(output.shape[1], phases), triton.cdiv(output.shape[2], phases)
    sizes["rows"] = output.shape[0] * height
    constants = convolution_constants(*layouts, size, kernel, stride, source.dtype, tile, sizes["rows"], width)
    constants = convolve_constants(constants, tile, shared=weight.shape[0] == 1, transposed=transposed)
    tiles_y, tiles_x = tile_counts(constants, sizes["rows"], width)
    programs = phases**2 * tiles_y * tiles_x * triton.cdiv(size, constants["CHANNELS"])
    arguments = {**sizes, **_reciprocals(height, tiles_x), **constants}
    Launch(convolve, programs, tile.warps, arguments)(source, weight, output)


def convolution_weight_gradient(
    source: Tensor, output_gradient: Tensor, layouts: tuple[Maps, Maps], size: int, kernel: int, stride: int
) -> Tensor:
    """Gradient of the weight of `convolve_maps`, `(D, k, k, maps of the source, maps of the output)`, in float32."""
    tile = table.convolution("weight", stride, source.dtype)
    sizes = _sizes(source, output_gradient)
    extent = sizes["rows"], sizes["output_width"]
    constants = convolution_constants(*layouts, size, kernel, stride, source.dtype, tile, *extent)
    tiles_y, tiles_x = tile_counts(constants, *extent)
    splits = min(SPLITS, tiles_y * tiles_x)
    maps = (layouts[0].count, layouts[1].count)
    partial = source.new_empty((splits, size, kernel, kernel, *maps), dtype=torch.float32)
    chunks = triton.cdiv(kernel**2 * maps[0], tile.terms)
    programs = splits * triton.cdiv(size, constants["CHANNELS"]) * chunks
    numbers = {**sizes, **_reciprocals(sizes["output_height"], tiles_x), "tiles": tiles_y * tiles_x, "splits": splits}
    launch = Launch(convolve_weight_gradient, programs, tile.warps, {**numbers, **constants})
    launch(source, output_gradient, partial)
    return partial.sum(0)
