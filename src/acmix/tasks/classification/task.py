"""Classification as the loop sees it: what images and labels teach, and accuracies."""

from collections.abc import Callable
from typing import Any

import torch
from timm.loss import BinaryCrossEntropy
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MultilabelF1Score
from torchvision.transforms import v2

from acmix.checkpoints.classifier import THRESHOLD
from acmix.data import ImageSource, SplittableImages
from acmix.data.labels import labels_of
from acmix.data.loading import Batch
from acmix.errors import InputError
from acmix.tasks.classification.multi_label import MeanAveragePrecision, probabilities_of
from acmix.tasks.classification.settings import Settings


class Classification:
    """The `acmix.tasks.loop.task.Task` of classifiers.

    Args:
        settings: The run's settings.
        classes: How many classes.
        device: Of the metrics.
        class_weights: Where the settings want any, `(classes,)`: of images by their class, see `balanced_weights`, or
            of those that have a label, see `positive_weights`.
        multi_label: Whether images have any number of labels.
    """

    def __init__(
        self,
        settings: Settings,
        classes: int,
        device: torch.device,
        class_weights: Tensor | None = None,
        *,
        multi_label: bool = False,
    ) -> None:
        weights = None if class_weights is None else class_weights.to(device)
        self._mixing, self._multi_label = mixing(settings, classes), multi_label
        self._weights = None if multi_label else weights
        self._criterion = label_loss(settings, weights) if multi_label else training_loss(settings)
        # By default images without a finite loss would be left out of the mean.
        metrics: dict[str, Any] = {"val_loss": MeanMetric(nan_strategy=float("inf"))}
        metrics |= _of_labels(classes) if multi_label else _of_classes(classes)
        self.metrics = MetricCollection(metrics, compute_groups=False).to(device)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of images `(B, C, H, W)`, mixed where the settings say so."""
        images, targets = batch.images, batch.labels
        if self._mixing is not None:
            images, targets = self._mixing(images, targets)
        losses = self._criterion(network(images), targets)
        if self._weights is None:
            return losses.mean()
        # A batch is one of many of an update: images are weighed, not divided by the weights of those beside them.
        shares = targets if targets.ndim == 2 else nn.functional.one_hot(targets, len(self._weights)).float()
        return (shares @ self._weights * losses).mean()

    def measure(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
        """Add up cross-entropy without label smoothing, and what else is measured, of images and their targets."""
        images, targets = batch
        logits = network(images).float()
        if self._multi_label:
            loss = nn.functional.binary_cross_entropy_with_logits(logits, targets)
            found, known = probabilities_of(logits), targets.int()
        else:
            loss, found, known = nn.functional.cross_entropy(logits, targets), logits, targets
        for name, metric in self.metrics.items():
            if name == "val_loss":
                metric.update(loss, weight=len(targets))
            else:
                metric.update(found, known)


def _of_classes(classes: int) -> dict[str, Any]:
    counts = (1, 5) if classes > 5 else (1,)
    return {f"val_top{count}": MulticlassAccuracy(classes, average="micro", top_k=count) for count in counts}


def _of_labels(classes: int) -> dict[str, Any]:
    return {
        "val_map": MeanAveragePrecision(classes),
        "val_f1": MultilabelF1Score(classes, threshold=THRESHOLD, average="macro"),
        "val_f1_micro": MultilabelF1Score(classes, threshold=THRESHOLD, average="micro"),
    }


def training_loss(settings: Settings) -> Callable[[Tensor, Tensor], Tensor]:
    """Loss `(B,)` of logits `(B, classes)` and labels `(B,)` or, of mixed images, shares `(B, classes)`."""
    smoothing = settings.label_smoothing
    if settings.loss != "binary_cross_entropy":
        return nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")
    each = BinaryCrossEntropy(0.0, target_threshold=settings.loss_threshold, reduction="none")

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        classes = logits.shape[1]
        shares = targets if targets.ndim == 2 else nn.functional.one_hot(targets, classes).float()
        # timm would smooth labels alone.
        return each(logits, shares * (1 - smoothing) + smoothing / classes).mean(1)

    return loss


def label_loss(settings: Settings, weights: Tensor | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """Loss `(B,)` of logits `(B, classes)` and targets `(B, classes)`, each class yes or no by itself.

    Args:
        settings: Smoothing s makes 1 - s / 2 of yes and s / 2 of no.
        weights: Of yes, `(classes,)`; None is 1.
    """
    smoothing = settings.label_smoothing
    each = BinaryCrossEntropy(0.0, target_threshold=settings.loss_threshold, reduction="none", pos_weight=weights)

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return each(logits, targets * (1 - smoothing) + smoothing / 2).mean(1)

    return loss


def balanced_weights(images: ImageSource) -> Tensor:
    """Weights `(classes,)` of images by their class: images / (classes x images of the class); 0 for none.

    Raises:
        InputError: If labels are not known without reading images.
    """
    if not isinstance(images, SplittableImages):
        raise InputError(
            "class_weights must be none: they are made of labels that are known without reading images, and those of "
            "shards are not"
        )
    counts = torch.bincount(torch.tensor([*map(labels_of, images.labels)])[:, 0], minlength=len(images.classes))
    return torch.where(counts > 0, len(images) / (len(counts) * counts.clamp(min=1)), 0.0)


def positive_weights(images: ImageSource) -> Tensor:
    """Weights `(classes,)` of images that have a label: images without it / images with it; 1 where all have it.

    Raises:
        InputError: If labels are not known without reading images.
    """
    if not isinstance(images, SplittableImages):
        raise InputError("class_weights must be none: they are made of labels that are known without reading images")
    labels = torch.tensor([each for label in images.labels for each in labels_of(label)], dtype=torch.int64)
    counts = torch.bincount(labels, minlength=len(images.classes))
    others = len(images) - counts
    return torch.where((counts > 0) & (others > 0), others / counts.clamp(min=1), 1.0)


def mixing(settings: Settings, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """MixUp, CutMix or one of both for each batch: images and targets, `(B,)` or `(B, classes)`, to the latter."""
    kinds = [
        kind(alpha=alpha, num_classes=classes)
        for kind, alpha in ((v2.MixUp, settings.mixup), (v2.CutMix, settings.cutmix))
        if alpha > 0
    ]
    return v2.RandomChoice(kinds) if kinds else None
