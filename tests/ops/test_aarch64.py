"""The compiled kernels on an aarch64 processor, whose vectors have 128 bits: cross-compiled, and run in an emulator.

PyTorch is not there: calls are recorded here, and a program replays them (aarch64/replay.cpp).
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from acmix import ops
from tests.numerics import DTYPES, assert_as_exact_as_eager
from tests.ops.problems import Problem, stage_one

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
pytestmark = pytest.mark.aarch64
HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "src/acmix/ops/cpu/csrc"
# As setup.py compiles, and warnings are errors.
FLAGS = ["-std=c++20", "-O2", "-ftree-vectorize", "-Wall", "-Wextra", "-Wno-psabi", "-Werror", "-DACMIX_ISA=baseline"]
ORDER = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SIZES = [
    # batch, heads, head size, height, width, window, kernel, stride, dilation
    (1, 4, 16, 9, 11, 7, 3, 1, 1),
    (2, 4, 8, 17, 5, 5, 3, 2, 1),
    (1, 2, 19, 7, 13, 7, 5, 1, 1),
    (3, 1, 3, 1, 1, 9, 3, 1, 1),
    (1, 8, 4, 10, 24, 3, 1, 3, 1),
    (2, 3, 1, 6, 7, 1, 3, 1, 1),
]


class Recorder(TorchDispatchMode):
    """Keeps every call of a compiled operator, with its results."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        results = function(*arguments, **(keywords or {}))
        if function.namespace == "acmix":
            assert not keywords
            copies = [each.clone() if isinstance(each, torch.Tensor) else each for each in arguments]
            self.calls.append((function, copies, results if isinstance(results, tuple) else (results,)))
        return results


def record():
    """Calls of every operator, forward and backward, over shapes, dtypes and layouts."""
    recorder = Recorder()
    # Losses are an eighth of a sum: gradients stay within float16.
    for seed, (sizes, dtype) in enumerate((sizes, dtype) for sizes in SIZES for dtype in DTYPES):
        layout = ("contiguous", "channels_last", "sliced")[seed % 3]
        problem = Problem(*sizes, dtype=dtype, layout=layout, seed=seed)
        projections, *weights = problem.tensors()
        x, weight, bias = stage_one(problem, 6)
        keywords = problem.keywords() | {"backend": "cpu"}
        with recorder:
            maps = [each.detach().requires_grad_() for each in (projections, *weights)]
            ops.mix(*maps, **keywords).float().square().sum().div(8).backward()
            stages = [each.detach().requires_grad_() for each in (x, weight, bias, *weights)]
            output = ops.project_and_mix(*stages, heads=problem.heads, **keywords)
            output.float().square().sum().div(8).backward()
            query, key, value = (each.detach().requires_grad_() for each in projections.chunk(3, 1))
            attention = {name: value for name, value in keywords.items() if name != "kernel"}
            ops.local_attention(query, key, value, **attention).float().square().sum().div(8).backward()
    return recorder.calls


def encoded(call):
    function, arguments, results = call
    name = function._schema.name.removeprefix("acmix::").encode()
    yield np.int64(len(name)).tobytes() + name + np.int64([len(arguments), len(results)]).tobytes()
    for kind, value in zip((each.type for each in function._schema.arguments), arguments, strict=True):
        if value is None:
            yield np.int64(ord("N")).tobytes()
        elif isinstance(value, torch.Tensor):
            optional = str(kind).startswith("Optional")
            # From its first element to its last.
            extent = 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
            storage = torch.as_strided(value, (extent,), (1,)).contiguous().view(torch.uint8).numpy().tobytes()
            head = [ord("O" if optional else "T"), ORDER.index(value.dtype), value.ndim, *value.shape, *value.stride()]
            yield np.int64([*head, len(storage)]).tobytes() + storage
        else:
            yield np.int64([ord("I"), value]).tobytes()


def decoded(content, count):
    """So many tensors, and what is left."""
    tensors = []
    for _ in range(count):
        dtype, axes = np.frombuffer(content, np.int64, 2)
        shape = np.frombuffer(content, np.int64, axes, 16).tolist()
        dtype, content = ORDER[dtype], content[16 + 8 * axes :]
        size = int(np.prod(shape)) * dtype.itemsize
        tensors.append(torch.frombuffer(bytearray(content[:size]), dtype=torch.uint8).view(dtype).view(shape))
        content = content[size:]
    return tensors, content


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aarch64")
    # All but what only a shared libstdc++ may lack.
    names = ("kernels.cpp", "dispatch.cpp", "workspace.cpp", "operators/operators.cpp")
    files = [*(SOURCES / name for name in names), HERE / "aarch64/replay.cpp"]
    command = [COMPILER, *FLAGS, "-iquote", SOURCES, *files, "-static", "-pthread", "-o", folder / "replay"]
    subprocess.run(command, check=True)  # noqa: S603
    return folder / "replay"


def test_every_operator_is_as_exact_as_here(program, tmp_path):
    calls = record()
    assert {call[0]._schema.name for call in calls} == {
        f"acmix::{name}{backward}"
        for name in ("local_attention", "mix", "project_and_mix")
        for backward in ("", "_backward")
    }
    (tmp_path / "calls").write_bytes(
        np.int64(len(calls)).tobytes() + b"".join(part for call in calls for part in encoded(call))
    )
    command = [EMULATOR, str(program), str(tmp_path / "calls"), str(tmp_path / "results")]
    subprocess.run(command, check=True)  # noqa: S603
    content = (tmp_path / "results").read_bytes()
    for function, arguments, here in calls:
        found, content = decoded(content, len(here))
        exact = function(*(each.double() if isinstance(each, torch.Tensor) else each for each in arguments))
        exact = exact if isinstance(exact, tuple) else (exact,)
        for place, (one, other, wide) in enumerate(zip(found, here, exact, strict=True)):
            assert_as_exact_as_eager(f"{function} {place}", one, other, wide.double())
    assert content == b""
