"""What the report of a detector's run shows beside what all reports do, and its predictions on pictures."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from acmix.checkpoints.detector import Detector
from acmix.pages.marks import Mark, marked
from acmix.progress import Progress
from acmix.tasks.detection.inference import Outcome, Prediction
from acmix.tasks.record import Run


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
    return [("predictions", "Predictions")] if seen["evaluation"] else []


def known(found: Run) -> dict[str, Any]:
    """What a report shows without looking at images."""
    return {"evaluation": None if found.summary is None else found.summary["validation"]}


def look(
    found: Run,
    detector: Detector,
    data: str | None,
    *,
    workers: int,
    progress: Progress,
    outcomes: Sequence[Outcome] | None,
) -> dict[str, Any]:
    """All that needs the best checkpoint and the validation images."""
    del detector, data, workers, progress, outcomes
    return known(found)
