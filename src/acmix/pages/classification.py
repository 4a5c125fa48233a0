"""What the report of a classifier's run shows beside what all reports do, and its predictions on pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from acmix import explain, records
from acmix.checkpoints.classifier import THRESHOLD, Classifier, chosen
from acmix.data import ImageSource, data_record, open_evaluation
from acmix.data.labels import in_words
from acmix.pages import figures, html
from acmix.pages.drawings import drawing
from acmix.progress import Progress
from acmix.tasks.classification.inference import Outcome, Prediction, classify, tally
from acmix.tasks.classification.multi_label import (
    LabelsOutcome,
    LabelsPrediction,
    MultiLabelEvaluation,
    tally_labels,
    words_of,
)
from acmix.tasks.record import Run

# Pictures of one kind, images whose layers are looked into, pairs of classes.
_TILES, _EXAMPLES, _PAIRS = 12, 4, 10
# What the report's template needs, whether it is known or not.
_NOTHING: dict[str, Any] = {"paths": None, "shares": []} | dict.fromkeys(
    ("confusion", "confused", "scores", "mistakes", "hardest", "easiest", "examples", "shown")
)


@dataclass(frozen=True)
class _Tile:
    """One validation image and what the network made of it."""

    name: str
    picture: str
    truth: str
    prediction: str
    probability: str
    loss: str


def draw(image: Image.Image, prediction: Prediction | LabelsPrediction) -> dict[str, bytes]:
    """A PNG of a picture with its most probable classes, or all its labels, written below it."""
    if isinstance(prediction, LabelsPrediction):
        return {".png": drawing(image, prediction.labels, most=len(prediction.labels))}
    return {".png": drawing(image, prediction.scores)}


def contents(seen: dict[str, Any]) -> list[tuple[str, str]]:
    """The parts of a report that this adds: anchor and words of each."""
    parts = {"confusion": ("confusions", "Confusions"), "scores": ("labels", "Labels")}
    return [*(part for name, part in parts.items() if seen[name]), ("predictions", "Predictions")]


def known(found: Run) -> dict[str, Any]:
    """What a report shows without looking at images."""
    if found.summary is None:
        return _NOTHING
    validation = found.summary["validation"]
    if found.config.get("multi_label"):
        return _NOTHING | _scores(records.read(MultiLabelEvaluation, validation, others=True))
    return _NOTHING | _confusion(validation["confusion_matrix"], found.config["classes"])


def look(
    found: Run,
    classifier: Classifier,
    data: str | None,
    *,
    workers: int,
    progress: Progress,
    outcomes: Sequence[Any] | None,
) -> dict[str, Any]:
    """All that needs the best checkpoint and the validation images.

    Raises:
        InputError: If they cannot be had.
    """
    # A run that was resumed knows where the data lie now.
    record = data_record(found.config)
    images = open_evaluation(
        data or record.location,
        classifier.classes,
        record,
        multi_label=classifier.multi_label,
        check_images=False,
    )
    if outcomes is None:
        outcomes = list(progress(classify(classifier, images, workers=workers), "validating", len(images)))
    hardest = sorted(outcomes, key=lambda item: -item.loss)
    easiest = sorted((item for item in outcomes if item.right), key=lambda item: item.loss)
    groups = {"hardest": hardest, "easiest": easiest}
    if classifier.multi_label:
        counted = _scores(tally_labels(outcomes, classifier.classes))
    else:
        wrong = (item for item in outcomes if not item.right)
        groups["mistakes"] = sorted(wrong, key=lambda item: -item.probability)
        counted = _confusion(tally(outcomes, classifier.classes).confusion_matrix, classifier.classes)
    shown = images.with_transform(classifier.transform)
    tiles = {name: [_tile(classifier, shown, item) for item in group[:_TILES]] for name, group in groups.items()}
    classifier.model.cpu()
    return _NOTHING | tiles | counted | _look_inside(classifier, shown)


def _tile(classifier: Classifier, images: ImageSource, outcome: Outcome | LabelsOutcome) -> _Tile:
    if isinstance(outcome, LabelsOutcome):
        truth, prediction = words_of(outcome, classifier.classes)
        return _Tile(
            name=images.name(outcome.index),
            picture=html.png(classifier.as_seen(images[outcome.index][0])),
            truth=truth,
            prediction=prediction,
            probability="",
            loss=f"{outcome.loss:.3f}",
        )
    return _Tile(
        name=images.name(outcome.index),
        picture=html.png(classifier.as_seen(images[outcome.index][0])),
        truth=classifier.classes[outcome.label],
        prediction=classifier.classes[outcome.prediction],
        probability=f"{100 * outcome.probability:.1f} %",
        loss=f"{outcome.loss:.3f}",
    )


def _scores(evaluation: MultiLabelEvaluation) -> dict[str, Any]:
    (table,) = evaluation.tables
    return {"scores": {"words": evaluation.words, "title": table.title, "heading": table.heading, "rows": table.rows}}


def _confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> dict[str, Any]:
    pairs = [
        (count, true, taken)
        for true, row in enumerate(matrix)
        for taken, count in enumerate(row)
        if count and true != taken
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    confused = [
        (classes[true], classes[taken], count, f"{100 * count / sum(matrix[true]):.1f} %")
        for count, true, taken in pairs[:_PAIRS]
    ]
    note = "Colour is the share of the true class, from none to all of it; numbers are images."
    return {"confusion": html.Panel("Confusion matrix", figures.confusion(matrix, classes), note), "confused": confused}


def _look_inside(classifier: Classifier, images: ImageSource) -> dict[str, Any]:
    """Paths of every layer and attention of the first, for a few images that lie evenly over the whole set."""
    count = min(_EXAMPLES, len(images))
    samples = [images[index * len(images) // count] for index in range(count)]
    batch = torch.stack([tensor for tensor, _ in samples])
    inputs = explain.layer_arguments(classifier.model, batch)
    if not inputs:
        return {}
    shares = explain.path_shares(classifier.model, [batch])
    name, (features, *beside) = next(iter(inputs.items()))
    layer = explain.operators(classifier.model)[name]
    examples = []
    for number, (tensor, (_, target), feature) in enumerate(zip(batch, samples, features, strict=True), 1):
        picture = classifier.as_seen(tensor)
        height, width = layer.map_size(feature[None], *beside)
        cell = _brightest_cell(picture, (height, width), layer.stride[0])
        with torch.no_grad():
            maps = layer.attention_of(cell, feature[None], *beside)[0]
        place = f"Row {cell[0]}, column {cell[1]} of the {height} x {width} map of {name}."
        examples.append(
            html.Panel(
                f"Image {number}, of {_words(target, classifier.classes)}",
                figures.attention(picture, maps, cell),
                place,
            )
        )
    note = f"Sizes are roots of the mean square over {count} validation images."
    panel = html.Panel("What either path adds to the output", figures.path_shares(shares), note)
    return {"examples": examples, "shown": layer.shown, "shares": shares, "paths": panel}


def _words(target: int | Tensor, classes: Sequence[str]) -> str:
    return in_words(target if isinstance(target, int) else tuple(chosen(target, THRESHOLD)), classes)


def _brightest_cell(picture: Image.Image, cells: tuple[int, int], stride: int) -> tuple[int, int]:
    """The query whose pixels are brightest, a stroke of a digit for instance."""
    height, width = ((size + stride - 1) // stride for size in cells)
    gray = picture.convert("L").resize((width, height), Image.Resampling.BOX)
    place = max(range(height * width), key=gray.tobytes().__getitem__)
    return place // width * stride, place % width * stride
