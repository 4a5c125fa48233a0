"""Commands keep the memory that they free."""

import os
import platform
import subprocess
import sys

import pytest

# Pages that come back after 64 MB in pieces of 4 MB were freed, as activations of a pass are. Bytes are of the
# allocator that tensors are of; what torch leaves at the heap's end keeps it from being handed back now and then.
PROGRAM = """
import resource
from acmix.cli.memory import keep_freed_memory

def piece():
    return b"1" * 2**22

def work():
    pieces = [piece() for _ in range(16)]
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    del pieces
    [piece() for _ in range(16)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults

before = work()
keep_freed_memory()
work()
print(before, work())
"""


def _faults(**variables):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
    }
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), **variables}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=True
    )
    return [int(faults) for faults in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
@pytest.mark.parametrize("variables", [{}, {"MALLOC_ARENA_MAX": "2", "GLIBC_TUNABLES": "glibc.pthread.rseq=1"}])
def test_what_is_freed_is_there_again(variables):
    before, after = _faults(**variables)
    assert before > 10_000
    # A piece may lie elsewhere than before; all of them would be new pages.
    assert after < before / 4


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
@pytest.mark.parametrize(
    "variables",
    [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}],
)
def test_what_the_environment_says_holds(variables):
    before, after = _faults(**variables)
    assert before > 10_000
    assert after > 10_000
