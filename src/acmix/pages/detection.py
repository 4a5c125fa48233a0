"""What the report of a detector's run shows beside what all reports do, and its predictions on pictures."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from acmix.checkpoints.detector import Detector
from acmix.data import data_record
from acmix.data.annotated import AnnotatedImages, Runs, find_annotated_evaluation
from acmix.data.annotated.segments import run_lengths
from acmix.errors import InputError
from acmix.pages import figures, html, precision
from acmix.pages.marks import Mark, marked
from acmix.progress import Progress
from acmix.tasks.detection.figures import Figures, compare, joined
from acmix.tasks.detection.inference import Outcome, search, tally
from acmix.tasks.detection.matching import OVERLAP, Matches, confusion, match
from acmix.tasks.detection.prediction import Prediction
from acmix.tasks.record import Run

# Pictures of one kind, their longest side, pairs of classes; the least score of a detection that is looked at.
_TILES, _SIDE, _PAIRS, _SCORE = 6, 400, 10, 0.5
_NOTHING = "nothing there"
# What the report's template needs, whether it is known or not.
_UNKNOWN: dict[str, Any] = {"measures": [], "by_class": None, "confusion": None, "confused": []} | {
    "shown": {"hardest": [], "missed": [], "mistaken": [], "right": []}
}


@dataclass(frozen=True)
class _Tile:
    """One validation image: its objects, what the network found, and how many of which sort there are."""

    name: str
    truth: str
    found: str
    objects: int
    missed: int
    confused: int
    in_vain: int
    loss: float | None

    @property
    def right(self) -> bool:
        """Whether nothing is wrong with it."""
        return not (self.missed or self.confused or self.in_vain)

    @property
    def words(self) -> str:
        """What is right and wrong with it."""
        faults = {"missed": self.missed, "of another class": self.confused, "found in vain": self.in_vain}
        named = ", ".join(f"{count} {words}" for words, count in faults.items() if count)
        return (named or "all found") + ("" if self.loss is None else f", loss {self.loss:.3f}")


def draw(image: Image.Image, prediction: Prediction) -> dict[str, bytes]:
    """A PNG of a picture with the objects found on it."""
    found = prediction.detections
    marks = [
        Mark(
            box=tuple(found.boxes[at].tolist()),
            label=int(found.classes[at]),
            name=found.labels[at],
            score=float(found.scores[at]),
            mask=None if found.masks is None else found.masks[at].numpy(),
        )
        for at in range(len(found))
    ]
    return {".png": marked(image, marks)}


def contents(seen: dict[str, Any]) -> list[tuple[str, str]]:
    """The parts of a report that this adds: anchor and words of each."""
    parts = [("objects", "Objects")] if seen["measures"] else []
    return [*parts, ("predictions", "Predictions")]


def known(found: Run) -> dict[str, Any]:
    """What a report shows without looking at images."""
    return _UNKNOWN if found.summary is None else _UNKNOWN | _measures(found.summary["validation"])


def look(
    found: Run,
    detector: Detector,
    data: str | None,
    *,
    workers: int,
    progress: Progress,
    outcomes: Sequence[Outcome] | None,
) -> dict[str, Any]:
    """All that needs the best checkpoint and the validation images.

    Raises:
        InputError: If they cannot be had.
    """
    record = data_record(found.config)
    place = data or record.location
    images: AnnotatedImages = find_annotated_evaluation(place, detector.classes, record, check_images=False).images
    if outcomes is None:
        outcomes = list(progress(search(detector, images, workers=workers, losses=True), "validating", len(images)))
    evaluation = asdict(tally(outcomes, images))
    together = compare(images, joined([outcome.found for outcome in outcomes]))
    pairs = [(outcome, match(images, outcome, score=_SCORE)) for outcome in outcomes]
    return (
        _UNKNOWN
        | _measures(evaluation, together)
        | _confusion(confusion(images, [matches for _, matches in pairs]), images.classes)
        | {"shown": _tiles(images, pairs)}
    )


def _measures(evaluation: dict[str, Any], together: Figures | None = None) -> dict[str, Any]:
    """Figures and a table of how exact and how complete the detections are."""
    classes = evaluation["classes"]
    panels = [
        html.Panel(
            "Average precision by size", precision.by_size(evaluation, "AP", "map"), "Sizes as COCO divides them."
        ),
        html.Panel(
            "Recall by size", precision.by_size(evaluation, "recall", "mar"), "With a hundred detections an image."
        ),
    ]
    if together is not None:
        names, counts = [each["name"] for each in classes], [each["objects"] for each in classes]
        curve = precision.precision_over_recall(together.precision, names, counts)
        note = f"Boxes count from an intersection over union of {OVERLAP:g} on."
        panels.insert(0, html.Panel("Precision over recall", curve, note))
    masks = any(each.get("mask_map") is not None for each in classes)
    columns = {"map": "AP", "map_50": "AP50"} | ({"mask_map": "AP of masks"} if masks else {})
    rows = [
        [each["name"], f"{each['objects']:,}", *(_percent(each[column]) for column in columns)]
        for each in sorted(classes, key=lambda each: each["map"])
    ]
    return {"measures": panels, "by_class": (["class", "objects", *columns.values()], rows)}


def _percent(share: float | None) -> str:
    return "-" if share is None or share < 0 else f"{100 * share:.1f} %"


def _confusion(matrix: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    names = [*classes, _NOTHING]
    pairs = [
        (int(matrix[true, taken]), names[true], names[taken])
        for true, taken in zip(*matrix.nonzero(), strict=True)
        if true != taken
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    drawn = figures.confusion(matrix.tolist(), names, "Objects")
    note = (
        f"Colour is the share of the true class; numbers are objects. The last row is what was found where nothing is, "
        f"the last column what was missed, of detections with a score of at least {_SCORE:g}."
    )
    confused = [(true, taken, f"{count:,}") for count, true, taken in pairs[:_PAIRS]]
    return {"confusion": html.Panel("Confusion matrix", drawn, note), "confused": confused}


def _tiles(images: AnnotatedImages, pairs: Sequence[tuple[Outcome, Matches]]) -> dict[str, list[_Tile]]:
    """Validation images of four kinds, the most telling first."""

    def most(worth: Callable[[Matches], float]) -> list[_Tile]:
        ranked = sorted(pairs, key=lambda pair: -worth(pair[1]))[:_TILES]
        return [_tile(images, *pair) for pair in ranked if worth(pair[1]) > 0]

    known = [pair for pair in pairs if pair[0].loss is not None]
    hardest = sorted(known, key=lambda pair: -(pair[0].loss or 0))[:_TILES]

    def mistakes(matches: Matches) -> float:
        wrong = matches.rows[matches.in_vain | matches.confused, 2]
        return float(wrong.max(initial=0))

    def success(matches: Matches) -> float:
        perfect = not (len(matches.missed) or matches.in_vain.any() or matches.confused.any())
        return float(matches.rows[:, 2].min()) if perfect and len(matches.rows) else 0.0

    missed = most(lambda matches: len(matches.missed) + matches.confused.sum())
    return {
        "hardest": [_tile(images, *pair) for pair in hardest],
        "missed": missed,
        "mistaken": most(mistakes),
        "right": most(success),
    }


def _tile(images: AnnotatedImages, outcome: Outcome, matches: Matches) -> _Tile:
    picture, truth = images.read(outcome.index)
    first = images.objects.of(outcome.index).start
    try:
        masks = truth.masks(picture.height, picture.width).numpy() if images.has_masks else None
    except InputError:
        # Too many to be drawn.
        masks = None
    there = [
        Mark(
            box=tuple(box),
            label=label,
            name=images.classes[label],
            mask=None if masks is None else masks[at],
            note="missed" if first + at in matches.missed else "",
        )
        for at, (box, label) in enumerate(zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True))
    ]
    coded = outcome.found.masks
    found = [
        Mark(
            box=tuple(row[3:]),
            label=int(row[1]),
            name=images.classes[int(row[1])],
            score=row[2],
            mask=None
            if coded is None
            else Runs(run_lengths(coded[place].decode())).mask(picture.height, picture.width),
            note="in vain" if vain else f"is {images.classes[true]}" if wrong else "",
        )
        for row, place, true, vain, wrong in zip(
            matches.rows.tolist(), matches.places, matches.truth, matches.in_vain, matches.confused, strict=True
        )
    ]
    return _Tile(
        name=images.name(outcome.index),
        truth=html.png(marked(picture, there, _SIDE)),
        found=html.png(marked(picture, found, _SIDE)),
        objects=len(there),
        missed=len(matches.missed),
        confused=int(matches.confused.sum()),
        in_vain=int(matches.in_vain.sum()),
        loss=outcome.loss,
    )
