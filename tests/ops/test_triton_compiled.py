"""The Triton kernels compiled without a GPU: nothing spills, vectors load whole, no more instructions than recorded."""

import importlib.util
import json
import os
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1",
    reason="triton is missing or interprets",
)
RECORD = (Path(__file__).parents[2] / "benchmarks/results/triton.json").read_text()
TABLE = json.loads(RECORD)


def drawn():
    """Kernels of the table that are compiled here, others whenever the record changes: each kind once, and spills.

    Every kernel, every dtype and every generation of GPUs is among them; `benchmarks/triton_table.py` compiles all.
    """
    names = random.Random(RECORD).sample(list(TABLE["kernels"]), len(TABLE["kernels"]))  # noqa: S311
    sample, kinds = [], set()
    for name in names:
        kernel, _, _, dtype, generation = name.split()
        if not {kernel, dtype, generation} <= kinds:
            sample.append(name)
            kinds |= {kernel, dtype, generation}
    return dict.fromkeys([*sample, *[name for name in names if TABLE["kernels"][name]["stack"]][:2]])


def largest_stack(name):
    """Bytes that a kernel may spill.

    Float32 in three passes keeps vectors of 128 channels in two parts, more than there are registers, and there is no
    smaller product; more warps a head compute much again. Elsewhere it is up to eight registers, and smaller tiles,
    where there are any, issue more instructions. Of 16 bits an H200 measured as fastest what spills more: one warp that
    waits for nobody (benchmarks/results/tiles-h200.json).
    """
    wide = "D=128" in name.split()
    if "fp32" in name.split():
        return 256 if wide else 32
    return 1088 if wide else 512


def test_the_record_has_every_kernel_of_the_table():
    from acmix.ops.triton.compiled import variants

    assert list(TABLE["kernels"]) == [variant.name for variant in variants()]


def test_no_kernel_on_record_spills_more_than_it_may():
    assert [name for name, usage in TABLE["kernels"].items() if usage["stack"] > largest_stack(name)] == []


def test_no_kernel_on_record_needs_more_memory_than_small_gpus_have():
    # A block of sm_86 and sm_89 has 99 KiB of shared memory.
    assert [name for name, usage in TABLE["kernels"].items() if usage["shared"] > 99 * 1024] == []


@pytest.mark.parametrize("name", drawn())
def test_compiles_as_recorded(name):
    import triton

    from acmix.ops.triton.compiled import compile_variant, variants

    (variant,) = (variant for variant in variants() if variant.name == name)
    usage, recorded = compile_variant(variant), TABLE["kernels"][name]
    assert usage.wide_loads >= recorded["wide_loads"]
    # Another version of triton may compile a little worse.
    same = triton.__version__ == TABLE["triton"]
    assert usage.instructions <= (1.02 if same else 1.25) * recorded["instructions"]
    assert usage.stack <= (recorded["stack"] if same else largest_stack(name))


class NoGPU:
    """What triton asks of a driver in order to compile as launches do; -1 is nobody's device."""

    def get_current_device(self):
        return -1

    def get_current_stream(self, _):
        return 0

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


@pytest.fixture
def compiled(monkeypatch):
    """Kernels of launches, in their order, which are compiled and do not run."""
    import triton

    from acmix.ops.triton import launch

    monkeypatch.setattr(triton.runtime.driver, "_active", NoGPU())
    compiled = []

    def compile_only(asked, *tensors):
        tensors = [tensors[0] if tensor is None else tensor for tensor in tensors]
        options = {"grid": (1,), "num_warps": asked.warps, **launch.OPTIONS}
        compiled.append(asked.kernel.warmup(*tensors, **asked.arguments, **options))

    monkeypatch.setattr(launch.Launch, "__call__", compile_only)
    return compiled


def forward(height, width, size=16):
    from acmix.ops.triton import operators

    projections = torch.empty(2, height, width, 12, size, dtype=torch.bfloat16)
    addend = operators._convolve(projections, torch.empty(size, 4, 12, 3, 3), None, 1)
    operators._attend(projections, torch.empty(size, 2), torch.empty(1), addend, addend[0], 7, 1)


def test_launches_compile_for_one_cell_and_not_anew_for_multiples_of_16(compiled):
    forward(1, 9)
    assert [kernel.name for kernel in compiled] == ["convolve", "attention_forward"]
    forward(56, 56)
    forward(64, 56)
    assert all(first is second for first, second in zip(compiled[2:4], compiled[4:], strict=True))


def test_who_watches_triton_compile_is_told_the_plan(compiled, monkeypatch):
    import triton

    plans = []

    def watch(compile, **_):  # noqa: A002
        plans.append(json.loads(compile["specialization_data"])["constant_vals"][0])

    monkeypatch.setattr(triton.knobs.runtime, "jit_post_compile_hook", watch)
    # Heads of a size that no other test has, so that both kernels are compiled anew.
    forward(3, 5, size=11)
    assert len(plans) == len(compiled) == 2
    assert all(11 in plan for plan in plans)


# A listing of nvdisasm: a branch around two instructions, a loop of three, a way past a second loop, an early exit.
LISTING = """
.text.kernel:
        /*0000*/                   S2R R0, SR_TID.X ;
        /*0010*/              @!P0 BRA `(.L_x_0) ;
        /*0020*/                   MOV R1, R2 ;
        /*0030*/                   NOP ;
        /*0040*/                   MOV R1, R2 ;
.L_x_0:
        /*0050*/              @!UP0 UIADD3 UR4, UR4, 0x1, URZ ;
        /*0060*/                   HMMA.16816.F32.BF16 R4, R4, R8, RZ ;
        /*0070*/               @P1 BRA `(.L_x_0) ;
        /*0080*/                   BRA P2, `(.L_x_2) ;
.L_x_1:
        /*0090*/                   FADD R1, R2, R3 ;
        /*00a0*/               @P0 BRA `(.L_x_1) ;
        /*00b0*/                   BRA `(.L_x_2) ;
        /*00c0*/                   FADD R1, R2, R3 ;
.L_x_2:
        /*00d0*/               @P4 EXIT ;
        /*00e0*/                   STG.E desc[UR6][R2.64], R11 ;
        /*00f0*/                   EXIT ;
.L_x_3:
        /*0100*/                   BRA `(.L_x_3);
"""


@pytest.mark.parametrize(("trips", "expected"), [(1.0, 10), (2.5, 10 + 1.5 * 5)])
def test_fewest_instructions_of_a_listing(trips, expected):
    from acmix.ops.triton import assembly

    code = assembly.instructions(LISTING)
    assert [instruction.name for instruction in code].count("NOP") == 0
    assert len(code) == 16
    assert assembly.fewest(code, trips) == expected


def test_warps_of_a_launch_issue_no_more_than_their_code_and_its_loops():
    from acmix.ops.triton.compiled import Variant, least_issued

    variant = Variant("convolve", 16, 2, "fp16", 90)
    # 196 tiles of 64 cells, 4 warps; 9 taps.
    warps, recorded = 196 * 4, TABLE["kernels"][variant.name]["instructions"]
    assert 2 * recorded < least_issued(variant, 16, 56) / warps < 9 * recorded


@given(divisor=st.integers(1, 2**31 - 1), number=st.integers(0, 2**31 - 1))
def test_quotients_are_products(divisor, number):
    from acmix.ops.triton.launch import reciprocal

    for numerator in (number, number // divisor * divisor, max(number // divisor * divisor - 1, 0)):
        multiplier, shift = reciprocal(divisor)
        assert multiplier < 2**32
        assert (2 * numerator * multiplier >> 32) >> shift == numerator // divisor
