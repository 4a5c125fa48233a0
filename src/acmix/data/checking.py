"""Read every image of a data set once and say what is wrong with it."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acmix.data.images import ImageFacts
from acmix.data.labels import Label, in_words, labels_of
from acmix.data.sources import ImageSource, NamedImages, read_in_threads
from acmix.errors import InputError
from acmix.progress import Progress, silent


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Of a side of the images, in pixels."""

    smallest: int
    median: int
    largest: int


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """An image that cannot be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """What one part of a data set holds.

    Attributes:
        images: How many there are.
        classes: Images of each class.
        width: Of the readable images; None without any.
        height: Of the readable images; None without any.
        formats: Readable images of each of Pillow's formats.
        modes: Readable images of each of Pillow's modes.
        unreadable: Every image that cannot be read.
        unlabelled: Images without any label, which are no fault of multi-label images.
    """

    images: int
    classes: dict[str, int]
    width: Spread | None
    height: Spread | None
    formats: dict[str, int]
    modes: dict[str, int]
    unreadable: list[Unreadable]
    unlabelled: int = 0

    @property
    def empty(self) -> list[str]:
        """The classes without images."""
        return [name for name, count in self.classes.items() if not count]


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One of several identical files: its part of the data set, its name and its class, or all its labels."""

    part: str
    name: str
    label: str


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What `check_data` found.

    Attributes:
        parts: By name.
        duplicates: Groups of identical files.
    """

    parts: dict[str, PartReport]
    duplicates: list[list[Copy]]

    @property
    def leaked(self) -> list[list[Copy]]:
        """Groups of identical files in more than one part: trained on and validated or tested on."""
        return [group for group in self.duplicates if len({copy.part for copy in group}) > 1]

    @property
    def conflicting(self) -> list[list[Copy]]:
        """Groups of identical files in more than one class, or with other labels."""
        return [group for group in self.duplicates if len({copy.label for copy in group}) > 1]

    @property
    def harmless(self) -> list[list[Copy]]:
        """Groups of identical files in one part and one class; a later split may tear them apart."""
        return [group for group in self.duplicates if len({(copy.part, copy.label) for copy in group}) == 1]

    @property
    def sound(self) -> bool:
        """Whether all can be read, nothing leaks and no label contradicts another."""
        return not (self.leaked or self.conflicting or any(part.unreadable for part in self.parts.values()))


def check_data(parts: Mapping[str, NamedImages], *, progress: Progress = silent) -> DataReport:
    """Read and decode every image once, in threads.

    Args:
        parts: Images of each part of a data set, by its name, with the same classes; of images that have no class as a
            whole, none has an image.
        progress: Shows how far it is.
    """
    read: dict[str, _Read] = {}
    for part, images in parts.items():
        read[part] = _Read(images)
        for index, outcome in enumerate(progress(_outcomes(images), f"reading {part}", len(images))):
            read[part].add(index, outcome)
    return DataReport(
        parts={part: reader.report() for part, reader in read.items()},
        duplicates=[
            [Copy(part=part, name=parts[part].name(index), label=read[part].words(index)) for part, index in group]
            for group in _identical({part: reader.digests for part, reader in read.items()})
        ],
    )


@dataclass(frozen=True)
class _Outcome:
    label: Label | None = None
    digest: bytes = bytes(16)
    facts: ImageFacts | None = None
    fault: Unreadable | None = None


def _outcomes(images: NamedImages) -> Iterator[_Outcome]:
    def read(index: int) -> _Outcome:
        label, name, place = None, f"image {index}", ""
        try:
            name, place = images.name(index), images.place(index)
            if isinstance(images, ImageSource):
                stored = images.encoded(index)
                label, content = stored.label, stored.content
            else:
                content = images.content(index)
            facts = images.check(index, content)
        except InputError as error:
            reason = str(error).removeprefix(f"{name}: ").removeprefix(f"{place}: ")
            return _Outcome(label, fault=Unreadable(name=name, reason=reason))
        return _Outcome(label, hashlib.blake2b(content, digest_size=16).digest(), facts)

    return read_in_threads(read, range(len(images)))


class _Read:
    """What is kept of the images of one part."""

    def __init__(self, images: NamedImages) -> None:
        self.images = images
        self.digests = np.zeros((len(images), 2), np.uint64)
        self.sides = np.zeros((len(images), 2), np.int32)
        # None where an image could not be fetched, or has no class as a whole.
        self.labels: list[Label | None] = [None] * len(images)
        self.formats: Counter[str] = Counter()
        self.modes: Counter[str] = Counter()
        self.unreadable: list[Unreadable] = []

    def add(self, index: int, outcome: _Outcome) -> None:
        self.labels[index] = outcome.label
        if outcome.fault is not None:
            self.unreadable.append(outcome.fault)
        if outcome.facts is not None:
            self.digests[index] = np.frombuffer(outcome.digest, np.uint64)
            self.sides[index] = outcome.facts.width, outcome.facts.height
            self.formats[outcome.facts.format] += 1
            self.modes[outcome.facts.mode] += 1

    def words(self, index: int) -> str:
        label = self.labels[index]
        return "" if label is None else in_words(label, self.images.classes)

    def report(self) -> PartReport:
        counts = Counter(each for label in self.labels if label is not None for each in labels_of(label))
        width, height = (_spread(side[side > 0]) for side in self.sides.T)
        return PartReport(
            images=len(self.images),
            classes={name: counts[label] for label, name in enumerate(self.images.classes)},
            unlabelled=self.labels.count(()),
            width=width,
            height=height,
            formats=dict(self.formats.most_common()),
            modes=dict(self.modes.most_common()),
            unreadable=self.unreadable,
        )


def _spread(sides: NDArray[np.int32]) -> Spread | None:
    if not len(sides):
        return None
    return Spread(smallest=int(sides.min()), median=int(np.median(sides)), largest=int(sides.max()))


def _identical(digests: Mapping[str, NDArray[np.uint64]]) -> list[list[tuple[str, int]]]:
    """Groups of images with equal digests, as (part, index); zeros stand for what could not be read."""
    every = np.concatenate(list(digests.values()))
    order = np.lexsort((np.arange(len(every)), *every.T))
    ordered = every[order]
    starts = np.flatnonzero(np.concatenate(([True], (ordered[1:] != ordered[:-1]).any(1))))
    stops = np.append(starts[1:], len(ordered))
    groups = [
        order[start:stop]
        for start, stop in zip(starts, stops, strict=True)
        if stop - start > 1 and ordered[start].any()
    ]
    names, ends = list(digests), np.cumsum([len(values) for values in digests.values()])

    def place(position: int) -> tuple[str, int]:
        part = int(np.searchsorted(ends, position, side="right"))
        return names[part], position - int(ends[part]) + len(digests[names[part]])

    return [[place(int(position)) for position in group] for group in sorted(groups, key=lambda group: group[0])]
