"""Classification as the loop sees it: what images and labels teach, and accuracies."""

from collections.abc import Callable
from typing import Any

import torch
from timm.loss import BinaryCrossEntropy
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import v2

from acmix.data import ImageSource, SplittableImages
from acmix.data.loading import Batch
from acmix.errors import InputError
from acmix.tasks.classification.settings import Settings


class Classification:
    """The `acmix.tasks.loop.task.Task` of classifiers.

    Args:
        settings: The run's settings.
        classes: How many classes.
        device: Of the metrics.
        class_weights: Of images by their class, `(classes,)`, where the settings want any, see `balanced_weights`.
    """

    def __init__(
        self, settings: Settings, classes: int, device: torch.device, class_weights: Tensor | None = None
    ) -> None:
        self._criterion, self._mixing = training_loss(settings), mixing(settings, classes)
        self._weights = None if class_weights is None else class_weights.to(device)
        # By default images without a finite loss would be left out of the mean.
        metrics: dict[str, Any] = {"val_loss": MeanMetric(nan_strategy=float("inf"))}
        for count in (1, 5) if classes > 5 else (1,):
            metrics[f"val_top{count}"] = MulticlassAccuracy(num_classes=classes, average="micro", top_k=count)
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
        """Add up cross-entropy without label smoothing, and accuracies, of images and labels `(B,)`."""
        images, labels = batch
        logits = network(images).float()
        for name, metric in self.metrics.items():
            if name == "val_loss":
                metric.update(nn.functional.cross_entropy(logits, labels), weight=len(labels))
            else:
                metric.update(logits, labels)


def training_loss(settings: Settings) -> Callable[[Tensor, Tensor], Tensor]:
    """Loss `(B,)` of logits `(B, classes)` and labels `(B,)` or, of mixed images, shares `(B, classes)`."""
    smoothing = settings.label_smoothing
    if settings.loss == "cross_entropy":
        return nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")
    each = BinaryCrossEntropy(0.0, target_threshold=settings.loss_threshold, reduction="none")

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        classes = logits.shape[1]
        shares = targets if targets.ndim == 2 else nn.functional.one_hot(targets, classes).float()
        # timm would smooth labels alone.
        return each(logits, shares * (1 - smoothing) + smoothing / classes).mean(1)

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
    counts = torch.bincount(torch.tensor(images.labels), minlength=len(images.classes))
    return torch.where(counts > 0, len(images) / (len(counts) * counts.clamp(min=1)), 0.0)


def mixing(settings: Settings, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """MixUp, CutMix or one of both for each batch: images and labels `(B,)` to images and shares `(B, classes)`."""
    kinds = [
        kind(alpha=alpha, num_classes=classes)
        for kind, alpha in ((v2.MixUp, settings.mixup), (v2.CutMix, settings.cutmix))
        if alpha > 0
    ]
    return v2.RandomChoice(kinds) if kinds else None
