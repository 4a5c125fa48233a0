"""How a classifier fares on every single image."""

from dataclasses import dataclass

import torch
from torch import nn

from acmix.checkpoints.classifier import Classifier
from acmix.data import ImageSource, image_loader
from acmix.tasks.inference import best_device


@dataclass(frozen=True)
class Outcome:
    """What a classifier made of one labelled image.

    Attributes:
        index: Of the image in its source.
        label: The true class.
        prediction: The most probable class.
        probability: Of the prediction.
        loss: Cross-entropy.
    """

    index: int
    label: int
    prediction: int
    probability: float
    loss: float

    @property
    def right(self) -> bool:
        """Whether the most probable class is the true one."""
        return self.label == self.prediction


def outcomes(classifier: Classifier, images: ImageSource, *, batch_size: int = 64, workers: int = 0) -> list[Outcome]:
    """Classify labelled images one by one.

    Args:
        classifier: Its model computes on the accelerator if there is one.
        images: Labelled in the order of the classifier's classes; the classifier's own transform is applied.
        batch_size: Images at a time.
        workers: Processes that read images; 0 reads in this one.

    Raises:
        InputError: If an image cannot be read.
    """
    device = best_device()
    model = classifier.model.eval().to(device)
    loader = image_loader(images.with_transform(classifier.transform), batch_size=batch_size, workers=workers)
    found: list[Outcome] = []
    with torch.inference_mode():
        for batch, labels in loader:
            logits = model(batch.to(device)).float().cpu()
            losses = nn.functional.cross_entropy(logits, labels, reduction="none")
            probabilities, predictions = logits.softmax(1).max(1)
            columns = (tensor.tolist() for tensor in (labels, predictions, probabilities, losses))
            for values in zip(*columns, strict=True):
                found.append(Outcome(len(found), *values))
    classifier.model.cpu()
    return found


def confusion_matrix(found: list[Outcome], classes: int) -> list[list[int]]:
    """Counts, row = true class, column = predicted class."""
    matrix = [[0] * classes for _ in range(classes)]
    for outcome in found:
        matrix[outcome.label][outcome.prediction] += 1
    return matrix
