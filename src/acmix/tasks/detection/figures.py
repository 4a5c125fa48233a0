"""COCO's figures of detections, by faster-coco-eval: the numbers of pycocotools."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from acmix.checkpoints.detector import Detections
from acmix.data.annotated import AnnotatedImages

# The twelve figures in COCO's order.
NAMES = (
    *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
    *("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"),
)
# COCO counts so many detections of an image.
_MOST = 100


class Found(NamedTuple):
    """Detections of images, packed.

    Attributes:
        rows: `(N, 7)`: index of the image, label, score, x1, y1, x2, y2.
        masks: The run lengths of each, as COCO's text; None without.
    """

    rows: NDArray[np.float64]
    masks: list[bytes] | None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The twelve figures of COCO, 0..1; -1 where there is nothing to find. And those of every class.

    Attributes:
        overall: By the names of `NAMES`.
        by_class: AP and AP50 of each class.
        precision: At 101 recalls, of each class at an intersection over union of 0.5, `(101, classes)`.
    """

    overall: dict[str, float]
    by_class: list[tuple[float, float]]
    precision: NDArray[np.float64]


def check_installed() -> None:
    """Raise ModuleNotFoundError where faster-coco-eval is missing: before hours are spent on what it is to count."""
    import_module("faster_coco_eval")


def encoded_masks(detections: Detections) -> list[bytes] | None:
    """The run lengths of masks, as COCO's text."""
    from faster_coco_eval.core import mask

    if detections.masks is None:
        return None
    encode: Any = mask.encode
    return [encode(np.asfortranarray(each.numpy().astype(np.uint8)))["counts"] for each in detections.masks]


def rows_of(index: int, detections: Detections) -> NDArray[np.float64]:
    """The rows of `Found` of one image."""
    count = len(detections)
    parts = (
        np.full((count, 1), index, float),
        detections.classes.numpy().reshape(-1, 1),
        detections.scores.numpy().reshape(-1, 1),
        detections.boxes.numpy().reshape(-1, 4),
    )
    return np.concatenate(parts, 1).astype(np.float64)


def ground_truth(images: AnnotatedImages) -> dict[str, Any]:
    """The annotations of images as COCO's JSON."""
    objects = images.objects
    described = [
        {"id": int(identity), "height": int(height), "width": int(width)}
        for identity, (height, width) in zip(images.image_ids, images.sizes, strict=True)
    ]
    annotations: list[dict[str, Any]] = []
    for index, image in enumerate(described):
        for place in range(objects.of(index).start, objects.of(index).stop):
            left, top, right, bottom = objects.boxes[place].tolist()
            one: dict[str, Any] = {
                "id": place + 1,
                "image_id": image["id"],
                "category_id": images.category_ids[int(objects.labels[place])],
                "bbox": [left, top, right - left, bottom - top],
                "area": float(objects.areas[place]),
                "iscrowd": int(objects.crowd[place]),
            }
            if images.has_masks and (segment := objects.segment(place)) is not None:
                one["segmentation"] = segment.to_coco(image["height"], image["width"])
            annotations.append(one)
    categories = [
        {"id": identity, "name": name} for identity, name in zip(images.category_ids, images.classes, strict=True)
    ]
    return {"info": {}, "images": described, "annotations": annotations, "categories": categories}


def results(images: AnnotatedImages, found: Found, *, masks: bool = False) -> list[dict[str, Any]]:
    """Detections as COCO's results.

    Args:
        images: Whose ids they have.
        found: The detections.
        masks: With segments, which are what is compared then.
    """
    written: list[dict[str, Any]] = []
    for place, (index, label, score, *box) in enumerate(found.rows.tolist()):
        one = result(int(images.image_ids[int(index)]), int(images.category_ids[int(label)]), score, box)
        if masks and found.masks is not None:
            # Boxes would be compared in the place of masks.
            del one["bbox"]
            one["segmentation"] = run_lengths_of(found.masks[place], images.sizes[int(index)].tolist())
        written.append(one)
    return written


def result(image_id: int | str, category_id: int, score: float, box: Sequence[float]) -> dict[str, Any]:
    """A detection as COCO's results have it, of a box x1, y1, x2, y2."""
    left, top, right, bottom = box
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [left, top, right - left, bottom - top],
        "score": score,
    }


def run_lengths_of(runs: bytes, size: Sequence[int]) -> dict[str, Any]:
    """A mask of height and width as COCO's results have it."""
    return {"size": [*size], "counts": runs.decode()}


def compare(images: AnnotatedImages, found: Found, *, masks: bool = False) -> Figures:
    """The figures of detections against annotations, of boxes or of masks."""
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(ground_truth(images))
    evaluation = COCOeval_faster(truth, truth.loadRes(results(images, found, masks=masks)), "segm" if masks else "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    # Overlaps, recalls, classes, areas (all of them first), and numbers of detections (100 last).
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    by_class = [(_mean(precision[:, :, at]), _mean(precision[0, :, at])) for at in range(len(images.classes))]
    # COCO sorts categories by their ids.
    order = np.argsort(np.argsort(images.category_ids))
    return Figures(
        overall=dict(zip(NAMES, map(float, evaluation.stats[: len(NAMES)]), strict=True)),
        by_class=[by_class[at] for at in order],
        precision=np.asarray(precision[0][:, order]),
    )


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


def joined(parts: Sequence[Found]) -> Found:
    """Detections of several images."""
    masks = None if any(part.masks is None for part in parts) else [each for part in parts for each in part.masks or ()]
    return Found(np.concatenate([np.zeros((0, 7)), *(part.rows for part in parts)]), masks)
