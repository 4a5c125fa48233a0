"""Local copies of remote shards: whole files, bounded in size, shared by the processes of a machine."""

import errno
import hashlib
import os
import re
import time
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from acmix.data.shards.urls import is_remote, local_path, remote
from acmix.errors import InputError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
# Enough for every process of a machine to fetch at once; a lock a shard would leave a file a shard.
_LOCKS = 64
_BLOCK, _TRIES = 512, 3


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
        try:
            status = local_path(url).stat()
        except FileNotFoundError:
            raise InputError(f"shard {url} does not exist") from None
        except OSError as error:
            raise InputError(f"shard {url} cannot be read: {error.strerror or error}") from error
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
    """Open a shard on this machine or a copy of a remote one; it can be read on after the cache deletes the copy.

    Args:
        url: A path or URL.
        size: As in `local_copy`.

    Raises:
        InputError: If there is no such file, or `local_copy` raises it.
    """
    for _ in range(_TRIES if is_remote(url) else 1):
        try:
            return local_copy(url, size).open("rb")
        except FileNotFoundError:
            # Another process has made room in this very moment.
            continue
        except OSError as error:
            raise InputError(f"shard {url} cannot be read: {error.strerror or error}") from error
    if is_remote(url):
        raise InputError(f"shard {url} is deleted as soon as it is fetched; set ACMIX_CACHE_SIZE higher")
    raise InputError(f"shard {url} does not exist")


def local_copy(url: str, size: int | None = None) -> Path:
    """The file of a shard on this machine, fetched if it is remote and not here yet.

    The least recently used copies make room for a new one. Processes that want the same shard fetch it once. A copy
    that is shorter than the server says, or that does not end as a tar file does, is fetched once more. A remote shard
    that changes without changing its size must get another name.

    Args:
        url: A path or URL.
        size: Of the shard in bytes, where it is known: a copy of another size is fetched anew.

    Raises:
        InputError: If it does not exist, cannot be fetched, arrives truncated twice, or does not fit.
    """
    if not is_remote(url):
        return local_path(url)
    digest = hashlib.sha256(url.encode()).hexdigest()
    copy = cache_folder() / "shards" / f"{digest[:32]}-{url.rpartition('/')[2]}"
    try:
        if not _is_here(copy, size):
            copy.parent.mkdir(parents=True, exist_ok=True)
            with _lock(copy.parent, f"fetch-{int(digest, 16) % _LOCKS}"):
                # Another process may have fetched it meanwhile.
                if not _is_here(copy, size):
                    _fetch(url, copy)
    except OSError as error:
        hint = "; set ACMIX_CACHE to another disk, or ACMIX_CACHE_SIZE lower" if error.errno == errno.ENOSPC else ""
        raise InputError(f"shard {url} cannot be kept in {copy.parent}: {error.strerror or error}{hint}") from error
    return copy


def _is_here(copy: Path, size: int | None) -> bool:
    try:
        if size is not None and copy.stat().st_size != size:
            return False
        # The time of last use; file systems seldom keep that of reading.
        os.utime(copy)
    except FileNotFoundError:
        return False
    return True


def _lock(folder: Path, name: str) -> FileLock:
    locks = folder / "locks"
    locks.mkdir(exist_ok=True)
    return FileLock(locks / name)


def _fetch(url: str, copy: Path) -> None:
    size, _ = stat(url)
    with _lock(copy.parent, "room"):
        _make_room(copy.parent, url, size or 0)
    partial = copy.with_name(f".{copy.name}")
    try:
        fault = _download(url, partial, size) and _download(url, partial, size)
        if fault is not None:
            raise InputError(f"shard {url} cannot be fetched, tried twice: {fault}")
        partial.replace(copy)
    finally:
        partial.unlink(missing_ok=True)


def _download(url: str, partial: Path, size: int | None) -> str | None:
    """Fetch into a file; what went wrong, or None."""
    system, path = remote(url)
    try:
        system.get_file(path, str(partial))
    except Exception as error:  # fsspec's file systems raise whatever their clients raise
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        return str(error) or type(error).__name__
    with partial.open("rb") as file:
        # A shard that is seen under its name after a loss of power must be whole.
        os.fsync(file.fileno())
        got = os.fstat(file.fileno()).st_size
        if size is not None and got != size:
            return f"it is truncated, {got:,} of {size:,} bytes arrived"
        if got % _BLOCK or os.pread(file.fileno(), _BLOCK, max(0, got - _BLOCK)) != bytes(_BLOCK):
            return f"{got:,} bytes arrived that do not end as a tar file does"
    return None


def _make_room(folder: Path, url: str, needed: int) -> None:
    limit = cache_size()
    if needed > limit:
        raise InputError(f"shard {url} has {needed:,} bytes, ACMIX_CACHE_SIZE allows {limit:,} for all; set it higher")
    copies: list[tuple[float, int, Path]] = []
    for file in folder.iterdir():
        # Other processes delete and rename here too.
        try:
            status = file.stat()
        except FileNotFoundError:
            continue
        if file.is_dir():
            continue
        if not file.name.startswith("."):
            copies.append((status.st_mtime, status.st_size, file))
        elif status.st_mtime < time.time() - 24 * 3600:
            # Left by a process that was killed.
            file.unlink(missing_ok=True)
    total = sum(size for _, size, _ in copies)
    for _, size, file in sorted(copies):
        if total + needed <= limit:
            break
        file.unlink(missing_ok=True)
        total -= size
