"""The memory of the process that runs a command."""

import ctypes
import os

# Parameters of glibc's mallopt(3), and values: never trim; the largest, and what versions before 2.35 take at most.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER, _LARGEST, _LARGEST_ONCE = -1, 2**31 - 1, 32 << 20
# Variables that say when memory goes back to the system.
_VARIABLES = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_"}


def keep_freed_memory() -> None:
    """Let the process keep the memory that it frees for what it allocates next.

    glibc hands the end of its heap back to the system whenever tensors there are freed, and every page of it costs a
    fault when the next pass takes it again: a tenth of a forward pass and more. Other allocators and systems do as they
    did, and so does glibc where the environment says how.
    """
    if _VARIABLES & os.environ.keys() or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return
    # Of no library: of the process; Windows has no such thing, musl and macOS no mallopt.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return
    mallopt(_TRIM_THRESHOLD, _NEVER)
    if not mallopt(_MMAP_THRESHOLD, _LARGEST):
        mallopt(_MMAP_THRESHOLD, _LARGEST_ONCE)
