"""Use a segmenter: scores on images with masks, classes of the pixels of new ones."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from acmix.checkpoints.segmenter import Segmenter
from acmix.data import DataRecord, EvaluationImages, TrainedImages, data_record_if_any, image_loader
from acmix.data.images import read_images
from acmix.data.masks.augmentation import Seen
from acmix.data.masks.coding import IGNORED, Coding
from acmix.data.masks.images import MaskedImages
from acmix.data.masks.opening import find_masked_evaluation
from acmix.errors import InputError, check_least, counted
from acmix.progress import Progress, silent
from acmix.tasks.loop.results import Measured, Table
from acmix.tasks.segmentation.scores import scores

# Names in the line of a prediction.
_NAMED = 3
_MOST_VALUES = 20


class _Measured(Dataset[tuple[Tensor, Tensor]]):
    """Images as the network sees them, each with the labels of its pixels before."""

    def __init__(self, images: MaskedImages, seen: Callable[[Image.Image], Tensor]) -> None:
        self.images, self.seen = images, seen

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        picture, labels = self.images.read(index)
        return self.seen(picture), torch.from_numpy(labels.copy())


def measured_images(images: MaskedImages, seen: Callable[[Image.Image], Tensor]) -> Dataset[tuple[Tensor, Tensor]]:
    """Images to measure a network with: `(C, h, w)` and labels `(H, W)`, int16.

    Args:
        images: With masks.
        seen: Makes the network's input.
    """
    return _Measured(images, seen)


@dataclass(frozen=True)
class Outcome:
    """What a segmenter made of one image with a mask.

    Attributes:
        index: Of the image in its source.
        matrix: Counts of its pixels `(classes, classes)`, row = true class, column = predicted class.
        loss: Cross-entropy, the mean over its known pixels; 0 where there are none.
    """

    index: int
    matrix: NDArray[np.int64]
    loss: float

    @property
    def pixels(self) -> int:
        """How many are known."""
        return int(self.matrix.sum())

    @property
    def mean_iou(self) -> float:
        """Over the classes that appear in it; NaN if no pixel is known."""
        return scores(torch.from_numpy(self.matrix)).mean_iou


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How one class fared: IoU and accuracy lie in 0..1, None where there was nothing to count."""

    name: str
    pixels: int
    iou: float | None
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a segmenter found the classes of pixels.

    Attributes:
        images: How many images were segmented.
        pixels: How many of their pixels have a class.
        mean_iou: Intersection over union, the mean over the classes that appear in masks or predictions, 0..1.
        pixel_accuracy: Share of pixels whose class is found.
        mean_accuracy: Mean share of the pixels of a class that are found, over the classes that masks have.
        loss: Cross-entropy, the mean over pixels.
        classes: One score a class.
        confusion_matrix: Counts of pixels, row = true class, column = predicted class.
    """

    images: int
    pixels: int
    mean_iou: float
    pixel_accuracy: float
    mean_accuracy: float
    loss: float
    classes: list[ClassScore]
    confusion_matrix: list[list[int]]

    @property
    def first(self) -> float:
        """The first of the measures."""
        return self.mean_iou

    @property
    def words(self) -> str:
        """The most important figures."""
        return (
            f"{counted(self.images, 'image')}: mean IoU {self.mean_iou:.2%}, pixel accuracy {self.pixel_accuracy:.2%}, "
            f"mean class accuracy {self.mean_accuracy:.2%}"
        )

    @property
    def tables(self) -> list[Table]:
        """Scores by class."""
        rows = [(each.name, f"{each.pixels:,}", _share(each.iou), _share(each.accuracy)) for each in self.classes]
        return [Table("per class", ("class", "pixels", "IoU", "accuracy"), rows)]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a segmenter makes of one image file.

    Attributes:
        path: The image file.
        labels: Indices into the segmenter's classes, `(H, W)` of the image.
        classes: Their names.
        mask_values: What the masks of training had for each class; None where they had colours.
    """

    path: Path
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    mask_values: tuple[int, ...] | None

    @property
    def shares(self) -> list[tuple[str, float]]:
        """Shares of the picture by class, the largest first; classes that are not there are left out."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        order = np.argsort(-counts, kind="stable")
        return [(self.classes[label], float(counts[label] / counts.sum())) for label in order if counts[label]]

    @property
    def words(self) -> str:
        """The largest shares."""
        shares = self.shares
        more = f"  and {len(shares) - _NAMED} more" if len(shares) > _NAMED else ""
        return "  ".join(f"{name} {share:.1%}" for name, share in shares[:_NAMED]) + more

    @property
    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {"path": str(self.path), "classes": [{"name": name, "share": share} for name, share in self.shares]}

    @property
    def results(self) -> list[dict[str, Any]]:
        """The record alone."""
        return [self.record]

    @property
    def rows(self) -> list[list[str | float]]:
        """A row a class that is there, see `headings`."""
        return [[name, share] for name, share in self.shares]


def headings(segmenter: Segmenter) -> list[str]:  # noqa: ARG001
    """What the cells of `Prediction.rows` are."""
    return ["class", "share"]


def segment(segmenter: Segmenter, images: MaskedImages, *, workers: int = 0) -> Iterator[Outcome]:
    """Segment images with masks one by one, in their order, and count pixels at the size of the masks.

    Args:
        segmenter: Computes wherever its model is.
        images: Labelled in the order of the segmenter's classes.
        workers: Processes that read images; 0 reads in this one.

    Raises:
        InputError: If workers is negative or an image cannot be read.
    """
    check_least(0, workers=workers)
    seen = measured_images(images, Seen(segmenter.preprocessing))
    loader = image_loader(seen, batch_size=None, workers=workers)
    count = len(segmenter.classes)
    for index, (image, labels) in enumerate(loader):
        logits = segmenter.at_size(images.name(index), image, labels.shape)
        known = labels != IGNORED
        true, found = labels[known].long(), logits.argmax(0)[known]
        matrix = (true * count + found).bincount(minlength=count * count).reshape(count, count)
        loss = nn.functional.cross_entropy(logits[:, known].T, true).item() if len(true) else 0.0
        yield Outcome(index, matrix.numpy(), loss)


def tally(outcomes: Iterable[Outcome], classes: Sequence[str]) -> Evaluation:
    """Count what became of images.

    Args:
        outcomes: Of at least one image.
        classes: Names in the order of the labels.

    Raises:
        InputError: If masks say nothing of any pixel.
    """
    matrix, images, loss = np.zeros((len(classes), len(classes)), np.int64), 0, 0.0
    for outcome in outcomes:
        matrix, images, loss = matrix + outcome.matrix, images + 1, loss + outcome.loss * outcome.pixels
    pixels = int(matrix.sum())
    if not pixels:
        raise InputError(f"the masks of all {images:,} images say nothing: there is nothing to measure")
    found = scores(torch.from_numpy(matrix))
    return Evaluation(
        images=images,
        pixels=pixels,
        mean_iou=found.mean_iou,
        pixel_accuracy=found.pixel_accuracy,
        mean_accuracy=found.mean_accuracy,
        loss=loss / pixels,
        classes=[
            ClassScore(name=name, pixels=int(count), iou=_known(iou), accuracy=_known(accuracy))
            for name, count, iou, accuracy in zip(
                classes, matrix.sum(1), found.iou.tolist(), found.accuracy.tolist(), strict=True
            )
        ],
        confusion_matrix=matrix.tolist(),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def measure(
    segmenter: Segmenter,
    data: str,
    *,
    batch_size: int = 1,
    workers: int = 0,
    check_images: bool = True,
    progress: Progress = silent,
) -> Measured:
    """Measure a segmenter on images with masks that it was not trained on.

    Args:
        segmenter: Computes wherever its model is.
        data: What `acmix.data.masks.opening.find_masked_evaluation` takes.
        batch_size: Of no effect: images may differ in size, and come one by one.
        workers: Processes that read images; 0 reads in this one.
        check_images: Decode every image and mask once before.
        progress: Shows how far it is.

    Raises:
        InputError: If the data or an argument cannot be used.
    """
    check_least(1, batch_size=batch_size)
    record = data_record_if_any(segmenter.training)
    found = held_out(
        segmenter,
        data,
        record,
        TrainedImages.from_record(segmenter.training),
        check_images=check_images,
        progress=progress,
    )
    outcomes = progress(segment(segmenter, found.images, workers=workers), "validating", len(found.images))
    return Measured(evaluation=tally(outcomes, segmenter.classes), found=found)


def held_out(
    segmenter: Segmenter, data: str, record: DataRecord | None, trained: TrainedImages | None = None, **options: Any
) -> EvaluationImages:
    """Images with masks that a segmenter was not trained on, see `find_masked_evaluation`.

    Args:
        segmenter: Whose classes they are labelled with.
        data: As there.
        record: Of its training data.
        trained: Its memory of each image.
        **options: check_images and progress.

    Raises:
        InputError: As there.
    """
    ignored = segmenter.training.get("settings", {}).get("ignore_value")
    known = _coding(segmenter)
    return find_masked_evaluation(
        data, segmenter.classes, record, trained, known=known, ignore_value=ignored, **options
    )


def _coding(segmenter: Segmenter) -> Coding | None:
    """What the values of the masks of training stood for; None where they were colours."""
    values = segmenter.preprocessing["mask_values"]
    if values is None:
        return None
    hint = f" of the checkpoint, which knows {', '.join(map(str, values[:_MOST_VALUES]))}"
    return Coding(
        segmenter.classes, values, tuple(range(len(values))), segmenter.preprocessing["ignored_values"], hint=hint
    )


def predict(
    segmenter: Segmenter, files: Sequence[str | Path], faults: list[str], *, batch_size: int = 1
) -> Iterator[Prediction]:
    """Find the classes of the pixels of image files, one file after another.

    Args:
        segmenter: Computes wherever its model is.
        files: Image files, of `acmix.data.folders.find_images` for instance.
        faults: Gets one line for every file that cannot be read; the rest is still predicted.
        batch_size: Of no effect: images may differ in size, and come one by one.

    Returns:
        One prediction a readable file, in their order, as they are found.

    Raises:
        InputError: If batch_size is not positive.
    """
    check_least(1, batch_size=batch_size)
    return _predict(segmenter, [Path(file) for file in files], faults)


def _predict(segmenter: Segmenter, files: Sequence[Path], faults: list[str]) -> Iterator[Prediction]:
    seen, values = Seen(segmenter.preprocessing), segmenter.preprocessing["mask_values"]
    for path, picture in read_images(files, faults):
        logits = segmenter.at_size(str(path), seen(picture), (picture.height, picture.width))
        yield Prediction(path=path, labels=logits.argmax(0).numpy(), classes=segmenter.classes, mask_values=values)
