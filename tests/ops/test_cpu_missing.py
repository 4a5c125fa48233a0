"""What an installation says that has no compiled kernels: the true reason, and once at first use what is slow."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import acmix
from acmix.ops import cpu

ROOT = Path(__file__).parents[2]


def build(folder, **environment):
    """What setup.py leaves in a build folder."""
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", str(folder)]
    command += ["--build-temp", str(folder / "objects")]
    done = subprocess.run(  # noqa: S603
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    return done, folder / "acmix/ops/cpu"


def test_a_build_without_a_compiler_leaves_the_reason(tmp_path):
    done, folder = build(tmp_path, CXX="no-such-compiler")
    reason = "the C++ compiler no-such-compiler cannot be run (No such file or directory)"
    assert done.returncode == 0
    assert reason in done.stderr
    assert cpu._load(folder) == (None, cpu._why_not_built(folder))
    assert cpu._why_not_built(folder).startswith(
        f"its library was not built when acmix was installed: {reason}; with g++"
    )


def test_a_build_that_must_have_kernels_stops_without(tmp_path):
    done, _ = build(tmp_path, CXX="no-such-compiler", ACMIX_REQUIRE_KERNELS="1")
    assert done.returncode != 0
    assert "no-such-compiler cannot be run" in done.stderr


@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler that could fail")
def test_a_compiler_that_fails_is_quoted(tmp_path):
    done, folder = build(tmp_path, CXXFLAGS="-std=c++no-such-year")
    assert done.returncode == 0
    assert "failed: " in cpu._why_not_built(folder)
    assert "no-such-year" in cpu._why_not_built(folder)


@pytest.mark.parametrize("before", ["", "env "])
def test_a_compiler_may_have_another_before_it_and_options(tmp_path, before):
    command = f"{before}{shlex.quote(sys.executable)} -c 'raise SystemExit(\"error: it was called\")'"
    _, folder = build(tmp_path, CXX=command)
    assert f"{command} failed: error: it was called; with g++" in cpu._why_not_built(folder).replace("'\"'\"'", "'")


def test_a_source_tree_is_told_how_to_build(tmp_path):
    assert cpu._load(tmp_path)[1].endswith("build it with `python setup.py build_ext --inplace`")


def test_a_library_that_does_not_load_is_quoted(tmp_path):
    (tmp_path / "_stage2.so").write_bytes(b"no library")
    assert cpu._load(tmp_path)[1].startswith("its library does not load with torch ")


SCRIPT = """
import sys, torch, acmix
from acmix import ops
layer, x = acmix.ACmix(4, 8), torch.randn(1, 4, 5, 5)
print("imported", file=sys.stderr)
acmix.ACmix(4, 8, backend="portable")(x)
print("asked for by name", file=sys.stderr)
layer(x), layer(x), acmix.ACmix(4, 8)(x)
print(ops.why_not("cpu"))
print(ops.backends())
"""


def test_missing_kernels_are_told_once_at_first_use(tmp_path):
    shutil.copytree(Path(acmix.__file__).parent, tmp_path / "acmix", ignore=shutil.ignore_patterns("*.so", "csrc"))
    (tmp_path / "acmix/ops/cpu/not_built.txt").write_text(
        "the C++ compiler g++ cannot be run (No such file or directory)"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "always", "-c", SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    reason, backends = done.stdout.splitlines()
    assert "g++ cannot be run" in reason
    assert backends == "('portable', 'reference')"
    before, told = done.stderr.split("asked for by name\n")
    assert before == "imported\n"
    assert told.count("several times slower") == 1
    assert reason in told
