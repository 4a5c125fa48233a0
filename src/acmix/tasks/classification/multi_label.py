"""Images with any number of labels: what a classifier made of them, and how good it is."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.classification import MultilabelAveragePrecision
from torchmetrics.utilities import dim_zero_cat

from acmix.checkpoints.classifier import THRESHOLD, chosen
from acmix.data.labels import in_words
from acmix.errors import InputError, counted
from acmix.tasks.loop.results import Table


@dataclass(frozen=True, eq=False)
class LabelsOutcome:
    """What a classifier made of one image that may have any number of labels.

    Attributes:
        index: Of the image in its source.
        labels: Those it has.
        predictions: Those whose probability is above 0.5.
        probabilities: Of all classes, `(classes,)`.
        loss: Mean binary cross-entropy of the classes.
    """

    index: int
    labels: tuple[int, ...]
    predictions: tuple[int, ...]
    probabilities: Tensor
    loss: float

    @property
    def right(self) -> bool:
        """Whether the predictions are the labels."""
        return self.labels == self.predictions


@dataclass(frozen=True, kw_only=True)
class LabelScore:
    """How one label fared, 0..1.

    Attributes:
        name: Of the class.
        images: That have it.
        average_precision: Area under precision over recall; None where no image has it.
        precision: Of predictions at 0.5; 0 where there are none.
        recall: Of predictions at 0.5; 0 where no image has it.
        f1: Of both.
    """

    name: str
    images: int
    average_precision: float | None
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True)
class MultiLabelEvaluation:
    """How good a classifier is on images that may have any number of labels, as torchmetrics counts.

    Attributes:
        images: How many images were classified.
        map: Mean of the classes' average precisions, of those that some image has.
        f1: Mean of the classes' F1 at 0.5; one that no image has counts as 0.
        f1_micro: F1 at 0.5 of all decisions together.
        threshold: Above which a probability is a prediction.
        classes: One score a class.
    """

    images: int
    map: float
    f1: float
    f1_micro: float
    threshold: float
    classes: list[LabelScore]

    @property
    def first(self) -> float:
        """The first of the measures."""
        return self.map

    @property
    def words(self) -> str:
        """The measures, and of which classes the first is the mean."""
        missing = [score.name for score in self.classes if score.average_precision is None]
        of = f" of {len(self.classes) - len(missing)} classes, as no image has {', '.join(missing)}" if missing else ""
        return f"{counted(self.images, 'image')}: mAP {self.map:.2%}{of}, F1 {self.f1:.2%} (micro {self.f1_micro:.2%})"

    @property
    def tables(self) -> list[Table]:
        """Scores by class."""
        rows = [(score.name, str(score.images), *map(_share, _shares(score))) for score in self.classes]
        return [Table(f"per class, predicted above {self.threshold:g}", HEADING, rows)]


HEADING = ("class", "images", "AP", "recall", "precision", "F1")


def _shares(score: LabelScore) -> tuple[float | None, ...]:
    return score.average_precision, score.recall, score.precision, score.f1


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


@dataclass(frozen=True, kw_only=True)
class LabelsPrediction:
    """The labels of one image file.

    Attributes:
        path: The file.
        labels: (class, probability) of those above the threshold, the most probable first.
        scores: (class, probability) of the most probable classes, whatever their probability.
    """

    path: Path
    labels: list[tuple[str, float]]
    scores: list[tuple[str, float]]

    @property
    def words(self) -> str:
        """All labels in a line; without any, the most probable class."""
        if self.labels:
            return "  ".join(f"{name} {value:.1%}" for name, value in self.labels)
        name, value = self.scores[0]
        return f"no label; the most probable: {name} {value:.1%}"

    @property
    def record(self) -> dict[str, Any]:
        """For JSON."""
        classes = [{"name": name, "probability": value} for name, value in self.scores]
        return {"path": str(self.path), "labels": [name for name, _ in self.labels], "classes": classes}

    @property
    def results(self) -> list[dict[str, Any]]:
        """The record alone."""
        return [self.record]

    @property
    def rows(self) -> list[list[str | float]]:
        """One row: the labels, then the most probable classes."""
        return [[";".join(name for name, _ in self.labels), *(cell for score in self.scores for cell in score)]]


class MeanAveragePrecision(MultilabelAveragePrecision):
    """torchmetrics' average precisions, and of them the mean over the classes that some image has.

    Of the others its versions make 0 or NaN.

    Args:
        classes: How many.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes, average="none")

    def compute(self) -> Tensor:
        """The mean so far."""
        with _without_warnings():
            precisions = super().compute()
        return precisions[dim_zero_cat(self.target).any(0)].mean()


@contextmanager
def _without_warnings() -> Iterator[None]:
    """What torchmetrics warns of, classes that no image has, is said by us."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def probabilities_of(logits: Tensor) -> Tensor:
    """Probabilities of classes each by itself, finely enough that logits of any size keep their order."""
    # In float32 all logits above 17 would be equal; Apple's GPUs have nothing finer.
    return (logits if logits.device.type == "mps" else logits.double()).sigmoid()


def label_outcomes(logits: Tensor, probabilities: Tensor, targets: Tensor, first: int) -> Iterator[LabelsOutcome]:
    """What became of a batch.

    Args:
        logits: `(B, classes)`.
        probabilities: Of them, of `probabilities_of`.
        targets: `(B, classes)`, 1 for each label.
        first: Index of its first image.
    """
    losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
    for place, (row, target, loss) in enumerate(zip(probabilities, targets, losses.tolist(), strict=True)):
        labels, predictions = (chosen(each, THRESHOLD) for each in (target, row))
        yield LabelsOutcome(first + place, tuple(labels), tuple(predictions), row.clone(), loss)


def tally_labels(outcomes: Iterable[LabelsOutcome], classes: Sequence[str]) -> MultiLabelEvaluation:
    """Count what became of images.

    Args:
        outcomes: Of at least one image.
        classes: Names in the order of the labels.

    Raises:
        InputError: If none of the images has a label, so that there is no precision of any.
    """
    from torchmetrics.functional.classification import multilabel_average_precision

    listed = list(outcomes)
    probabilities = torch.stack([outcome.probabilities for outcome in listed])
    targets = torch.zeros(len(listed), len(classes), dtype=torch.int64)
    for target, outcome in zip(targets, listed, strict=True):
        target[list(outcome.labels)] = 1
    if not targets.any():
        raise InputError(
            f"none of the {len(listed):,} images has a label, so there is no average precision; give others"
        )
    with _without_warnings():
        precisions = multilabel_average_precision(probabilities, targets, len(classes), average=None)
    guessed, right = probabilities > THRESHOLD, (probabilities > THRESHOLD) & (targets > 0)
    # A class that is never seen or never predicted scores 0: its numerator is 0 too.
    seen, said, hits = (counts.sum(0) for counts in (targets, guessed, right))
    f1 = 2 * hits.double() / (seen + said).clamp(min=1)
    scores = [
        LabelScore(
            name=name,
            images=int(seen[place]),
            average_precision=float(precisions[place]) if seen[place] else None,
            precision=float(hits[place] / said[place].clamp(min=1)),
            recall=float(hits[place] / seen[place].clamp(min=1)),
            f1=float(f1[place]),
        )
        for place, name in enumerate(classes)
    ]
    return MultiLabelEvaluation(
        images=len(listed),
        map=float(precisions[seen > 0].mean()),
        f1=float(f1.mean()),
        f1_micro=float(2 * hits.sum() / (seen.sum() + said.sum())),
        threshold=THRESHOLD,
        classes=scores,
    )


def label_prediction(
    path: Path, probabilities: Tensor, classes: Sequence[str], *, top: int, threshold: float
) -> LabelsPrediction:
    """What a classifier makes of a file.

    Args:
        path: The file.
        probabilities: `(classes,)`.
        classes: Names.
        top: How many of the most probable classes to keep, at most all of them.
        threshold: Above which a probability is a label.
    """
    values, places = probabilities.sort(descending=True, stable=True)
    scores = [(classes[place], value) for place, value in zip(places.tolist(), values.tolist(), strict=True)]
    several = {classes[place] for place in chosen(probabilities, threshold)}
    return LabelsPrediction(path=path, labels=[each for each in scores if each[0] in several], scores=scores[:top])


def words_of(outcome: LabelsOutcome, classes: Sequence[str]) -> tuple[str, str]:
    """The labels of an image, and those that were predicted."""
    return in_words(outcome.labels, classes), in_words(outcome.predictions, classes)
