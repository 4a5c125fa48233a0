"""Every build of the compiled kernels that the processor can run; all other tests hold the one in use.

A selection of them runs with each of the others in a process of its own: which build runs is decided once per process.
"""

import functools
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from acmix import ops

pytestmark = pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler to build with")

ROOT = Path(__file__).parents[2]
EMULATED = Path(__file__).parent / "emulated"
BUILDS = ("amx", "avx512_bf16", "avx512", "avx2", "baseline")
# Names, no patterns: pytest fails where one is no longer there.
SELECTED = (
    "test_backends.py::test_all_stages_are_as_exact_as_eager[cpu]",
    "test_backends.py::test_mix_is_as_exact_as_eager[cpu]",
    "test_backends.py::test_paths_alone_are_as_exact_as_eager[cpu]",
    "test_backends.py::test_composed_kernels_are_as_exact_as_eager[cpu]",
    "test_cpu.py::test_projections_of_bands_and_strips_meet",
    "test_cpu.py::test_strips_of_each_path_alone",
    "test_cpu.py::test_scratch_shows_nothing_of_the_task_before",
    "test_cpu.py::test_scratch_of_projections_shows_nothing_of_the_task_before",
    "test_cpu.py::test_images_projected_together_do_not_meet",
    "test_cpu.py::test_gradcheck_of_a_layer",
    "test_ends.py::test_ends_are_those_of_passes_of_their_own",
    "test_ends.py::test_numbers_of_every_kind",
    "test_layers.py::test_layers_of_the_kernels",
    "test_projections.py",
    "test_values.py::test_logits_of_any_size_are_as_exact_as_eager[cpu]",
    "test_values.py::test_attention_of_any_size_is_a_mean[cpu]",
    "test_values.py::test_layers_of_any_size_are_finite[cpu]",
    "test_values.py::test_one_number_that_is_not_finite_stays_where_it_is_seen",
    "test_values.py::test_a_key_that_dominates_has_no_slope",
    "test_values.py::test_raw_images_of_16_bits",
)
# Of the many, every stride and every layout once, every shape in both widths of numbers, layers in the usual ones.
FEWER = (
    "(not bands_and_strips_meet or 1-sliced] or 2-channels_last] or 3-contiguous] or 3-channels_last-dtype or "
    "3-sliced-dtype) and (not layers_of_the_kernels or dtype1 or dtype3)"
)


@pytest.fixture(autouse=True)
def _kernels_are_built():
    assert ops.why_not("cpu") is None


def process(wanted, *arguments, package=None):
    environment = {**os.environ, "ACMIX_INSTRUCTIONS": wanted}
    if package:
        environment["PYTHONPATH"] = str(package)
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)  # noqa: S603


@functools.cache
def used(wanted, package=None):
    """What runs where `wanted` is asked for, and why not if nothing does."""
    script = "from acmix import ops; print(ops.cpu.instructions(), ops.why_not('cpu'))"
    done = process(wanted, "-c", script, package=package)
    assert done.returncode == 0, done.stderr
    name, _, reason = done.stdout.strip().partition(" ")
    return name, reason


def assert_selected_tests_pass(wanted, package=None):
    tests = [f"tests/ops/{name}" for name in SELECTED]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", FEWER]
    done = process(wanted, "-m", "pytest", *options, *tests, package=package)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.splitlines()[-1]
    assert re.match(r"[1-9]\d* passed", summary), done.stdout
    assert "skipped" not in summary, done.stdout


@pytest.mark.parametrize("wanted", BUILDS)
def test_every_build_is_as_exact_as_eager(wanted):
    if wanted == ops.cpu.instructions():
        pytest.skip(f"{wanted} is in use: all other tests hold it")
    if used(wanted)[0] != wanted:
        pytest.skip(f"the processor has no {wanted}")
    assert_selected_tests_pass(wanted)


@pytest.fixture(scope="module")
def emulating_package(tmp_path_factory):
    """The package with kernels for which a processor with AVX2 emulates all others (emulated/)."""
    folder = tmp_path_factory.mktemp("emulating")
    compiler = f"{shlex.join([sys.executable, str(EMULATED / 'compiler.py')])} {os.environ.get('CXX', 'g++')}"
    environment = {**os.environ, "CXX": compiler, "ACMIX_REQUIRE_KERNELS": "1"}
    built = ["--build-temp", str(folder / "objects"), "--build-lib", str(folder)]
    command = [sys.executable, "setup.py", "--quiet", "build_ext", *built]
    subprocess.run(command, check=True, cwd=ROOT, env=environment)  # noqa: S603
    shutil.copytree(ROOT / "src", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.so"))
    return folder


@pytest.mark.emulated
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="there is nothing to emulate")
@pytest.mark.parametrize("wanted", ["amx", "avx512_bf16", "avx512"])
def test_every_emulated_build_is_as_exact_as_eager(wanted, emulating_package):
    if used("")[0] == "baseline":
        pytest.skip("the processor has no AVX2 to emulate them on")
    assert used(wanted, emulating_package) == (wanted, "None")
    assert_selected_tests_pass(wanted, emulating_package)


def test_a_build_is_a_limit():
    wanted = os.environ.get("ACMIX_INSTRUCTIONS") or used("")[0]
    assert ops.cpu.instructions() in BUILDS[BUILDS.index(wanted) :]
    assert used("baseline") == ("baseline", "None")


def test_an_unknown_build_is_refused():
    reason = "ACMIX_INSTRUCTIONS must be amx, avx512_bf16, avx512, avx2 or baseline, or unset, got 'avx1024'"
    assert used("avx1024") == ("None", reason)


def test_info_names_the_build():
    done = process("baseline", "-m", "acmix", "info", "acmix_resnet26")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "the compiled CPU kernels use baseline"
