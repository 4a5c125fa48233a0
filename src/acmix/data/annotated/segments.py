"""Segments of objects, polygons or run lengths as COCO writes them: read within bounds, made masks."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from acmix.errors import InputError

# Sums of run lengths need no more bits than this many characters of five bits each hold.
MOST_CHARACTERS = 7
# Characters of a number in COCO's text of run lengths: 5 bits each, the sixth says that more follow.
_FIRST_CHARACTER, _MORE, _SIGN = 48, 32, 16


@dataclass(frozen=True, eq=False)
class Polygons:
    """Outlines whose union is the object.

    Attributes:
        rings: Corners `(points, 2)` of each, x and y in pixels, closed by themselves.
    """

    rings: tuple[NDArray[np.float64], ...]

    @property
    def area(self) -> float:
        """The sum of the areas that the rings enclose, in pixels."""
        return sum(_enclosed(ring) for ring in self.rings)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The smallest box around the corners: x1, y1, x2, y2."""
        corners = np.concatenate(self.rings)
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        return float(left), float(top), float(right), float(bottom)

    def to_coco(self, height: int, width: int) -> list[list[float]]:  # noqa: ARG002 (of one kind with Runs)
        """As COCO's "segmentation".

        Args:
            height: Of the image.
            width: Of the image.
        """
        return [ring.ravel().tolist() for ring in self.rings]

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """The pixels `(height, width)` that COCO's own program takes for the object."""
        from faster_coco_eval.core import mask

        parts: Any = mask.frPyObjects(self.to_coco(height, width), height, width)
        return mask.decode(mask.merge(parts)).astype(bool)


@dataclass(frozen=True, eq=False)
class Runs:
    """Lengths of runs of pixels, beside the object and on it in turn, down one column after another.

    Attributes:
        counts: Of pixels; their sum is that of all pixels.
    """

    counts: NDArray[np.int64]

    @property
    def area(self) -> float:
        """Of the object, in pixels."""
        return float(self.counts[1::2].sum())

    def to_coco(self, height: int, width: int) -> dict[str, list[int]]:
        """As COCO's "segmentation".

        Args:
            height: Of the image.
            width: Of the image.
        """
        return {"size": [height, width], "counts": self.counts.tolist()}

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """The pixels `(height, width)` of the object."""
        inside = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(inside, self.counts).reshape(width, height).T


Segment: TypeAlias = Polygons | Runs


def run_lengths(text: str) -> NDArray[np.int64]:
    """The run lengths that COCO's compressed text of them holds.

    A number is the sum of c_k 32^k over characters of five bits c_k, the last of which bears the sign; from the fourth
    on a number is the difference from the last but one.

    Raises:
        InputError: If it is no such text. The message is the fault alone.
    """
    try:
        codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - _FIRST_CHARACTER
    except UnicodeEncodeError:
        raise InputError("characters that no run lengths have") from None
    if not len(codes):
        return np.zeros(0, np.int64)
    if codes.min() < 0 or codes.max() >= 2 * _MORE:
        raise InputError("characters that no run lengths have")
    last = codes < _MORE
    if not last[-1]:
        raise InputError("run lengths that break off")
    starts = np.flatnonzero(np.concatenate(([True], last[:-1])))
    lengths = np.diff(np.append(starts, len(codes)))
    if lengths.max() > MOST_CHARACTERS:
        raise InputError("a run length of more than 35 bits")
    places = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes % _MORE) << (5 * places), starts)
    negative = codes[last] & _SIGN > 0
    numbers[negative] -= 1 << 5 * lengths[negative]
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def check_runs(counts: NDArray[np.int64], height: int, width: int) -> str:
    """Why run lengths are not those of an image, for a person; empty where they are."""
    if len(counts) and (counts.min() < 0 or counts.max() > height * width):
        return f"a run of {counts[(counts < 0) | (counts > height * width)][0]} pixels"
    if (total := int(counts.sum())) != height * width:
        return f"runs of {total:,} pixels in all, for {height * width:,}"
    return ""


def crosses(ring: NDArray[np.float64]) -> bool:
    """Whether an outline crosses itself: two of its edges that share no corner do."""
    start, step = ring, np.roll(ring, -1, 0) - ring
    count = len(ring)
    between = start[None] - start[:, None]  # from the start of each edge to those of all
    ends = between + step[None]

    def side(points: NDArray[np.float64]) -> NDArray[np.float64]:
        """On which side of each edge points lie."""
        return np.sign(step[:, None, 0] * points[..., 1] - step[:, None, 1] * points[..., 0])

    apart = side(between) * side(ends) < 0
    distance = (np.arange(count)[None] - np.arange(count)[:, None]) % count
    return bool((apart & apart.T & (distance > 1) & (distance < count - 1)).any())


def _enclosed(ring: NDArray[np.float64]) -> float:
    x, y = ring.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))
