"""Room for copies of remote shards, shared by all processes of a machine that fetch at once.

The folder holds copies and, while they are fetched, `.SLOT-BYTES`: room for so many bytes, however many have arrived.
All together never exceed the bound. A fetch holds the lock of its slot, and the system gives a lock back however a
process ends: room in a slot that nobody has locked is free again. Files that are neither count as copies.
"""

import re
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from filelock import FileLock, Timeout

# Enough for every process of a machine to fetch at once; a lock a shard would leave a file a shard.
_SLOTS = 64
_PARTIAL = re.compile(r"\.(\d+)-(\d+)")
_PAUSE = 0.05


def lock(folder: Path, name: str) -> FileLock:
    """One of the locks of a folder of copies."""
    return FileLock(folder / "locks" / name)


class Slot:
    """Place for one fetch, within this context. Fetches of the same shard have the same slot: one waits for the other.

    Args:
        folder: Of the copies; made if missing.
        number: Any number that the shard always has.

    Attributes:
        path: The file to fetch into; removed at the end if it was not kept.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder, number % _SLOTS
        self.path = self._path(0)
        (folder / "locks").mkdir(parents=True, exist_ok=True)
        self._lock = lock(folder, f"fetch-{self.number}")

    def __enter__(self) -> Self:
        """Wait until the slot is free."""
        self._lock.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give back the slot, and the room of what was not kept."""
        try:
            self.path.unlink(missing_ok=True)
        finally:
            self._lock.release()

    def _path(self, size: int) -> Path:
        return self.folder / f".{self.number}-{size}"

    def reserve(self, size: int, limit: int) -> None:
        """Take room, at most the limit; wait while what others are fetching leaves too little."""
        self.path.touch()
        # One waits at a time: small shards do not pass a large one for ever.
        with lock(self.folder, "turn"):
            self.extend(size, limit)

    def extend(self, size: int, limit: int) -> None:
        """Take more room, `size` in all. Who has some waits for no turn, as those who wait may wait for it."""
        while not self._try_to_extend(size, limit):
            time.sleep(_PAUSE)

    def _try_to_extend(self, size: int, limit: int) -> bool:
        with lock(self.folder, "room"):
            copies, taken = self._contents()
            if taken + size > limit:
                return False
            total = taken + size + sum(length for _, length, _ in copies)
            # The least recently used first.
            for _, length, file in sorted(copies):
                if total <= limit:
                    break
                file.unlink(missing_ok=True)
                total -= length
            self.path = self.path.rename(self._path(size))
        return True

    def _contents(self) -> tuple[list[tuple[float, int, Path]], int]:
        """Time of last use, bytes and path of every copy, and the bytes that other fetches may take."""
        copies: list[tuple[float, int, Path]] = []
        taken = 0
        for file in self.folder.iterdir():
            # Fetches that fail remove their files without asking.
            with suppress(FileNotFoundError):
                status = file.stat()
                found = _PARTIAL.fullmatch(file.name)
                if found is None and not file.is_dir():
                    copies.append((status.st_mtime, status.st_size, file))
                elif found is not None and file != self.path:
                    if self._is_fetched(int(found[1])):
                        taken += max(int(found[2]), status.st_size)
                    else:
                        file.unlink()
        return copies, taken

    def _is_fetched(self, number: int) -> bool:
        """Whether a process fetches in another slot."""
        if number == self.number:
            return False
        try:
            with lock(self.folder, f"fetch-{number}").acquire(blocking=False):
                return False
        except Timeout:
            return True

    def keep(self, copy: Path) -> BinaryIO:
        """Give the file its name, and open it before another process may delete it."""
        file = self.path.open("rb")
        with lock(self.folder, "room"):
            self.path.replace(copy)
        return file
