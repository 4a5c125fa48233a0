"""Counting what shards hold, once: the counts of shards that have not changed are remembered."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from acmix import records
from acmix.data.images import suffixes
from acmix.data.shards.cache import cache_folder, open_shard, stat
from acmix.data.shards.index import read_index
from acmix.errors import InputError
from acmix.progress import Progress, silent
from acmix.storage import write_atomically

# Remote shards arrive side by side; more would not be faster.
_AT_ONCE = 8
# Counts by other rules for what is a sample, or where Pillow reads other files, are not remembered.
_RULES = "3"


@dataclass(frozen=True, kw_only=True)
class ShardCount:
    """What one shard holds.

    Attributes:
        size: Bytes of the shard, None where the server does not say.
        changed: A sign of its last change.
        images: How many samples.
        highest: The highest label that is a number, -1 where there is none.
        names: The labels that are names of classes.
        fields: How many images are no sample but fields of one.
        first_field: Name of the first of them.
    """

    size: int | None
    changed: str
    images: int
    highest: int
    names: list[str]
    fields: int
    first_field: str


def scan_shards(urls: Sequence[str], json_key: str | None = None, *, progress: Progress = silent) -> list[ShardCount]:
    """Read the headers of all shards, save those that are known from an earlier scan.

    Args:
        urls: Paths or URLs; remote shards are fetched.
        json_key: As in `read_index`.
        progress: Shows how far it is.

    Raises:
        InputError: If a shard cannot be read; what was counted before is remembered.
    """
    text = "\n".join((_RULES, *sorted(suffixes()), json_key or "", *urls))
    key = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    memory = cache_folder() / "counts" / f"{key[:32]}.json"
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        # One process of a machine counts, the others find its counts.
        with FileLock(memory.with_suffix(".lock")):
            return _scan(urls, json_key, memory, progress)
    except OSError as error:
        raise InputError(
            f"counts cannot be kept in {memory.parent}: {error.strerror or error}; set ACMIX_CACHE to another folder"
        ) from error


def _scan(urls: Sequence[str], json_key: str | None, memory: Path, progress: Progress) -> list[ShardCount]:
    known = _remembered(memory)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = {url: pool.submit(_count, url, json_key, known.get(url)) for url in urls}
        try:
            counting = progress(futures.values(), "counting images", len(urls), "shard")
            return [future.result() for future in counting]
        finally:
            pool.shutdown(cancel_futures=True)
            done = [url for url, future in futures.items() if not future.cancelled() and future.exception() is None]
            counted = known | {url: futures[url].result() for url in done}
            if counted != known:
                write_atomically(memory, json.dumps({url: asdict(count) for url, count in counted.items()}))


def _count(url: str, json_key: str | None, known: ShardCount | None) -> ShardCount:
    size, changed = stat(url)
    if known is not None and (known.size, known.changed) == (size, changed):
        return known
    with open_shard(url, size) as file:
        index = read_index(file, url, json_key)
    return ShardCount(
        size=size,
        changed=changed,
        images=len(index),
        highest=max((label for label in index.labels if isinstance(label, int)), default=-1),
        names=sorted({label for label in index.labels if isinstance(label, str)}),
        fields=len(index.fields),
        first_field=index.fields[0] if index.fields else "",
    )


def _remembered(memory: Path) -> dict[str, ShardCount]:
    if not memory.exists():
        return {}
    try:
        return records.read(dict[str, ShardCount], records.parse(memory.read_bytes()))
    except InputError as fault:
        raise InputError(f"the remembered counts in {memory} are damaged: {fault}; remove the file") from fault
