"""Classification as the loop sees it: what images and labels teach, and accuracies."""

from collections.abc import Callable
from typing import Any

import torch
from timm.loss import BinaryCrossEntropy
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import v2

from acmix.data.loading import Batch
from acmix.tasks.classification.settings import Settings


class Classification:
    """The `acmix.tasks.loop.task.Task` of classifiers.

    Args:
        settings: The run's settings.
        classes: How many classes.
        device: Of the metrics.
    """

    def __init__(self, settings: Settings, classes: int, device: torch.device) -> None:
        self._criterion, self._mixing = training_loss(settings), mixing(settings, classes)
        metrics: dict[str, Any] = {"val_loss": MeanMetric()}
        for count in (1, 5) if classes > 5 else (1,):
            metrics[f"val_top{count}"] = MulticlassAccuracy(num_classes=classes, average="micro", top_k=count)
        self.metrics = MetricCollection(metrics, compute_groups=False).to(device)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of images `(B, C, H, W)`, mixed where the settings say so."""
        images, targets = batch.images, batch.labels
        if self._mixing is not None:
            images, targets = self._mixing(images, targets)
        return self._criterion(network(images), targets)

    def measure(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
        """Add up cross-entropy without label smoothing, and accuracies, of images and labels `(B,)`."""
        images, labels = batch
        logits = network(images).float()
        for name, metric in self.metrics.items():
            if name == "val_loss":
                metric.update(nn.functional.cross_entropy(logits, labels), weight=len(labels))
            else:
                metric.update(logits, labels)


def training_loss(settings: Settings) -> nn.Module:
    """Mean loss of logits `(B, classes)` and labels `(B,)` or, of mixed images, shares `(B, classes)`."""
    if settings.loss == "binary_cross_entropy":
        return BinaryCrossEntropy(settings.label_smoothing, target_threshold=settings.loss_threshold)
    return nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)


def mixing(settings: Settings, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """MixUp, CutMix or one of both for each batch: images and labels `(B,)` to images and shares `(B, classes)`."""
    kinds = [
        kind(alpha=alpha, num_classes=classes)
        for kind, alpha in ((v2.MixUp, settings.mixup), (v2.CutMix, settings.cutmix))
        if alpha > 0
    ]
    return v2.RandomChoice(kinds) if kinds else None
