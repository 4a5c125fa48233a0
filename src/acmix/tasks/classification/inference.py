"""Use a classifier: accuracies on labelled images, classes of new ones."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from acmix.checkpoints.classifier import Classifier
from acmix.data import ImageSource, image_loader
from acmix.data.images import read_images
from acmix.errors import InputError


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


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The most probable classes of one image file, the most probable first, as (class, probability)."""

    path: Path
    scores: list[tuple[str, float]]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What `predict` found: predictions in the order given, and one line for every file it could not read."""

    predicted: list[Prediction]
    unreadable: list[str]


def evaluate(classifier: Classifier, images: ImageSource, *, batch_size: int = 64, workers: int = 0) -> Evaluation:
    """Classify labelled images and count; arguments and errors are those of `classify`."""
    return tally(classify(classifier, images, batch_size=batch_size, workers=workers), classifier.classes)


def classify(
    classifier: Classifier, images: ImageSource, *, batch_size: int = 64, workers: int = 0
) -> Iterator[Outcome]:
    """Classify labelled images one by one, in their order.

    Args:
        classifier: Its model is moved to the accelerator if there is one.
        images: Labelled in the order of the classifier's classes; the classifier's own transform is applied.
        batch_size: Images at a time.
        workers: Processes that read images; 0 reads in this one.

    Raises:
        InputError: If batch_size is not positive, workers is negative or an image cannot be read.
    """
    if batch_size < 1 or workers < 0:
        raise InputError(f"batch_size must be at least 1 and workers at least 0, got {batch_size} and {workers}")
    device = best_device()
    model, most = classifier.model.eval().to(device), min(5, len(classifier.classes))
    loader = image_loader(images.with_transform(classifier.transform), batch_size=batch_size, workers=workers)
    index = 0
    for batch, labels in loader:
        with torch.inference_mode():
            logits = model(batch.to(device)).float().cpu()
            losses = nn.functional.cross_entropy(logits, labels, reduction="none")
            # Small probabilities may be equal, as 0, where logits differ.
            ranked = logits.topk(most).indices
            among_five = (ranked == labels[:, None]).any(1)
        columns = (labels, ranked[:, 0], logits.softmax(1).amax(1), losses, among_five)
        for values in zip(*(column.tolist() for column in columns), strict=True):
            yield Outcome(index, *values)
            index += 1


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


def predict(classifier: Classifier, paths: Sequence[str | Path], *, top: int = 5, batch_size: int = 64) -> Predictions:
    """Find the most probable classes of image files.

    Args:
        classifier: Its model is moved to the accelerator if there is one.
        paths: Image files; a folder stands for the image files directly in it, by name.
        top: How many classes an image, at most all of them.
        batch_size: Images at a time.

    Returns:
        One prediction a readable file; the others are named, and the rest still predicted.

    Raises:
        InputError: If top is not positive.
    """
    if top < 1:
        raise InputError(f"top must be at least 1, got {top}")
    device = best_device()
    model, transform = classifier.model.eval().to(device), classifier.transform
    predicted: list[Prediction] = []
    unreadable: list[str] = []

    images = ((path, transform(image)) for path, image in read_images(paths, unreadable))
    with torch.inference_mode():
        while batch := list(islice(images, batch_size)):
            logits = model(torch.stack([image for _, image in batch]).to(device)).float()
            probabilities, indices = logits.softmax(1).cpu().topk(min(top, len(classifier.classes)))
            for (path, _), values, ranks in zip(batch, probabilities.tolist(), indices.tolist(), strict=True):
                scores = [(classifier.classes[rank], value) for rank, value in zip(ranks, values, strict=True)]
                predicted.append(Prediction(path=path, scores=scores))
    return Predictions(predicted=predicted, unreadable=unreadable)


def best_device() -> torch.device:
    """The accelerator of this machine, or the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
