"""Which image is drawn when: a function of seed, epoch and position alone, so that any moment can be returned to."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from acmix.errors import InputError

# Images that are shuffled among each other where shards are read one after the other.
_WINDOW = 16_384


class Draw(NamedTuple):
    """One image of an epoch.

    Attributes:
        epoch: Counted from 0.
        position: In the order of the epoch, over all processes.
        index: Into the images.
    """

    epoch: int
    position: int
    index: int


class EpochSampler(Sampler[list[Draw]]):
    """The batches of one process. Over all processes an epoch draws every image once.

    The images of an update lie together in the order of the epoch, cut into `processes x accumulate` batches of equal
    size, give or take one: how many processes share the work does not change what an update learns from. The last
    update of an epoch takes the rest; a rest too small for batch statistics joins the update before. Where images lie
    in shards, each process reads a run of whole shards, in an order of the epoch, and shuffles within windows of it.

    Args:
        count: Images.
        batch_size: Images a batch.
        accumulate: Batches of a process in an update.
        processes: That share an update.
        rank: This process among them.
        seed: Of all orders.
        repeats: Copies of an image in an epoch, which still draws `count`; not with shards.
        shard_lengths: Images of each shard, in the order of indices; None if every image costs the same to read.
        prefetch: Called with the index of each shard a window before the first of its images is drawn.
        groups: Of each image, a number: batches are of one group, but for the last of an epoch; None for none. Not with
            shards.

    Raises:
        InputError: If there are too few images for one update, or repeats of images in shards.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        accumulate: int = 1,
        processes: int = 1,
        rank: int = 0,
        seed: int = 0,
        repeats: int = 1,
        shard_lengths: Sequence[int] | None = None,
        prefetch: Callable[[int], None] | None = None,
        groups: np.ndarray | None = None,
    ) -> None:
        self.count, self.accumulate, self.processes, self.rank = count, accumulate, processes, rank
        self.seed, self.repeats, self.shard_lengths, self.prefetch = seed, repeats, shard_lengths, prefetch
        # Of one image batch normalisation learns nothing.
        least = min(2, batch_size) * accumulate * processes
        if count < least:
            raise InputError(
                f"too few training images: an update of {processes} processes x {accumulate} batches needs at least "
                f"{least}, got {count}; use fewer processes or accumulate less"
            )
        if repeats > 1 and shard_lengths is not None:
            raise InputError(f"repeats must be 1 where images are read from shards, got {repeats}")
        whole = batch_size * accumulate * processes
        full, rest = divmod(count, whole)
        sizes = [whole] * full + ([rest] if rest else [])
        if full and 0 < rest < least:
            sizes[-2:] = [whole + rest]
        self.update_sizes = tuple(sizes)
        self.groups, self._batch = groups, batch_size
        self._epoch = self._first = 0

    def start_at(self, epoch: int, update: int = 0) -> None:
        """Let the next iteration begin at an update of an epoch, both counted from 0."""
        self._epoch, self._first = epoch, update

    def __len__(self) -> int:
        """Count the batches that the next iteration gives."""
        return (len(self.update_sizes) - self._first) * self.accumulate

    def __iter__(self) -> Iterator[list[Draw]]:
        """Give this process's batches."""
        sizes = self.update_sizes[self._first :]
        batches = {size: self._batches(size) for size in set(sizes)}
        if self.shard_lengths is None:
            order = self._shuffled()
            start = sum(self.update_sizes[: self._first])
            for size in sizes:
                for begin, end in batches[size]:
                    yield self._draws(start + begin, order[start + begin : start + end])
                start += size
            return
        # A process's images lie together: those that come before its own are those of lower ranks.
        before = [self._cut(size, self.rank * self.accumulate) for size in self.update_sizes]
        shares = [
            self._cut(size, (self.rank + 1) * self.accumulate) - start
            for size, start in zip(self.update_sizes, before, strict=True)
        ]
        offset, drawn = sum(before), sum(shares[: self._first])
        indices = self._from_shards(self.shard_lengths, offset, sum(shares), drawn)
        for size in sizes:
            for begin, end in batches[size]:
                batch = list(islice(indices, end - begin))
                yield self._draws(offset + drawn, batch)
                drawn += len(batch)

    def _cut(self, size: int, part: int) -> int:
        """Where a part of an update of so many images begins."""
        return size * part // (self.processes * self.accumulate)

    def _batches(self, size: int) -> list[tuple[int, int]]:
        """Begin and end of this process's batches in an update of so many images."""
        first = self.rank * self.accumulate
        cuts = [self._cut(size, part) for part in range(first, first + self.accumulate + 1)]
        return list(pairwise(cuts))

    def _draws(self, start: int, indices: Sequence[int] | np.ndarray) -> list[Draw]:
        return [Draw(self._epoch, start + place, int(index)) for place, index in enumerate(indices)]

    def _shuffled(self) -> np.ndarray:
        generator = np.random.default_rng([self.seed, self._epoch])
        order = generator.permutation(self.count)
        order = order if self.groups is None else self._grouped(order, self.groups, generator)
        return np.repeat(order[: math.ceil(self.count / self.repeats)], self.repeats)[: self.count]

    def _grouped(self, order: np.ndarray, groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The same images in batches of one group, in random order, and then the rest."""
        batches: list[np.ndarray] = []
        rest: list[np.ndarray] = []
        for group in np.unique(groups):
            members = order[groups[order] == group]
            whole = len(members) // self._batch * self._batch
            batches += list(members[:whole].reshape(-1, self._batch))
            rest.append(members[whole:])
        places = generator.permutation(len(batches))
        return np.concatenate([*(batches[place] for place in places), generator.permutation(np.concatenate(rest))])

    def _from_shards(self, lengths: Sequence[int], offset: int, count: int, skip: int) -> Iterator[int]:
        """Indices of the images at offset, offset + 1, ... of all shards in the epoch's order, shuffled by windows."""
        shards = np.random.default_rng([self.seed, self._epoch]).permutation(len(lengths))
        ends = np.cumsum(np.asarray(lengths, dtype=np.int64)[shards])
        begins = np.cumsum([0, *lengths])

        def locate(window: int) -> tuple[np.ndarray, np.ndarray]:
            """Positions of a window's images, and the places of their shards in the epoch's order."""
            positions = offset + np.arange(window * _WINDOW, min(count, (window + 1) * _WINDOW))
            return positions, np.searchsorted(ends, positions, side="right")

        first, last = skip // _WINDOW, math.ceil(count / _WINDOW)
        for window in range(first, last):
            positions, places = locate(window)
            # The next window's shards are on their way while this one is drawn from.
            if self.prefetch is not None and window + 1 < last:
                for place in np.unique(locate(window + 1)[1]):
                    self.prefetch(int(shards[place]))
            # An image's place in its shard: what it has left until the shard's end.
            indices = begins[shards[places] + 1] - (ends[places] - positions)
            shuffled = np.random.default_rng([self.seed, self._epoch, self.rank, window]).permutation(indices)
            yield from shuffled[max(0, skip - window * _WINDOW) :].tolist()


def evaluation_batches(count: int, *, batch_size: int, processes: int = 1, rank: int = 0) -> list[range]:
    """The batches of one process that evaluates its share of all images, each image once.

    Every process gets as many batches as any other, so that all can meet after each.

    Raises:
        InputError: If there are fewer images than processes.
    """
    if count < processes:
        raise InputError(f"too few validation images: {processes} processes need at least as many, got {count}")
    # No more than leave none empty; one image over may be one more than `batch_size` then.
    batches = min(math.ceil(math.ceil(count / processes) / batch_size), count // processes)
    cuts = [count * part // (processes * batches) for part in range(processes * batches + 1)]
    ranges = [range(begin, end) for begin, end in pairwise(cuts)]
    return ranges[rank * batches : (rank + 1) * batches]
