"""What became of the objects of annotated images: found, confused, missed; and what was found in vain."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import from_numpy
from torchvision.ops import box_iou

from acmix.data.annotated import AnnotatedImages
from acmix.tasks.detection.inference import Outcome

# Boxes of this intersection over union are of one object.
OVERLAP = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """What became of the objects of one image, crowds left aside.

    Attributes:
        index: Of the image in its source.
        rows: `(N, 7)`: the detections that count, the surest first, see `acmix.tasks.detection.figures.Found`.
        places: `(N,)`: of each detection in `Found.rows`.
        truth: `(N,)`: the class of the object that each detection stands for; -1 for none.
        missed: Objects that no detection stands for, into the objects of the source.
    """

    index: int
    rows: NDArray[np.float64]
    places: NDArray[np.int64]
    truth: NDArray[np.int64]
    missed: NDArray[np.int64]

    @property
    def confused(self) -> NDArray[np.bool_]:
        """Which detections stand for an object of another class."""
        return (self.truth >= 0) & (self.truth != self.rows[:, 1])

    @property
    def in_vain(self) -> NDArray[np.bool_]:
        """Which detections stand for no object."""
        return self.truth < 0


def match(images: AnnotatedImages, outcome: Outcome, *, score: float) -> Matches:
    """Match detections and objects, the surest detection first, each with the one that it covers best.

    An object of the class that was found goes before others; what lies in a crowd is left aside.

    Args:
        images: The annotated images.
        outcome: Of one of them.
        score: The least score of a detection that counts.
    """
    objects = images.objects
    here = np.arange(objects.of(outcome.index).start, objects.of(outcome.index).stop)
    places = np.flatnonzero(outcome.found.rows[:, 2] >= score)
    places = places[np.argsort(-outcome.found.rows[places, 2], kind="stable")]
    rows = outcome.found.rows[places]
    overlaps = box_iou(from_numpy(rows[:, 3:7]), from_numpy(objects.boxes[here])).numpy()
    crowd = objects.crowd[here]
    labels = objects.labels[here]
    truth, free, aside = np.full(len(rows), -1, np.int64), ~crowd, np.zeros(len(rows), bool)
    for at, covered in enumerate(overlaps):
        # The right class is worth more than any overlap.
        worth = np.where(free & (covered >= OVERLAP), covered + 2 * (labels == rows[at, 1]), 0)
        if worth.any():
            best = int(worth.argmax())
            truth[at], free[best] = labels[best], False
        else:
            aside[at] = _covered(rows[at, 3:7], objects.boxes[here[crowd]]) >= OVERLAP
    return Matches(
        index=outcome.index,
        rows=rows[~aside],
        places=places[~aside],
        truth=truth[~aside],
        missed=here[free],
    )


def _covered(box: NDArray[np.float64], crowds: NDArray[np.float64]) -> float:
    """The largest share of a box that lies in one crowd."""
    corners = np.maximum(box[:2], crowds[:, :2]), np.minimum(box[2:], crowds[:, 2:])
    width, height = np.maximum(0, corners[1] - corners[0]).T
    return float((width * height).max(initial=0) / max(1e-9, (box[2] - box[0]) * (box[3] - box[1])))


def confusion(images: AnnotatedImages, matches: Sequence[Matches]) -> NDArray[np.int64]:
    """How often an object of a class was found as which, `(classes + 1, classes + 1)`: rows are true classes.

    The last row counts what was found where no object is, the last column objects that were missed.
    """
    nothing = len(images.classes)
    counts = np.zeros((nothing + 1, nothing + 1), np.int64)
    for each in matches:
        np.add.at(counts, (np.where(each.truth < 0, nothing, each.truth), each.rows[:, 1].astype(np.int64)), 1)
        counts[:, nothing] += np.bincount(images.objects.labels[each.missed], minlength=nothing + 1)
    return counts
