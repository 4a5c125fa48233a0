"""Files and folders that are never seen half written, and of which a killed process leaves nothing that stays.

What is not whole yet lies beside its final name as `.acmix-*.partial`, locked by the process that writes it. The system
gives a lock back however a process ends, so whoever writes into the folder next removes what nobody has locked.
"""

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from acmix.errors import InputError

try:
    import fcntl
except ImportError:
    # On Windows nothing is locked, and so nothing swept.
    fcntl = None

PARTIAL = ".acmix-{}.partial"
# Processes that read for one that was killed notice within five seconds.
PATIENCE = 15.0


def check_file(name: str, path: Path) -> None:
    """Check that a file may stand at a path, before there is anything to write.

    Args:
        name: Of the argument, for the error.
        path: The file, there already or not.

    Raises:
        InputError: If a folder stands there, or nothing to put it in.
    """
    if path.is_dir():
        raise InputError(f"{name} must be a file, got the folder {path}")
    if not path.parent.is_dir():
        raise InputError(f"{name} {path} cannot be written: {path.parent} is not a folder; make it first")


def check_folder(name: str, path: Path) -> Path:
    """Check that a folder is there or can be made, with those that it lies in.

    Args:
        name: As in `check_file`.
        path: The folder.

    Returns:
        The nearest that exists.

    Raises:
        InputError: If a file stands there, or in place of one that it lies in.
    """
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if there.is_dir():
        return there
    if there == path:
        raise InputError(f"{name} must be a folder, got the file {path}")
    raise InputError(f"{name} {path} cannot be written: {there} is not a folder")


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once it is whole and on the disk.

    Raises:
        OSError: If it cannot be written, with its name; the old file is then untouched.
    """
    path = Path(path)
    try:
        with _beside(path, lambda partial: partial.touch(exist_ok=False)) as partial:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        _synchronise(path.parent)
    except OSError as error:
        # Errors of writing have no name, those of making one that nobody knows.
        if error.filename is None or Path(error.filename).match(PARTIAL.format("*")):
            error.filename = str(path)
        raise


def _synchronise(folder: Path) -> None:
    """Let new names, too, survive a loss of power."""
    if fcntl is None:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: str | Path, content: bytes | str) -> None:
    r"""Write bytes or text in one piece, see `replacing`.

    Text becomes UTF-8. Lone surrogates, which stand for the bytes of a file name that is none, become `\udce9`: in JSON
    that is the same text.
    """
    with replacing(path) as file:
        file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


@contextmanager
def folder_beside(path: str | Path) -> Iterator[Path]:
    """Make a folder beside `path` to write in; rename it, or what it holds, as the rest is removed at the end.

    Raises:
        OSError: If it cannot be made.
    """
    with _beside(Path(path), Path.mkdir) as partial:
        yield partial


@contextmanager
def held(folder: str | Path) -> Iterator[bool]:
    """Keep a folder from other processes that ask the same; says whether this one has it, as all do without locks.

    It is given back at the end, and however the process ends: readers that a killed one had started may keep it for
    some seconds, which are waited.

    Raises:
        OSError: If there is no such folder.
    """
    if fcntl is None:
        yield True
        return
    descriptor = os.open(folder, os.O_RDONLY)
    latest = time.monotonic() + PATIENCE
    try:
        while (had := _try_lock(descriptor, wait=False)) is False and time.monotonic() < latest:
            time.sleep(0.1)
        yield had is not False
    finally:
        # Processes that were forked meanwhile have the descriptor, too: closed here alone it would stay locked.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


@contextmanager
def _beside(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    _sweep(path.parent)
    partial, lock = _make(path.parent, make)
    try:
        yield partial
    finally:
        _remove(partial)
        if lock is not None:
            os.close(lock)


def _make(folder: Path, make: Callable[[Path], None]) -> tuple[Path, int | None]:
    """Something new in a folder, and the descriptor that locks it."""
    while True:
        partial = folder / PARTIAL.format(secrets.token_hex(8))
        make(partial)
        if fcntl is None:
            return partial, None
        # Another process that sweeps before it is locked takes it for left behind.
        with suppress(FileNotFoundError):
            lock = os.open(partial, os.O_RDONLY)
            _try_lock(lock, wait=True)
            if partial.exists():
                return partial, lock
            os.close(lock)


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left in a folder."""
    for partial in folder.glob(PARTIAL.format("*")):
        # Gone already, or another user's: what cannot be removed keeps nothing from being written.
        with suppress(OSError):
            lock = os.open(partial, os.O_RDONLY)
            try:
                if _try_lock(lock, wait=False):
                    _remove(partial)
            finally:
                os.close(lock)


def _try_lock(descriptor: int, *, wait: bool) -> bool | None:
    """Whether a lock could be had, or another process has it; None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove(partial: Path) -> None:
    if partial.is_dir():
        shutil.rmtree(partial)
    else:
        partial.unlink(missing_ok=True)
