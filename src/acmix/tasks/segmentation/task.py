"""Segmentation as the loop sees it: what images and masks teach, and how well they are found."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from acmix.data.loading import Batch
from acmix.data.masks.coding import IGNORED
from acmix.tasks.segmentation.scores import PixelScores
from acmix.tasks.segmentation.settings import Settings


class Segmentation:
    """The `acmix.tasks.loop.task.Task` of segmenters.

    Args:
        settings: The run's settings.
        classes: How many classes.
        device: Of the metrics.
        class_weights: Of pixels by their class, `(classes,)`, where the settings want any.
    """

    def __init__(
        self, settings: Settings, classes: int, device: torch.device, class_weights: Tensor | None = None
    ) -> None:
        self._smoothing, self._dice = settings.label_smoothing, settings.dice
        self._weights = None if class_weights is None else class_weights.to(device)
        # By default images without a finite loss would be left out of the mean.
        metrics: dict[str, Any] = {"val_loss": MeanMetric(nan_strategy=float("inf")), "scores": PixelScores(classes)}
        self.metrics = MetricCollection(metrics, compute_groups=False).to(device)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of images `(B, C, H, W)` and labels `(B, H, W)`, `IGNORED` where masks say nothing.

        Cross-entropy is the mean over all pixels, of which ignored ones add nothing, and Dice the mean over images: so
        an update is the same however its images are cut into batches.
        """
        logits, labels = network(batch.images), batch.labels.long()
        losses = nn.functional.cross_entropy(
            logits, labels, ignore_index=IGNORED, label_smoothing=self._smoothing, reduction="none"
        )
        if self._weights is not None:
            losses = losses * self._weights[labels.clamp(min=0)]
        loss = losses.mean()
        return loss if self._dice == 0 else loss + self._dice * dice_loss(logits, labels)

    def measure(self, network: nn.Module, batch: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Add up cross-entropy without label smoothing and counts of pixels.

        Args:
            network: In evaluation mode.
            batch: Images `(C, h, w)`, each with labels `(H, W)` of its size before it was scaled.
        """
        for image, labels in batch:
            logits = enlarged(network(image[None]).float(), labels)
            labels = labels[None].long()
            self.metrics["scores"].update(logits.argmax(1), labels)
            if known := int((labels != IGNORED).sum()):
                loss = nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED)
                self.metrics["val_loss"].update(loss, weight=known)


def enlarged(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits `(1, classes, h, w)` at the size of labels `(H, W)`, as papers measure."""
    if logits.shape[-2:] == labels.shape:
        return logits
    return nn.functional.interpolate(logits, labels.shape, mode="bilinear", align_corners=False)


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - 2 |p t| / (|p| + |t|), the mean over images, and over the classes that an image's mask has.

    Args:
        logits: `(B, classes, H, W)`.
        labels: `(B, H, W)`; ignored pixels do not count.
    """
    known = labels != IGNORED
    shares = logits.softmax(1) * known[:, None]
    targets = nn.functional.one_hot(labels.clamp(min=0), logits.shape[1]).movedim(-1, 1) * known[:, None]
    both, true = (shares * targets).sum((2, 3)), targets.sum((2, 3))
    lost = (1 - 2 * both / (shares.sum((2, 3)) + true).clamp(min=1e-7)) * (true > 0)
    return (lost.sum(1) / (true > 0).sum(1).clamp(min=1)).mean()
