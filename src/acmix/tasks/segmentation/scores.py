"""How well predicted classes of pixels agree with the true ones, out of one matrix of counts."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from acmix.data.masks.coding import IGNORED


@dataclass(frozen=True)
class Scores:
    """Shares of pixels.

    A class that neither masks nor predictions have counts in no mean; one that is predicted where no mask has it has an
    IoU of 0, which counts, and no accuracy.

    Attributes:
        iou: Of each class, pixels that are both over pixels that are either; NaN for a class that appears nowhere.
        accuracy: Of each class, the share of its pixels that are found; NaN for a class that no mask has.
        pixel_accuracy: Share of all pixels whose class is found.
    """

    iou: Tensor
    accuracy: Tensor
    pixel_accuracy: float

    @property
    def mean_iou(self) -> float:
        """Over the classes that appear."""
        return float(self.iou.nanmean())

    @property
    def mean_accuracy(self) -> float:
        """Over the classes that masks have."""
        return float(self.accuracy.nanmean())


def scores(matrix: Tensor) -> Scores:
    """Scores of counts of pixels `(classes, classes)`, row = true class, column = predicted class.

    IoU_c = m_cc / (sum_j m_cj + sum_i m_ic - m_cc), accuracy_c = m_cc / sum_j m_cj, as the Pascal VOC challenge and
    ADE20K count them over all images together.
    """
    matrix = matrix.double()
    right, true, found = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    return Scores(right / (true + found - right), right / true, float(right.sum() / matrix.sum()))


class PixelScores(MulticlassConfusionMatrix):
    """The scores of validation, added up over images and processes.

    Args:
        classes: How many.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes, ignore_index=IGNORED, validate_args=False)

    def compute(self) -> dict[str, Tensor]:  # pyrefly: ignore[bad-override]
        """Scores by the names of `acmix.tasks.segmentation.measures`."""
        found = scores(super().compute())
        return {
            "val_mean_iou": torch.tensor(found.mean_iou),
            "val_pixel_accuracy": torch.tensor(found.pixel_accuracy),
            "val_mean_accuracy": torch.tensor(found.mean_accuracy),
        }
