"""Labelled images in webdataset shards, each of them a pread away."""

import hashlib
import os
import weakref
from collections import Counter, OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from threading import Lock, Thread
from typing import BinaryIO, TypeVar

import numpy as np

from acmix.data.folders import LeftOut
from acmix.data.labels import numbered_classes
from acmix.data.shards.cache import open_shard
from acmix.data.shards.index import read_index
from acmix.data.shards.scan import ShardCount, scan_shards
from acmix.data.shards.urls import Listing, is_remote
from acmix.data.sources import EncodedImage, ImageSource
from acmix.errors import InputError
from acmix.progress import Progress, silent

# An index of a thousand images takes some 80 kB; an open shard one file descriptor.
_OPEN_SHARDS = 64
_FIELDS = "image among the fields of a sample"
_Part = TypeVar("_Part", bound=Hashable)


class ShardedImages(ImageSource):
    """Images in tar files whose members share a key, as webdataset and timm write them.

    Shards of this machine are read in place, remote ones from whole local copies. A shard is opened and its headers
    are read when the first of its images is; the last 64 are kept.

    Args:
        urls: Paths or URLs of the shards.
        lengths: Images of each shard.
        classes: Class names in the order of the labels.
        json_key: As in `acmix.data.shards.index.read_index`.
    """

    def __init__(
        self, urls: Sequence[str], lengths: Sequence[int], classes: Sequence[str], json_key: str | None = None
    ) -> None:
        self.urls, self.classes, self.json_key = tuple(urls), tuple(classes), json_key
        self.shard_lengths = self._lengths = tuple(lengths)
        self._ends = np.cumsum(self._lengths, dtype=np.int64)
        files = [url.rpartition("/")[2] for url in self.urls]
        self._files_differ = len(set(files)) == len(files)
        self._labels = {name: label for label, name in enumerate(self.classes)}
        self._opened = _OpenShards()

    def __len__(self) -> int:
        """Count the images."""
        return int(self._ends[-1])

    def name(self, index: int) -> str:
        """The shard's file (its URL where two files have one name) and the image's key, `train-000.tar/0001`.

        Raises:
            InputError: If the shard cannot be read.
        """
        shard, position = self._place(index)
        url = self.urls[shard]
        return f"{url.rpartition('/')[2] if self._files_differ else url}/{self._shard(shard).index.keys[position]}"

    def encoded(self, index: int) -> EncodedImage:
        """The bytes of the image's member.

        Raises:
            InputError: If the shard cannot be read or fetched, holds another number of images than it should, was
                written anew since its headers were read, or labels the image with an unknown class.
        """
        number, position = self._place(index)
        shard = self._shard(number)
        size = shard.index.sizes[position]
        try:
            content = os.pread(shard.descriptor, size, shard.index.offsets[position])
        except OSError as error:
            raise InputError(f"{self.name(index)}: cannot be read ({error.strerror or error})") from error
        if shard.has_changed():
            raise InputError(
                f"{self.name(index)}: cannot be read, {self.urls[number]} was written anew since it was opened; "
                "new shards need new names"
            )
        return EncodedImage(content, shard.index.suffixes[position], self._label(index, shard.index.labels[position]))

    def fingerprint(self) -> str:
        """SHA-256 of the shards' files and lengths, of the classes, and of the first shard's keys and labels.

        Raises:
            InputError: If the first shard cannot be read.
        """
        first = self._shard(0).index
        samples = (
            f"{key}\t{size}\t{label}" for key, size, label in zip(first.keys, first.sizes, first.labels, strict=True)
        )
        shards = sorted(
            f"{url.rpartition('/')[2]}\t{length}" for url, length in zip(self.urls, self._lengths, strict=True)
        )
        text = "\n".join((*shards, "", *self.classes, "", *samples))
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()

    def prefetch(self, shard: int) -> None:
        """Begin to fetch a remote shard into the cache, in a thread.

        Args:
            shard: Index into shard_lengths.
        """
        if is_remote(self.urls[shard]):
            Thread(target=_fetch_quietly, args=(self.urls[shard],), daemon=True).start()

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"index must lie between 0 and {len(self) - 1}, got {index}")
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return shard, index - int(self._ends[shard] - self._lengths[shard])

    def _shard(self, number: int) -> "_OpenShard":
        return self._opened.get(self.urls[number], self._lengths[number], self.json_key)

    def _label(self, index: int, stored: int | str) -> int:
        label = stored if isinstance(stored, int) else self._labels.get(stored, -1)
        if not 0 <= label < len(self.classes):
            raise InputError(f"{self.name(index)}: its label {stored!r} is none of the {len(self.classes)} classes")
        return label


def _fetch_quietly(url: str) -> None:
    # Whoever reads an image of the shard tries again, and says what fails.
    with suppress(InputError):
        open_shard(url).close()


class _OpenShard:
    def __init__(self, file: BinaryIO, url: str, json_key: str | None) -> None:
        # Threads may still read it when it is no longer kept: the last to let go closes it.
        weakref.finalize(self, file.close)
        self.descriptor = file.fileno()
        # A copy gets a new time whenever it is used, and another content under a new file alone.
        self._copied = is_remote(url)
        self._state = self._look()
        self.index = read_index(file, url, json_key)

    def _look(self) -> tuple[int, int]:
        status = os.fstat(self.descriptor)
        return status.st_size, 0 if self._copied else status.st_mtime_ns

    def has_changed(self) -> bool:
        """Whether it was written into since its headers were read, so that they tell of other images."""
        return self._look() != self._state


class _OpenShards:
    """The shards that were used last, for the threads of one process."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._process, self._lock = os.getpid(), Lock()
        self._shards: OrderedDict[str, _OpenShard] = OrderedDict()

    def __reduce__(self) -> tuple[type["_OpenShards"], tuple[()]]:
        return _OpenShards, ()

    def get(self, url: str, length: int, json_key: str | None) -> _OpenShard:
        # A lock that another thread held while this process was forked would stay locked.
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            if url not in self._shards:
                shard = _OpenShard(open_shard(url), url, json_key)
                if len(shard.index) != length:
                    raise InputError(f"shard {url} holds {len(shard.index):,} images, {length:,} were expected")
                self._shards[url] = shard
                if len(self._shards) > _OPEN_SHARDS:
                    self._shards.popitem(last=False)
            self._shards.move_to_end(url)
            return self._shards[url]


def open_shards(listings: Mapping[_Part, Listing], *, progress: Progress = silent) -> dict[_Part, ShardedImages]:
    """Open the parts of a data set.

    Shards are counted where their lengths or classes are not written beside them. Classes are then the names that
    shards give, sorted; or as many numbers as the highest label of all these parts needs.

    Args:
        listings: Of each part, by whatever the caller knows it by.
        progress: Shows how far it is while counting.

    Raises:
        InputError: If shards cannot be counted, hold no images or fewer than two classes.
    """
    counts = {
        part: scan_shards(listing.urls, listing.json_key, progress=progress)
        for part, listing in listings.items()
        if listing.lengths is None or listing.classes is None
    }
    unnamed = [count for part, listing in listings.items() if listing.classes is None for count in counts[part]]
    found = _found_classes(unnamed) if unnamed else ()
    opened: dict[_Part, ShardedImages] = {}
    for part, listing in listings.items():
        lengths = listing.lengths or tuple(count.images for count in counts[part])
        if not sum(lengths):
            raise InputError(f"the shards {listing.urls[0]}... hold no images")
        opened[part] = ShardedImages(listing.urls, lengths, listing.classes or found, listing.json_key)
        if part in counts:
            opened[part].left_out = _left_out(listing.urls, counts[part])
    return opened


def _left_out(urls: Sequence[str], counts: Sequence[ShardCount]) -> LeftOut:
    left_out = LeftOut()
    for url, count in zip(urls, counts, strict=True):
        left_out.add(_FIELDS, f"{url.rpartition('/')[2]}/{count.first_field}", count.fields)
    return left_out


def _found_classes(counts: Sequence[ShardCount]) -> tuple[str, ...]:
    names = {name for count in counts for name in count.names}
    highest = max(count.highest for count in counts)
    if names and highest >= 0:
        mixed = Counter("names" if count.names else "numbers" for count in counts)
        raise InputError(
            f"some labels are numbers and some are names of classes ({mixed['names']} of {len(counts)} shards have "
            "names); write classes.txt beside the shards, one name a line in the order of the numbers"
        )
    classes = tuple(sorted(names)) or numbered_classes(highest, "the shards hold")
    if len(classes) < 2:
        raise InputError(f"the shards hold {len(classes)} classes, at least two are needed")
    return classes
