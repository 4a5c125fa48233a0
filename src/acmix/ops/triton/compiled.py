"""Kernels compiled ahead of time, without a GPU: what each needs of one, for the table and its tests."""

import math
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from acmix.ops.geometry import output_size
from acmix.ops.triton import assembly, launch, plans, table
from acmix.ops.triton.convolution import convolve, convolve_weight_gradient

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SIZES = (16, 32, 64, 128)
# Generations of GPUs and dtypes on record; each pair is thirty kernels, minutes to compile.
TARGETS = tuple((capability, dtype) for capability in (80, 90, 100) for dtype in ("bf16", "fp16", "fp32"))
_MAPS = ("projections", "addend", "offset", "output", "output_gradient", "gradient", "source", "weight")
_INTEGERS = ("height", "width", "output_height", "output_width", "rows", "tiles", "x_shift", "y_shift", "splits")
_LONG = ("x_multiplier", "y_multiplier")
_FLOATS = ("step_y", "step_x")


@dataclass(frozen=True)
class Variant:
    """A kernel and what it is compiled for."""

    kernel: str
    size: int
    stride: int
    dtype: str
    capability: int

    @property
    def name(self) -> str:
        """Unique, for people and files."""
        return f"{self.kernel} D={self.size} stride={self.stride} {self.dtype} sm_{self.capability}"


@dataclass(frozen=True)
class Usage:
    """What a compiled kernel needs: a thread's registers and stack (spilled registers), shared bytes, instructions."""

    registers: int
    stack: int
    shared: int
    instructions: int
    wide_loads: int


def variants() -> Iterator[Variant]:
    """Every kernel of the table, for the `TARGETS`."""
    for capability, dtype in TARGETS:
        for stride in (1, 2):
            yield from (
                Variant(kernel, size, stride, dtype, capability) for kernel in launch.ATTENTION for size in SIZES
            )
            yield from (
                Variant(kernel, SIZES[0], stride, dtype, capability) for kernel in ("convolve", "data", "weight")
            )


def compile_variant(variant: Variant, tile: Any = None) -> Usage:
    """Compile as `launch` would for 4 heads, window 7 and kernel 3 on maps of 56 x 56; float32 in three passes."""
    products = "tf32x3" if variant.dtype == "fp32" else plans.precision(DTYPES[variant.dtype])
    usage, shared, code = _compile(variant, *_plan(variant, 56, 1, tile, products))
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump reports no registers for {variant.name}: {usage}")
    names = [instruction.name for instruction in assembly.instructions(code)]
    wide = sum(name.startswith("LDG") and ".128" in name for name in names)
    return Usage(int(found[1]), int(found[2]), shared, len(names), wide)


def tile_of(variant: Variant) -> Any:
    """The table's tile."""
    if variant.kernel in launch.ATTENTION:
        return table.attention(variant.kernel, variant.size, variant.stride, DTYPES[variant.dtype])
    return table.convolution(variant.kernel, variant.stride, DTYPES[variant.dtype])


def least_issued(variant: Variant, batch: int, side: int, tile: Any = None) -> float:
    """Instructions that the warps of a launch issue at least, all together.

    Args:
        variant: The kernel, of a layer of 4 heads, window 7 and kernel 3.
        batch: Images.
        side: Of the square maps that the layer reads.
        tile: In place of the table's.
    """
    plan, warps = _plan(variant, side, batch, tile, plans.precision(DTYPES[variant.dtype]))
    programs, trips = _programs(variant, plan, batch, side)
    _, _, code = _compile(variant, plan, warps)
    return programs * warps * assembly.fewest(assembly.instructions(code), trips)


def _programs(
    variant: Variant, plan: plans.AttentionPlan | plans.ConvolutionPlan, batch: int, side: int
) -> tuple[int, float]:
    """Programs of a launch, and how often each runs its loop."""
    cells = output_size(side, variant.stride)
    if isinstance(plan, plans.AttentionPlan):
        owned = side if variant.kernel == "key" else cells
        return launch.attention_programs(plan, batch, owned, owned), triton.cdiv(plan.halo_rows, plan.chunk_rows)
    # A transposed kernel's tiles have cells of one of its phases.
    phases = variant.stride if variant.kernel == "data" else 1
    tiles = math.prod(plans.tile_counts(plan, batch * cells, cells))
    taps, maps = triton.cdiv(plan.kernel, phases) ** 2, plan.source.number
    if variant.kernel == "weight":
        splits = min(launch.SPLITS, tiles)
        return splits * plan.groups * triton.cdiv(taps * maps, plan.chunk), tiles / splits
    trips = triton.cdiv(taps, plan.chunk // plan.chunk_maps) * triton.cdiv(maps, plan.chunk_maps)
    return phases**2 * tiles * plan.groups, trips


def _plan(
    variant: Variant, side: int, batch: int, tile: Any, products: str
) -> tuple[plans.AttentionPlan | plans.ConvolutionPlan, int]:
    """What `launch` compiles a kernel for, and its warps."""
    tile = tile or tile_of(variant)
    if variant.kernel in launch.ATTENTION:
        shape = plans.Shape(1, 4, variant.size, side, side, 7, variant.stride)
        plan = plans.plan_attention(shape, tile, products, gathers_queries=variant.kernel == "key")
        return plan, plans.attention_warps(plan, tile)
    layouts = plans.Maps.by_map(12, variant.size), plans.Maps.by_channel(4, variant.size)
    if variant.kernel == "data":
        layouts = layouts[::-1]
    cells = output_size(side, variant.stride)
    extent = batch * cells, cells
    return plans.plan_convolution(layouts, variant.size, 3, variant.stride, tile, extent, products), tile.warps


def _compile(variant: Variant, plan: object, warps: int) -> tuple[str, int, str]:
    """Resources as cuobjdump says them, shared bytes, and the listing of nvdisasm; all there may be is given."""
    function: Any = launch.ATTENTION.get(
        variant.kernel, convolve_weight_gradient if variant.kernel == "weight" else convolve
    )
    flags = {"POSITIONED": True, "RATED": True, "ADDED": True, "OFFSET": True}
    flags.update(SHARED=False, TRANSPOSED=variant.kernel == "data")
    constants = {"PLAN": plan, **{name: flag for name, flag in flags.items() if name in function.arg_names}}
    types = dict.fromkeys(_MAPS, f"*{variant.dtype}")
    types.update({**dict.fromkeys(_INTEGERS, "i32"), **dict.fromkeys(_LONG, "i64"), **dict.fromkeys(_FLOATS, "fp32")})
    signature = {name: "constexpr" if name in constants else types.get(name, "*fp32") for name in function.arg_names}
    pointers = [index for index, name in enumerate(function.arg_names) if signature[name].startswith("*")]
    source = ASTSource(
        fn=function,
        signature=signature,
        constexprs=constants,
        attrs={(index,): [["tt.divisibility", 16]] for index in pointers},
    )
    binary = triton.compile(
        source,
        target=GPUTarget("cuda", variant.capability, 32),
        options={"num_warps": warps, **launch.OPTIONS},
    )
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage = _run(tools / "cuobjdump", "--dump-resource-usage", file.name)
        code = _run(tools / "nvdisasm", "--print-code", file.name)
    return usage, binary.metadata.shared, code


def _run(*command: object) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout  # noqa: S603
