"""Which of the objects that were read are kept, and what is wrong with the others."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acmix.data.annotated.findings import Findings
from acmix.data.annotated.objects import ObjectList, Objects
from acmix.data.folders import LeftOut

# A coordinate in pixels, and the corners of what reaches beyond an image: twice the longest side that is read.
_FARTHEST = 131_070
# Pixels around a segment: of more no mask is made in bounded memory.
_LONGEST_OUTLINE = 2_000_000
# Objects of one image: detectors compare each with every anchor.
_MOST_OBJECTS = 25_000
# Pixels by which a box may reach beyond its image and nothing is said of it.
_SLACK = 1.0
# Of so many boxes most lie within their images, if they are what they should be.
_FEW = 10
_OVER, _AS_MOST = "box reaching beyond the image", ", as most do: are they written in another form?"
# Of each kind that are named.
_NAMED = 5


def sort_objects(
    read: ObjectList,
    *,
    images: NDArray[np.int64],
    labels: NDArray[np.int64],
    sizes: NDArray[np.int64],
    there: NDArray[np.bool_],
    findings: Findings,
    name: Callable[[int], str],
    broken: Sequence[int] = (),
    run_sizes: Mapping[int, tuple[int, int]] | None = None,
) -> Objects:
    """Sort what was read by images, and out.

    Args:
        read: All objects, their boxes as x1, y1, x2, y2.
        images: Index of the image of each, -1 where it is not known.
        labels: Index of the class of each, -1 where it is not known.
        sizes: Height and width of each image.
        there: Whether each image is there; of the others no object is kept.
        findings: Gets what is wrong.
        name: What to call an object.
        broken: Objects that have a segment of too few corners.
        run_sizes: Height and width of the run lengths of those that have some.

    Returns:
        The objects of the images that are there, in their order.
    """
    sort = _Sort(len(read), name)
    boxes = np.array(read.boxes).reshape(-1, 4)
    areas = np.array(read.areas)
    sort.take_off(findings.refused, "object of an unknown category", labels < 0)
    sort.take_off(findings.left_out, "object of an image not listed", images < 0)
    sort.take_off(findings.left_out, "object of an image not there", ~there[images])
    height, width = sizes[images].T
    sort.take_off(findings.refused, "box of numbers that no image has", ~(np.abs(boxes) <= _FARTHEST).all(1))
    wrong = ~np.isnan(areas) & ~((areas >= 0) & (areas <= float(_FARTHEST) ** 2))
    sort.take_off(findings.refused, "area that no object has", wrong)
    sort.take_off(findings.left_out, "box without area", (boxes[:, 2:] <= boxes[:, :2]).any(1))
    beside = (boxes[:, 0] >= width) | (boxes[:, 1] >= height) | (boxes[:, 2:] <= 0).any(1)
    sort.take_off(findings.left_out, "box outside of the image", beside)
    over = np.maximum(boxes[:, 2:] - np.stack((width, height), 1), -boxes[:, :2]).max(1) > _SLACK
    most = bool(sort.kept.sum() >= _FEW and 2 * over[sort.kept].sum() > sort.kept.sum())
    sort.tell(findings.refused if most else findings.noted, _OVER + _AS_MOST * most, over)
    _, first = np.unique(np.column_stack((images, labels, np.nan_to_num(boxes))), axis=0, return_index=True)
    sort.tell(findings.noted, "object of the image, class and box of another", ~np.isin(np.arange(len(read)), first))
    wrong = np.isin(np.arange(len(read)), broken)
    sort.take_off(findings.left_out, "segment of fewer than three corners", wrong)
    wrong = np.zeros(len(read), bool)
    for index, size in (run_sizes or {}).items():
        wrong[index] = size != (height[index], width[index])
    sort.take_off(findings.refused, "mask of run lengths of another size than the image", wrong)
    _check_outlines(read, sort, findings)
    _check_places(read, sort, boxes, np.stack((width, height), 1), findings)
    counts = np.bincount(images[sort.kept], minlength=len(sizes))
    wrong = counts[images] > _MOST_OBJECTS
    sort.take_off(findings.refused, f"object of an image with more than {_MOST_OBJECTS:,}", wrong)
    pieces = np.diff(read.pieces)
    if pieces[sort.kept].any():
        sort.tell(findings.noted, "object without a segment, so that masks are not learned", pieces == 0)
    order = np.cumsum(there) - 1
    return read.table(order[images], labels, sort.kept, int(there.sum()))


class _Sort:
    """Which objects are kept so far."""

    def __init__(self, count: int, name: Callable[[int], str]) -> None:
        self.kept, self.name = np.ones(count, bool), name

    def tell(self, reasons: LeftOut, reason: str, chosen: Any) -> None:
        """Count those of the objects that are kept, and keep them."""
        found = np.flatnonzero(self.kept & chosen).tolist()
        for index in found[:_NAMED]:
            reasons.add(reason, self.name(index))
        reasons.add(reason, "", max(0, len(found) - _NAMED))

    def take_off(self, reasons: LeftOut, reason: str, chosen: Any) -> None:
        """Count those of the objects that are kept, and keep them no longer."""
        self.tell(reasons, reason, chosen)
        self.kept &= ~chosen


def _check_outlines(read: ObjectList, sort: _Sort, findings: Findings) -> None:
    """Refuse polygons that lie nowhere, or of which no mask is made in bounded memory."""
    numbers, edges, pieces = np.array(read.numbers), np.array(read.edges), np.array(read.pieces)
    first, last = edges[pieces[:-1]], edges[pieces[1:]]
    outlined = ~np.array(read.runs, bool)

    def amount(values: NDArray[Any]) -> NDArray[np.float64]:
        """Sums over the numbers of each object that has polygons."""
        sums = np.concatenate(([0.0], np.cumsum(values)))
        return np.where(outlined, sums[last] - sums[first], 0)

    far = ~(np.abs(numbers) <= _FARTHEST)
    sort.take_off(findings.refused, "polygon of numbers that no image has", amount(far) > 0)
    numbers[far] = 0
    steps = np.zeros(len(numbers))
    steps[2:] = np.abs(numbers[2:] - numbers[:-2])
    # No step leads from one ring to the next.
    steps[edges[:-1]] = steps[np.minimum(edges[:-1] + 1, len(steps) - 1)] = 0
    # A corner costs as much as a pixel.
    outline = amount(steps + 0.5)
    sort.take_off(findings.refused, f"outline of more than {_LONGEST_OUTLINE:,} pixels", outline > _LONGEST_OUTLINE)


def _check_places(
    read: ObjectList, sort: _Sort, boxes: NDArray[np.float64], sides: NDArray[np.int64], findings: Findings
) -> None:
    """Refuse polygons of another object than their box, and leave out segments of which the image shows nothing."""
    numbers, edges, pieces = np.array(read.numbers), np.array(read.edges), np.array(read.pieces)
    runs = np.array(read.runs, bool)
    own = np.flatnonzero(np.diff(pieces))
    starts = edges[pieces[own]]
    odd = (np.arange(len(numbers)) - np.repeat(edges[:-1], np.diff(edges))) % 2 == 1
    empty, corners = np.zeros(len(read), bool), np.tile((-np.inf, -np.inf, np.inf, np.inf), (len(read), 1))
    empty[own] = np.add.reduceat(np.where(odd, numbers, 0), starts) == 0
    for at, chosen in enumerate((odd, ~odd)):
        corners[own, at] = np.minimum.reduceat(np.where(chosen, np.inf, numbers), starts)
        corners[own, at + 2] = np.maximum.reduceat(np.where(chosen, -np.inf, numbers), starts)
    corners[runs] = (-np.inf, -np.inf, np.inf, np.inf)
    apart = (corners[:, :2] > boxes[:, 2:] + _SLACK).any(1) | (corners[:, 2:] < boxes[:, :2] - _SLACK).any(1)
    sort.take_off(findings.refused, "polygon apart from the box", apart)
    beside = (corners[:, :2] >= sides).any(1) | (corners[:, 2:] <= 0).any(1)
    sort.take_off(findings.left_out, "segment without a pixel in the image", (runs & empty) | beside)
