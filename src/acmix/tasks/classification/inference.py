"""Use a classifier: accuracies on labelled images, classes of new ones."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acmix.checkpoints.classifier import Classifier, check_finite
from acmix.data import ImageSource, TrainedImages, data_record_if_any, find_evaluation, image_loader
from acmix.data.sources import file_batches
from acmix.errors import check_least, counted
from acmix.progress import Progress, silent
from acmix.tasks.classification.multi_label import (
    LabelsPrediction,
    MultiLabelEvaluation,
    label_outcomes,
    label_prediction,
    probabilities_of,
    tally_labels,
)
from acmix.tasks.loop.results import Measured, Table


@dataclass(frozen=True)
class Outcome:
    """What a classifier made of one labelled image.

    Attributes:
        index: Of the image in its source.
        label: The true class.
        prediction: The most probable class.
        probability: Of the prediction.
        loss: Cross-entropy.
        among_five: Whether the true class is among the five most probable.
    """

    index: int
    label: int
    prediction: int
    probability: float
    loss: float
    among_five: bool

    @property
    def right(self) -> bool:
        """Whether the most probable class is the true one."""
        return self.label == self.prediction


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How one class fared: recall, precision and F1 lie in 0..1, and are 0 where nothing was there to count."""

    name: str
    images: int
    recall: float
    precision: float
    f1: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Accuracy of a classifier on labelled images.

    Attributes:
        images: How many images were classified.
        top1: Share of images whose most probable class is right, 0..1.
        top5: Share whose five most probable classes hold the right one; None with five classes or fewer.
        classes: One score a class.
        confusion_matrix: Counts, row = true class, column = predicted class.
    """

    images: int
    top1: float
    top5: float | None
    classes: list[ClassScore]
    confusion_matrix: list[list[int]]

    @property
    def first(self) -> float:
        """The first of the measures."""
        return self.top1

    @property
    def words(self) -> str:
        """The accuracies."""
        top5 = "" if self.top5 is None else f", top-5 {self.top5:.2%}"
        return f"{counted(self.images, 'image')}: top-1 {self.top1:.2%}{top5}"

    @property
    def tables(self) -> list[Table]:
        """Scores by class, and the confusion matrix."""
        names = [score.name for score in self.classes]
        scores = [
            (score.name, str(score.images), f"{score.recall:.2%}", f"{score.precision:.2%}", f"{score.f1:.2%}")
            for score in self.classes
        ]
        matrix = [
            (name, *(str(count) if count else "." for count in row))
            for name, row in zip(names, self.confusion_matrix, strict=True)
        ]
        return [
            Table("per class", ("class", "images", "recall", "precision", "F1"), scores),
            Table("confusion matrix (row: true, column: predicted)", ("", *names), matrix),
        ]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The most probable classes of one image file, the most probable first, as (class, probability)."""

    path: Path
    scores: list[tuple[str, float]]

    @property
    def words(self) -> str:
        """All of them in a line."""
        return "  ".join(f"{name} {value:.1%}" for name, value in self.scores)

    @property
    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {"path": str(self.path), "classes": [{"name": n, "probability": value} for n, value in self.scores]}

    @property
    def results(self) -> list[dict[str, Any]]:
        """The record alone."""
        return [self.record]

    @property
    def rows(self) -> list[list[str | float]]:
        """One row, see `headings`."""
        return [[cell for score in self.scores for cell in score]]


def evaluate(
    classifier: Classifier, images: ImageSource, *, batch_size: int = 64, workers: int = 0
) -> Evaluation | MultiLabelEvaluation:
    """Classify labelled images and count; arguments and errors are those of `classify`."""
    return evaluation_of(classifier, classify(classifier, images, batch_size=batch_size, workers=workers))


def evaluation_of(classifier: Classifier, outcomes: Iterable[Any]) -> Evaluation | MultiLabelEvaluation:
    """Count what `classify` found.

    Raises:
        InputError: If none of the images that may have several labels has one.
    """
    count: Any = tally_labels if classifier.multi_label else tally
    return count(outcomes, classifier.classes)


def classify(classifier: Classifier, images: ImageSource, *, batch_size: int = 64, workers: int = 0) -> Iterator[Any]:
    """Classify labelled images one by one, in their order; of each an `Outcome`, or a `LabelsOutcome` if multi_label.

    Args:
        classifier: Computes wherever its model is.
        images: Labelled in the order of the classifier's classes; the classifier's own transform is applied.
        batch_size: Images at a time.
        workers: Processes that read images; 0 reads in this one.

    Raises:
        InputError: If batch_size is not positive, workers is negative, an image cannot be read, or the network answers
            without finite numbers.
    """
    check_least(1, batch_size=batch_size)
    check_least(0, workers=workers)
    outcomes = label_outcomes if classifier.multi_label else _outcomes
    loader = image_loader(images.with_transform(classifier.transform), batch_size=batch_size, workers=workers)
    index = 0
    for batch, targets in loader:
        logits = classifier.logits(batch)
        probabilities = probabilities_of(logits) if classifier.multi_label else classifier.probabilities(logits)
        check_finite(probabilities, lambda at, first=index: images.name(first + at))
        yield from outcomes(logits, probabilities, targets, index)
        index += len(batch)


def _outcomes(logits: Tensor, probabilities: Tensor, labels: Tensor, first: int) -> Iterator[Outcome]:
    """What became of a batch, by its logits, their softmax, labels and the index of its first image."""
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    # Small probabilities may be equal, as 0, where logits differ.
    ranked = logits.topk(min(5, logits.shape[1])).indices
    among_five = (ranked == labels[:, None]).any(1)
    columns = (labels, ranked[:, 0], probabilities.amax(1), losses, among_five)
    for index, values in enumerate(zip(*(column.tolist() for column in columns), strict=True), first):
        yield Outcome(index, *values)


def tally(outcomes: Iterable[Outcome], classes: Sequence[str]) -> Evaluation:
    """Count what became of images.

    Args:
        outcomes: Of at least one image.
        classes: Names in the order of the labels.
    """
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    rows = [(outcome.label, outcome.prediction, outcome.among_five) for outcome in outcomes]
    labels, predictions, among_five = torch.tensor(rows).unbind(1)
    matrix = multiclass_confusion_matrix(predictions, labels, num_classes=len(classes))
    right = matrix.diagonal().double()
    # Every class that is never seen or never predicted scores 0: its numerator is 0 too.
    seen, guessed = matrix.sum(1), matrix.sum(0)
    scores = [
        ClassScore(
            name=name,
            images=int(seen[i]),
            recall=float(right[i] / seen[i].clamp(min=1)),
            precision=float(right[i] / guessed[i].clamp(min=1)),
            f1=float(2 * right[i] / (seen[i] + guessed[i]).clamp(min=1)),
        )
        for i, name in enumerate(classes)
    ]
    return Evaluation(
        images=len(rows),
        top1=float(right.sum()) / len(rows),
        top5=int(among_five.sum()) / len(rows) if len(classes) > 5 else None,
        classes=scores,
        confusion_matrix=matrix.tolist(),
    )


def measure(
    classifier: Classifier,
    data: str,
    *,
    batch_size: int = 64,
    workers: int = 0,
    check_images: bool = True,
    progress: Progress = silent,
) -> Measured:
    """Measure a classifier on images that it was not trained on.

    Args:
        classifier: Computes wherever its model is.
        data: What `acmix.data.find_evaluation` takes.
        batch_size: Images at a time.
        workers: Processes that read images; 0 reads in this one.
        check_images: Decode every file of class folders once before.
        progress: Shows how far it is.

    Raises:
        InputError: If the data or an argument cannot be used.
    """
    found = find_evaluation(
        data,
        classifier.classes,
        data_record_if_any(classifier.training),
        TrainedImages.from_record(classifier.training),
        multi_label=classifier.multi_label,
        check_images=check_images,
        progress=progress,
    )
    outcomes = classify(classifier, found.images, batch_size=batch_size, workers=workers)
    outcomes = progress(outcomes, "validating", len(found.images))
    return Measured(evaluation=evaluation_of(classifier, outcomes), found=found)


def headings(classifier: Classifier, top: int = 5, threshold: float | None = None) -> list[str]:
    """What the cells of a prediction's rows are."""
    del threshold
    names = ["", *(f"_{rank}" for rank in range(2, min(top, len(classifier.classes)) + 1))]
    ranked = [f"{kind}{name}" for name in names for kind in ("label", "probability")]
    return ["labels", *ranked] if classifier.multi_label else ranked


def predict(
    classifier: Classifier,
    files: Sequence[str | Path],
    faults: list[str],
    *,
    top: int = 5,
    threshold: float | None = None,
    batch_size: int = 64,
) -> Iterator[Prediction | LabelsPrediction]:
    """Find the classes of image files, which are read in threads while few of them are in memory.

    Args:
        classifier: Computes wherever its model is.
        files: Image files, of `acmix.data.folders.find_images` for instance.
        faults: Gets one line for every file that cannot be read; the rest is still predicted.
        top: How many of the most probable classes an image, at most all of them.
        threshold: Probability above which a class is a label of an image that may have several; None is 0.5.
        batch_size: Images at a time.

    Returns:
        One prediction a readable file, in their order, as they are found.

    Raises:
        InputError: If top or batch_size is not positive, a threshold is not 0 to 1 or of no meaning, or the network
            answers without finite numbers.
    """
    check_least(1, top=top, batch_size=batch_size)
    least = classifier.threshold(threshold)
    return _predict(classifier, [Path(file) for file in files], faults, top, least, batch_size)


def _predict(
    classifier: Classifier, files: Sequence[Path], faults: list[str], top: int, threshold: float, batch_size: int
) -> Iterator[Prediction | LabelsPrediction]:
    for batch in file_batches(files, classifier.transform, faults, batch_size=batch_size):
        paths = [files[index] for index, _ in batch]
        probabilities = classifier.probabilities(classifier.logits(torch.stack([image for _, image in batch])))
        check_finite(probabilities, [str(path) for path in paths].__getitem__)
        if classifier.multi_label:
            for path, row in zip(paths, probabilities, strict=True):
                yield label_prediction(path, row, classifier.classes, top=top, threshold=threshold)
            continue
        found, indices = probabilities.topk(min(top, len(classifier.classes)))
        for path, values, ranks in zip(paths, found.tolist(), indices.tolist(), strict=True):
            names = (classifier.classes[rank] for rank in ranks)
            yield Prediction(path=path, scores=list(zip(names, values, strict=True)))
