"""Local copies of remote shards: whole files, bounded in size, shared by the processes of a machine."""

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO

from acmix.data.shards import room
from acmix.data.shards.urls import is_remote, local_path, remote
from acmix.errors import InputError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BLOCK, _STREAMED = 512, 2**20


def cache_folder() -> Path:
    """Where copies of remote shards and counts are kept: ACMIX_CACHE, or acmix in the user's cache folder.

    It belongs on a disk of the machine: a network is what the copies are to save.
    """
    if given := os.environ.get("ACMIX_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "acmix"


def cache_size() -> int:
    """Bytes that copies may take: ACMIX_CACHE_SIZE, as in 500GB, or 100 GB.

    Raises:
        InputError: If ACMIX_CACHE_SIZE is no size.
    """
    text = os.environ.get("ACMIX_CACHE_SIZE") or "100GB"
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]B)?", text)
    if found is None:
        raise InputError(f"ACMIX_CACHE_SIZE must be a size as in 500GB, got {text!r}")
    return int(float(found[1]) * _UNITS[found[2] or ""])


def stat(url: str) -> tuple[int | None, str]:
    """Size in bytes (None where the server does not say) and a sign of the last change, of a shard anywhere.

    Raises:
        InputError: If there is no such shard, or it cannot be reached.
    """
    if not is_remote(url):
        with _reading(url):
            status = local_path(url).stat()
        return status.st_size, str(status.st_mtime_ns)
    system, path = remote(url)
    try:
        info = system.info(path)
    except FileNotFoundError as error:
        # Over HTTP every failure is one of these, with its cause.
        if error.__cause__ is not None:
            raise InputError(f"shard {url} cannot be reached: {error.__cause__}") from error
        raise InputError(f"shard {url} does not exist") from None
    except Exception as error:  # fsspec's file systems raise whatever their clients raise
        raise InputError(f"shard {url} cannot be reached: {error}") from error
    changed = next((info[key] for key in ("ETag", "mtime", "LastModified", "created") if info.get(key)), "")
    return info.get("size"), str(changed)


def open_shard(url: str, size: int | None = None) -> BinaryIO:
    """Open a shard on this machine, or the copy of a remote one, fetched if it is not here yet.

    It can be read on after the cache deletes the copy. The least recently used copies make room for a new one; where
    what others are fetching leaves too little, it waits for them. Processes that want the same shard fetch it once. A
    copy that is shorter than the server says, or that does not end as a tar file does, is fetched once more. A remote
    shard that changes without changing its size must get another name.

    Args:
        url: A path or URL.
        size: Of the shard in bytes, where it is known: a copy of another size is fetched anew.

    Raises:
        InputError: If it does not exist, cannot be read or fetched, arrives truncated twice, or does not fit.
    """
    if is_remote(url):
        return _open_remote(url, size)
    with _reading(url):
        return local_path(url).open("rb")


@contextmanager
def _reading(url: str) -> Iterator[None]:
    """Say what is wrong with a shard of this machine."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"shard {url} does not exist") from None
    except OSError as error:
        raise InputError(f"shard {url} cannot be read: {error.strerror or error}") from error


def _open_remote(url: str, size: int | None) -> BinaryIO:
    digest = hashlib.sha256(url.encode()).hexdigest()
    copy = cache_folder() / "shards" / f"{digest[:32]}-{url.rpartition('/')[2]}"
    try:
        if file := _open_copy(copy, size):
            return file
        with room.Slot(copy.parent, int(digest, 16)) as slot:
            # Another process may have fetched it meanwhile.
            return _open_copy(copy, size) or _fetch(url, copy, slot)
    except OSError as error:
        hint = "; set ACMIX_CACHE to another disk, or ACMIX_CACHE_SIZE lower" if error.errno == errno.ENOSPC else ""
        raise InputError(f"shard {url} cannot be kept in {copy.parent}: {error.strerror or error}{hint}") from error


def _open_copy(copy: Path, size: int | None) -> BinaryIO | None:
    try:
        file = copy.open("rb")
    except FileNotFoundError:
        return None
    if size is not None and os.fstat(file.fileno()).st_size != size:
        file.close()
        return None
    # The time of last use; file systems seldom keep that of reading. It may be deleted in this very moment.
    with suppress(FileNotFoundError):
        os.utime(copy)
    return file


def _fetch(url: str, copy: Path, slot: room.Slot) -> BinaryIO:
    size, _ = stat(url)
    limit = cache_size()
    if size is not None and size > limit:
        raise InputError(f"shard {url} has {size:,} bytes, ACMIX_CACHE_SIZE allows {limit:,} for all; set it higher")
    # Two whose size shows only as they come could wait for each other for ever.
    with room.lock(copy.parent, "unknown") if size is None else nullcontext():
        slot.reserve(size or 0, limit)
        fault = _download(url, slot, size, limit) and _download(url, slot, size, limit)
        if fault is not None:
            raise InputError(f"shard {url} cannot be fetched, tried twice: {fault}")
        return slot.keep(copy)


def _download(url: str, slot: room.Slot, size: int | None, limit: int) -> str | None:
    """Fetch into the slot's file; what went wrong, or None."""
    system, path = remote(url)
    try:
        if size is not None:
            system.get_file(path, str(slot.path), callback=_bound(size))
        elif not _stream(system, path, slot, limit):
            return f"more than the {limit:,} bytes arrive that ACMIX_CACHE_SIZE allows for all; set it higher"
    except Exception as error:  # fsspec's file systems raise whatever their clients raise
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        return str(error) or type(error).__name__
    with slot.path.open("rb") as file:
        # A shard that is seen under its name after a loss of power must be whole.
        os.fsync(file.fileno())
        got = os.fstat(file.fileno()).st_size
        if size is not None and got != size:
            return f"it is truncated, {got:,} of {size:,} bytes arrived"
        if got % _BLOCK or os.pread(file.fileno(), _BLOCK, max(0, got - _BLOCK)) != bytes(_BLOCK):
            return f"{got:,} bytes arrived that do not end as a tar file does"
    return None


def _stream(system: Any, path: str, slot: room.Slot, limit: int) -> bool:
    """Fetch what has no known size, with room for every block before it is written; whether it fits."""
    got = 0
    with system.open(path, "rb") as source, slot.path.open("wb") as file:
        while block := source.read(_STREAMED):
            got += len(block)
            if got > limit:
                return False
            slot.extend(got, limit)
            file.write(block)
    return True


def _bound(size: int) -> Any:
    """What fsspec calls as bytes arrive, to end a fetch that brings more than its server said."""
    from fsspec.callbacks import Callback

    def check(_: int | None, arrived: int, **__: object) -> None:
        if arrived > size:
            raise ValueError(f"more than {size:,} bytes arrive, which the server gave as its size")

    return Callback(hooks={"bound": check})
