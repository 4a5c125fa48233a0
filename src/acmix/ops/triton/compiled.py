"""Kernels compiled ahead of time, without a GPU: what each needs of one, for the table and its tests."""

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

from acmix.ops.triton import launch, table
from acmix.ops.triton.attention import attention_forward
from acmix.ops.triton.attention_backward import attention_key_gradient, attention_query_gradient
from acmix.ops.triton.convolution import convolve, convolve_weight_gradient

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SIZES = (16, 32, 64, 128)
# Generations of GPUs and dtypes on record; each pair is thirty kernels, minutes to compile.
TARGETS = tuple((capability, dtype) for capability in (80, 90, 100) for dtype in ("bf16", "fp16", "fp32"))
_ATTENTION = {"forward": attention_forward, "query": attention_query_gradient, "key": attention_key_gradient}
_MAPS = ("projections", "output", "output_gradient", "gradient", "source", "weight")
_INTEGERS = ("height", "width", "output_height", "output_width", "pixels", "splits")
_FLOATS = ("step_y", "step_x", "scale", "inverse_scale")


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
            yield from (Variant(kernel, size, stride, dtype, capability) for kernel in _ATTENTION for size in SIZES)
            yield from (
                Variant(kernel, SIZES[0], stride, dtype, capability) for kernel in ("convolve", "data", "weight")
            )


def compile_variant(variant: Variant, tile: Any = None) -> Usage:
    """Compile as `launch` would for 4 heads, window 7 and kernel 3 on maps of 56 x 56; float32 in three passes."""
    dtype = DTYPES[variant.dtype]
    if variant.kernel in _ATTENTION:
        function = _ATTENTION[variant.kernel]
        tile = tile or table.attention(variant.kernel, variant.size, variant.stride, dtype)
        shape = launch.Shape(1, 4, variant.size, 56, 56, 7, variant.stride)
        constants = launch.attention_constants(shape, dtype, tile, mixed=True, gathers_queries=variant.kernel == "key")
        warps = constants["HEADS"] * tile.warps
    else:
        function = convolve_weight_gradient if variant.kernel == "weight" else convolve
        tile = tile or table.convolution("weight" if variant.kernel == "weight" else "convolve", dtype)
        source, target = launch.Maps.by_map(12, variant.size), launch.Maps.by_channel(4, variant.size)
        transposed = variant.kernel == "data"
        if transposed:
            source, target = target, source
        constants = launch.convolution_constants(source, target, variant.size, 3, variant.stride, dtype, tile)
        if function is convolve:
            constants.update(SHARED=False, TRANSPOSED=transposed)
        warps = tile.warps
    if variant.dtype == "fp32":
        constants["PRECISION"] = "tf32x3"
    return _compile(function, constants, variant, warps)


def _compile(function: Any, constants: dict[str, Any], variant: Variant, warps: int) -> Usage:
    types = dict.fromkeys(_MAPS, f"*{variant.dtype}")
    types.update(dict.fromkeys(_INTEGERS, "i32"), **dict.fromkeys(_FLOATS, "fp32"))
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
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump reports no registers for {variant.name}: {usage}")
    instructions = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", code, re.MULTILINE)
    instructions = [name for name in instructions if name != "NOP"]
    wide = sum(name.startswith("LDG") and ".128" in name for name in instructions)
    return Usage(int(found[1]), int(found[2]), binary.metadata.shared, len(instructions), wide)


def _run(*command: object) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout  # noqa: S603
