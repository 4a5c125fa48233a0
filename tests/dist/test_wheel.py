"""The wheel that `make dist` makes, in a fresh environment with the oldest torch, and beside the newest: its kernels run."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.dist

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OLDEST_TORCH = next(name for name in PROJECT["dependencies"] if name.startswith("torch>=")).replace(">=", "==")

# Every dtype and stride, forward and backward, beside the definition in float64, by the one tolerance of the tests.
SCRIPT = """
import itertools, pathlib, sys
import torch
from acmix import ops
from tests.ops.problems import Problem, assert_mix_as_exact_as_eager

assert pathlib.Path(ops.__file__).is_relative_to(sys.argv[1]), ops.__file__
assert ops.why_not("cpu") is None, ops.why_not("cpu")
dtypes, strides = (torch.float32, torch.float64, torch.float16, torch.bfloat16), (1, 2)
for dtype, stride, layout in itertools.product(dtypes, strides, ("contiguous", "channels_last")):
    assert_mix_as_exact_as_eager(Problem(2, 4, 8, 13, 18, 7, 3, stride, 1, dtype, layout, 0), "cpu")
print(torch.__version__)
"""


@pytest.fixture(scope="module")
def wheel():
    (wheel,) = (ROOT / "dist").glob("*.whl")
    return wheel


def torch_that_ran(python, folder, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [str(python), "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return done.stdout.split("+")[0].strip()


def test_one_wheel_serves_every_python_and_the_linux_of_torch(wheel):
    name, version, *tags = wheel.stem.split("-")
    assert (name, version) == (PROJECT["name"], PROJECT["version"])
    assert tags == ["cp311", "abi3", f"manylinux_2_28_{os.uname().machine}"]


def test_the_wheel_holds_the_library_and_no_source_of_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "acmix/ops/cpu/_stage2.so" in names
    assert not [name for name in names if "csrc" in name or "not_built" in name or name.startswith("tests/")]
    data = {path.relative_to(ROOT / "src").as_posix() for path in ROOT.glob("src/acmix/**/*.[hy][ta]ml")}
    assert data
    assert data <= set(names)


def test_kernels_run_with_the_oldest_torch(wheel, tmp_path):
    uv = [str(Path(sys.executable).with_name("uv"))]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, "fresh"], cwd=tmp_path, check=True)  # noqa: S603
    python = tmp_path / "fresh/bin/python"
    # What the layer needs, no more; hypothesis is the tests'.
    for packages in ([OLDEST_TORCH, "numpy", "hypothesis", "pytest"], ["--no-deps", str(wheel)]):
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), *packages], check=True)  # noqa: S603
    assert torch_that_ran(python, tmp_path) == OLDEST_TORCH.removeprefix("torch==") + ".0"


def test_kernels_run_with_the_newest_torch(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    assert torch_that_ran(sys.executable, tmp_path, PYTHONPATH=path) == torch.__version__.split("+")[0]
