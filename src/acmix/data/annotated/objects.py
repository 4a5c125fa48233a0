"""The objects of images: of one image as tensors, of all of them in a few arrays that forked readers share."""

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acmix.data.annotated.segments import Polygons, Runs, Segment
from acmix.errors import InputError

# Pixels of all masks of one image: 4 GiB.
_MOST_MASKED = 1 << 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotations:
    """The objects of one image, in pixels of the image as it is read.

    Attributes:
        boxes: `(N, 4)`, float32: x1, y1, x2, y2. They may reach beyond the image.
        labels: `(N,)`, int64: index into the classes, from 0.
        areas: `(N,)`, float32: COCO's area, of the segment where there is one, by which AP tells small from large.
        crowd: `(N,)`, bool: whether it stands for many objects, not told apart.
        segments: Of each object; None where the data has boxes alone.
    """

    boxes: Tensor
    labels: Tensor
    areas: Tensor
    crowd: Tensor
    segments: tuple[Segment, ...] | None

    def masks(self, height: int, width: int) -> Tensor:
        """The pixels of each object, `(N, height, width)`, bool.

        Args:
            height: Of the image.
            width: Of the image.

        Raises:
            InputError: If the data has boxes alone, or the masks do not fit into 4 GiB.
        """
        if self.segments is None:
            raise InputError("the data has boxes alone, no segments to make masks of")
        count = len(self.segments)
        if count * height * width > _MOST_MASKED:
            raise InputError(
                f"{count:,} masks of {height} x {width} pixels exceed 4 GiB; cut the image into smaller ones"
            )
        masks = torch.zeros((count, height, width), dtype=torch.bool)
        for mask, segment in zip(masks, self.segments, strict=True):
            mask.copy_(torch.from_numpy(segment.mask(height, width)))
        return masks


@dataclass(frozen=True, kw_only=True, eq=False)
class Objects:
    """The objects of many images.

    Attributes:
        boxes: `(M, 4)`, as in `Annotations`.
        labels: `(M,)`.
        areas: `(M,)`; NaN where the file does not say.
        crowd: `(M,)`.
        starts: Where the objects of each image begin, and those of the last end: `(images + 1,)`.
        pieces: Where the pieces of each object's segment begin and end, `(M, 2)`; none where it has no segment.
        edges: Where the numbers of each piece begin, and those of the last end.
        numbers: Of all pieces: corners of a ring, or run lengths.
        runs: `(M,)`: whether the segment is one piece of run lengths.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    starts: NDArray[np.int64]
    pieces: NDArray[np.int64]
    edges: NDArray[np.int64]
    numbers: NDArray[np.float64]
    runs: NDArray[np.bool_]

    @property
    def segmented(self) -> NDArray[np.bool_]:
        """Whether each object has a segment."""
        return self.pieces[:, 1] > self.pieces[:, 0]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many objects each image has."""
        return np.diff(self.starts)

    def of(self, image: int) -> slice:
        """Where the objects of an image lie."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    def image_of(self, index: int) -> int:
        """The image of an object."""
        return int(np.searchsorted(self.starts, index, side="right")) - 1

    def segment(self, index: int) -> Segment | None:
        """The segment of an object."""
        first, last = self.pieces[index]
        parts = [self.numbers[self.edges[piece] : self.edges[piece + 1]] for piece in range(first, last)]
        if not parts:
            return None
        if self.runs[index]:
            return Runs(parts[0].astype(np.int64))
        return Polygons(tuple(part.reshape(-1, 2) for part in parts))

    def take(self, images: NDArray[np.int64]) -> "Objects":
        """The objects of these images, in this order."""
        starts, rows = _ranges(self.starts[images], self.counts[images])
        return replace(
            self,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            areas=self.areas[rows],
            crowd=self.crowd[rows],
            starts=starts,
            pieces=self.pieces[rows],
            runs=self.runs[rows],
        )

    def digest(self) -> bytes:
        """SHA-256 of all that is known of them."""
        first, last = self.edges[self.pieces].T
        _, places = _ranges(first, last - first)
        parts = (self.boxes, self.labels, self.areas, self.crowd, self.starts, self.runs, last - first)
        return hashlib.sha256(b"".join(part.tobytes() for part in (*parts, self.numbers[places]))).digest()

    def relabelled(self, labels: NDArray[np.int64]) -> "Objects":
        """The same objects with other labels, given by the label that they have."""
        return replace(self, labels=labels[self.labels])

    def annotations(self, image: int, *, masks: bool) -> Annotations:
        """The objects of one image, with their segments if masks."""
        found = self.of(image)
        segments = [self.segment(index) for index in range(found.start, found.stop)] if masks else None
        return Annotations(
            boxes=torch.from_numpy(self.boxes[found]).float(),
            labels=torch.from_numpy(self.labels[found].copy()),
            areas=torch.from_numpy(self.areas[found]).float(),
            crowd=torch.from_numpy(self.crowd[found].copy()),
            segments=None if segments is None else tuple(segment for segment in segments if segment is not None),
        )


def _ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """So many numbers from each start on, range after range: where each begins among them, and they themselves."""
    begins = np.concatenate(([0], np.cumsum(counts)))
    return begins, np.arange(begins[-1]) + np.repeat(starts - begins[:-1], counts)


class ObjectList:
    """Objects as they are read, one after another, each with the keys by which a file names its image and class."""

    def __init__(self) -> None:
        self.boxes, self.areas, self.numbers = array("d"), array("d"), array("d")
        self.images, self.labels = array("q"), array("q")
        self.crowd, self.runs = array("b"), array("b")
        self.pieces, self.edges = array("q", [0]), array("q", [0])

    def __len__(self) -> int:
        """Count the objects."""
        return len(self.images)

    def add(
        self,
        image: int,
        label: int,
        box: Sequence[Any],
        *,
        area: float = float("nan"),
        crowd: bool = False,
        rings: Sequence[Sequence[Any]] = (),
        runs: NDArray[np.int64] | None = None,
    ) -> None:
        """Take one object.

        Args:
            image: Key of its image.
            label: Key of its class.
            box: Four numbers.
            area: NaN where it is not known.
            crowd: See `Annotations`.
            rings: Corners of each, x and y in turn.
            runs: Run lengths in their place.

        Raises:
            TypeError: If what should be numbers is something else.
            OverflowError: If a number is too large for any computer's.
        """
        self.images.append(image)
        self.labels.append(label)
        self.boxes.extend(box)
        self.areas.append(area)
        self.crowd.append(crowd)
        for ring in rings:
            self.numbers.extend(ring)
            self.edges.append(len(self.numbers))
        if runs is not None:
            self.numbers.frombytes(runs.astype(np.float64).tobytes())
            self.edges.append(len(self.numbers))
        self.runs.append(runs is not None)
        self.pieces.append(len(self.edges) - 1)

    def table(
        self, images: NDArray[np.int64], labels: NDArray[np.int64], kept: NDArray[np.bool_], count: int
    ) -> Objects:
        """All objects that are kept, image by image, in the order in which they were read.

        Args:
            images: Index of the image of each.
            labels: Index of the class of each.
            kept: Which of them to take.
            count: Of images.
        """
        chosen = np.flatnonzero(kept)
        chosen = chosen[np.argsort(images[chosen], kind="stable")]
        pieces = np.frombuffer(self.pieces, np.int64)
        objects = Objects(
            boxes=np.array(self.boxes).reshape(-1, 4)[chosen],
            labels=labels[chosen],
            areas=np.array(self.areas)[chosen],
            crowd=np.array(self.crowd, np.bool_)[chosen],
            starts=np.searchsorted(images[chosen], np.arange(count + 1)),
            pieces=np.stack((pieces[:-1], pieces[1:]), 1)[chosen],
            edges=np.array(self.edges),
            numbers=np.array(self.numbers),
            runs=np.array(self.runs, np.bool_)[chosen],
        )
        for index in np.flatnonzero(np.isnan(objects.areas)).tolist():
            segment = objects.segment(index)
            left, top, right, bottom = objects.boxes[index]
            objects.areas[index] = (right - left) * (bottom - top) if segment is None else segment.area
        return objects
