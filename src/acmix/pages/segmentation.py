"""What the report of a segmenter's run shows beside what all reports do, and its predictions on pictures."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from acmix.checkpoints.segmenter import Segmenter
from acmix.data import data_record
from acmix.data.masks.images import MaskedImages
from acmix.errors import counted
from acmix.pages import figures, html
from acmix.pages.colours import class_colour
from acmix.pages.lettering import sized
from acmix.pages.overlays import numbers, overlaid, segmented
from acmix.progress import Progress
from acmix.tasks.record import Run
from acmix.tasks.segmentation.inference import Outcome, Prediction, held_out, segment, tally

# Pictures of one kind, pairs of classes, classes in a figure.
_TILES, _PAIRS, _BARS = 8, 10, 30
# What the report's template needs, whether it is known or not.
_NOTHING: dict[str, Any] = {"colours": []} | dict.fromkeys(
    ("confusion", "confused", "by_class", "scores", "worst", "hardest", "easiest")
)


@dataclass(frozen=True)
class _Tile:
    """One validation image, its mask and what the network made of it."""

    name: str
    picture: str
    mean_iou: str
    loss: str


def draw(image: Image.Image, prediction: Prediction) -> dict[str, bytes]:
    """A PNG of a picture in the colours of its classes, and one of their numbers."""
    return {
        ".png": segmented(image, prediction.labels, prediction.classes),
        "-mask.png": numbers(prediction.labels, prediction.mask_values),
    }


def contents(seen: dict[str, Any]) -> list[tuple[str, str]]:
    """The parts of a report that this adds: anchor and words of each."""
    classes = [("confusions", "Classes")] if seen["scores"] else []
    return [*classes, ("predictions", "Predictions")]


def known(found: Run) -> dict[str, Any]:
    """What a report shows without looking at images."""
    return _NOTHING if found.summary is None else _NOTHING | _counted(found.summary["validation"])


def look(
    found: Run,
    segmenter: Segmenter,
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
    # A run that was resumed knows where the data lie now.
    record = data_record(found.config)
    images: MaskedImages = held_out(segmenter, data or record.location, record, check_images=False).images
    if outcomes is None:
        outcomes = list(progress(segment(segmenter, images, workers=workers), "validating", len(images)))
    seen = [outcome for outcome in outcomes if outcome.pixels]
    groups = {
        "worst": sorted(seen, key=lambda item: item.mean_iou),
        "hardest": sorted(seen, key=lambda item: -item.loss),
        "easiest": sorted(seen, key=lambda item: -item.mean_iou),
    }
    tiles = {name: [_tile(segmenter, images, item) for item in group[:_TILES]] for name, group in groups.items()}
    colours = [(name, class_colour(label)) for label, name in enumerate(segmenter.classes[:_BARS])]
    evaluation = tally(outcomes, segmenter.classes)
    return _NOTHING | {"colours": colours} | tiles | _counted(asdict(evaluation))


def _tile(segmenter: Segmenter, images: MaskedImages, outcome: Outcome) -> _Tile:
    picture, labels = images.read(outcome.index)
    (found,) = segmenter.predict(picture)
    # What the mask does not know is not held against the prediction, and not shown of it.
    parts = [sized(picture), overlaid(picture, labels), overlaid(picture, np.where(labels < 0, -1, found))]
    width, height = parts[0].size
    whole = Image.new("RGB", (3 * width + 8, height), "#ffffff")
    for place, part in enumerate(parts):
        whole.paste(part, (place * (width + 4), 0))
    return _Tile(
        name=images.name(outcome.index),
        picture=html.png(whole),
        mean_iou=f"{100 * outcome.mean_iou:.1f} %",
        loss=f"{outcome.loss:.3f}",
    )


def _counted(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Figures and tables of an evaluation, as summary.json has it."""
    scores, matrix = evaluation["classes"], evaluation["confusion_matrix"]
    names = [score["name"] for score in scores]
    table = [
        (score["name"], f"{score['pixels']:,}", _percent(score["iou"]), _percent(score["accuracy"])) for score in scores
    ]
    pairs = sorted(
        (
            (count / sum(row), count, names[true], names[taken])
            for true, row in enumerate(matrix)
            for taken, count in enumerate(row)
            if count and true != taken
        ),
        reverse=True,
    )
    confused = [(true, taken, f"{count:,}", f"{100 * share:.1f} %") for share, count, true, taken in pairs[:_PAIRS]]
    bars = sorted((score["iou"], score["name"]) for score in scores if score["iou"] is not None)
    note = f"The lowest {_BARS} of {counted(len(bars), 'class')}. " if len(bars) > _BARS else ""
    note += "Pixels that are of the class in mask and prediction, over those that are in either, over all images."
    by_class = figures.by_class("IoU, %", [name for _, name in bars[:_BARS]], [100 * iou for iou, _ in bars[:_BARS]])
    shares = "Numbers and colour are shares of the true class, in %."
    return {
        "scores": table,
        "by_class": html.Panel("IoU of every class", by_class, note),
        "confusion": html.Panel(
            "Confusion matrix of pixels", figures.confusion(matrix, names, "Pixels", shares=True), shares
        ),
        "confused": confused,
    }


def _percent(share: float | None) -> str:
    return "-" if share is None or math.isnan(share) else f"{100 * share:.2f} %"
