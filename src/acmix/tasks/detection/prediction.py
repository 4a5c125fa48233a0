"""The objects found in one image file, as tables, commands and pages ask for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acmix.checkpoints.detector import Detections
from acmix.tasks.detection.figures import encoded_masks, result, run_lengths_of


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The objects in one image file, the surest first.

    Attributes:
        path: The file.
        detections: What was found.
        image_id: What COCO's results call the image.
        category_ids: What they call each class.
    """

    path: Path
    detections: Detections
    image_id: int | str
    category_ids: Sequence[int]

    @property
    def words(self) -> str:
        """How many of each class."""
        labels = self.detections.labels
        found = ", ".join(f"{labels.count(name)} {name}" for name in dict.fromkeys(labels))
        return found or "nothing"

    @property
    def record(self) -> dict[str, Any]:
        """For JSON: boxes as x1, y1, x2, y2 in pixels."""
        objects = [{"label": name, "score": score, "box": box} for name, score, box in self._objects()]
        return {"path": str(self.path), "objects": objects}

    @property
    def results(self) -> list[dict[str, Any]]:
        """COCO's results: of every object image_id, category_id, bbox, score and, of masks, segmentation."""
        found, masks = self.detections, encoded_masks(self.detections)
        written = [
            result(self.image_id, self.category_ids[label], score, box)
            for label, score, box in zip(
                found.classes.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True
            )
        ]
        if found.masks is not None and masks is not None:
            for one, runs in zip(written, masks, strict=True):
                one["segmentation"] = run_lengths_of(runs, found.masks.shape[-2:])
        return written

    @property
    def rows(self) -> list[list[str | float]]:
        """One row an object, see `headings`."""
        return [[name, score, *box] for name, score, box in self._objects()]

    def _objects(self) -> list[tuple[str, float, list[float]]]:
        found = self.detections
        return list(zip(found.labels, found.scores.tolist(), found.boxes.tolist(), strict=True))
