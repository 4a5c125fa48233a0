"""Use a detector: average precision on annotated images, objects in new ones."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import pil_to_tensor

from acmix.checkpoints.detector import CATEGORY_IDS, Detector
from acmix.data import TrainedImages, data_record_if_any, image_loader
from acmix.data.annotated import AnnotatedImages, Annotations, find_annotated_evaluation
from acmix.data.sources import file_batches
from acmix.errors import InputError, check_least, counted
from acmix.progress import Progress, silent
from acmix.tasks.detection.figures import (
    Found,
    check_installed,
    compare,
    encoded_masks,
    joined,
    rows_of,
)
from acmix.tasks.detection.image_ids import image_ids
from acmix.tasks.detection.prediction import Prediction
from acmix.tasks.loop.results import Measured, Table

_BY_NUMBER = "image_id is the number that a file is called"
_BY_NAME = "image_id is the file, as names are no numbers, or two the same; --annotations FILE takes ids of COCO's file"
_UNKNOWN_IDS = "category_id counts classes from 1, as the checkpoint does not tell the ids of its training data"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a detector found in one annotated image.

    Attributes:
        index: Of the image in its source.
        found: Its detections, packed.
        loss: Sum of the losses of the image, as it is; None where it was not asked for.
    """

    index: int
    found: Found
    loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How one class fared: average precisions are -1 where nothing of it was there to find."""

    name: str
    objects: int
    map: float
    map_50: float
    mask_map: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """COCO's figures of a detector on annotated images: 0..1, -1 where there was nothing to find.

    Attributes:
        images: How many were searched.
        objects: How many are in them, crowds not counted.
        map: AP: mean over intersections over union of 0.5 to 0.95, and over classes.
        map_50: At 0.5.
        map_75: At 0.75.
        map_small: Of objects of less than 32 x 32 pixels.
        map_medium: Of those up to 96 x 96.
        map_large: Of larger ones.
        mar_1: Mean recall with one detection an image.
        mar_10: With ten.
        mar_100: With a hundred.
        mar_small: As map_small.
        mar_medium: As map_medium.
        mar_large: As map_large.
        classes: One score a class.
        masks: The same twelve figures of masks; None without.
    """

    images: int
    objects: int
    map: float
    map_50: float
    map_75: float
    map_small: float
    map_medium: float
    map_large: float
    mar_1: float
    mar_10: float
    mar_100: float
    mar_small: float
    mar_medium: float
    mar_large: float
    classes: list[ClassScore]
    masks: dict[str, float] | None = None

    @property
    def first(self) -> float:
        """The first of the measures."""
        return self.map

    @property
    def words(self) -> str:
        """The average precisions."""
        masks = "" if self.masks is None else f", AP of masks {_percent(self.masks['map'])}"
        found = f"AP {_percent(self.map)}, AP50 {_percent(self.map_50)}, AP75 {_percent(self.map_75)}{masks}"
        return f"{counted(self.images, 'image')}, {counted(self.objects, 'object')}: {found}"

    @property
    def tables(self) -> list[Table]:
        """By size of objects, and by class."""
        sizes = [("AP", self.map_small, self.map_medium, self.map_large)]
        sizes += [("recall", self.mar_small, self.mar_medium, self.mar_large)]
        if (masks := self.masks) is not None:
            sizes += [("AP of masks", masks["map_small"], masks["map_medium"], masks["map_large"])]
        heading = ["class", "objects", "AP", "AP50"] + ["AP of masks"] * (self.masks is not None)
        rows = [
            [each.name, str(each.objects), _percent(each.map), _percent(each.map_50)]
            + ([] if each.mask_map is None else [_percent(each.mask_map)])
            for each in self.classes
        ]
        return [
            Table(
                "by size, in pixels",
                ("", "below 32 x 32", "to 96 x 96", "larger"),
                [(name, *map(_percent, values)) for name, *values in sizes],
            ),
            Table("per class", heading, rows),
        ]


def _percent(share: float) -> str:
    return "-" if share < 0 else f"{share:.2%}"


class Pictures(Dataset[tuple[int, Tensor]]):
    """Images by their indices as uint8 tensors `(3, H, W)`."""

    def __init__(self, images: AnnotatedImages) -> None:
        self.images = images

    def __len__(self) -> int:
        """Count the images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        """Read one image."""
        return index, pil_to_tensor(self.images.read(index)[0])


def as_lists(items: Sequence[tuple[int, Tensor]]) -> tuple[list[int], list[Tensor]]:
    """Indices and images of a batch, whose sizes differ."""
    return [index for index, _ in items], [image for _, image in items]


def search(
    detector: Detector, images: AnnotatedImages, *, batch_size: int = 8, workers: int = 0, losses: bool = False
) -> Iterator[Outcome]:
    """Search annotated images one by one, in their order.

    Args:
        detector: Computes wherever its model is.
        images: Labelled in the order of the detector's classes.
        batch_size: Images at a time.
        workers: Processes that read images; 0 reads in this one.
        losses: Compute the loss of each, which takes as long again.

    Raises:
        InputError: If batch_size is not positive, workers is negative or an image cannot be read.
    """
    check_least(1, batch_size=batch_size)
    check_least(0, workers=workers)
    pictures: Any = Pictures(images)
    for indices, batch in image_loader(pictures, batch_size=batch_size, workers=workers, collate_fn=as_lists):
        for index, image, detections in zip(indices, batch, detector.detect(batch), strict=True):
            loss = _loss(detector, image, images.annotations(index)) if losses else None
            yield Outcome(index=index, found=Found(rows_of(index, detections), encoded_masks(detections)), loss=loss)


def _loss(detector: Detector, image: Tensor, annotations: Annotations) -> float:
    height, width = image.shape[-2:]
    boxes = annotations.boxes.clamp(min=0).minimum(torch.tensor([width, height] * 2))
    # As in training: crowds teach nothing, and what lies beside the image cannot be found.
    kept = ~annotations.crowd & (boxes[:, 2:] > boxes[:, :2]).all(1)
    target = {"boxes": boxes[kept], "labels": annotations.labels[kept]}
    if detector.model_name == "mask_rcnn":
        target["masks"] = annotations.masks(height, width)[kept].to(torch.uint8)
    network: Any = detector.model
    own = {name: each.to(detector.device) for name, each in target.items()}
    return float(sum(loss.sum() for loss in network.losses(image.to(detector.device), own).values()))


def tally(outcomes: Iterable[Outcome], images: AnnotatedImages) -> Evaluation:
    """COCO's figures of what became of images.

    Args:
        outcomes: Of all of the images.
        images: As in `search`.
    """
    found = joined([outcome.found for outcome in outcomes])
    boxes = compare(images, found)
    masked = found.masks is not None and images.has_masks
    masks = compare(images, found, masks=True) if masked else None
    counts = np.bincount(images.objects.labels[~images.objects.crowd], minlength=len(images.classes))
    scores = [
        ClassScore(
            name=name,
            objects=int(counts[at]),
            map=boxes.by_class[at][0],
            map_50=boxes.by_class[at][1],
            mask_map=None if masks is None else masks.by_class[at][0],
        )
        for at, name in enumerate(images.classes)
    ]
    return Evaluation(
        images=len(images),
        objects=int(counts.sum()),
        classes=scores,
        masks=None if masks is None else masks.overall,
        **boxes.overall,
    )


def measure(
    detector: Detector,
    data: str,
    *,
    batch_size: int = 8,
    workers: int = 0,
    check_images: bool = True,
    progress: Progress = silent,
) -> Measured:
    """Measure a detector on images that it was not trained on.

    Args:
        detector: Computes wherever its model is.
        data: What `acmix.data.annotated.open_annotated` takes.
        batch_size: Images at a time.
        workers: Processes that read images; 0 reads in this one.
        check_images: Decode every file once before.
        progress: Shows how far it is.

    Raises:
        InputError: If the data or an argument cannot be used.
    """
    check_installed()
    found = find_annotated_evaluation(
        data,
        detector.classes,
        data_record_if_any(detector.training),
        TrainedImages.from_record(detector.training),
        check_images=check_images,
        progress=progress,
    )
    images: Any = found.images
    if not len(images.objects.labels):
        raise InputError(f"{data} has no objects in {counted(len(images), 'image')}, so nothing can be measured")
    outcomes = search(detector, images, batch_size=batch_size, workers=workers)
    outcomes = progress(outcomes, "validating", len(images))
    return Measured(evaluation=tally(outcomes, images), found=found)


def headings(detector: Detector, **options: Any) -> list[str]:  # noqa: ARG001
    """What the cells of `acmix.tasks.detection.prediction.Prediction.rows` are."""
    return ["label", "score", "x1", "y1", "x2", "y2"]


def predict(
    detector: Detector,
    files: Sequence[str | Path],
    faults: list[str],
    *,
    score: float = 0.5,
    batch_size: int = 8,
    annotations: Path | None = None,
) -> Iterator[Prediction]:
    """Find objects in image files, which are read in threads while few of them are in memory.

    Args:
        detector: Computes wherever its model is.
        files: Image files, of `acmix.data.folders.find_images` for instance.
        faults: Gets one line for every file that cannot be read; the rest is still searched.
        score: The least score of an object.
        batch_size: Images at a time.
        annotations: A file of COCO's annotations whose ids the images have, see `image_ids`.

    Returns:
        One prediction a readable file, in their order, as they are found.

    Raises:
        InputError: If score is no share, batch_size is not positive or an image is not among the annotations.
    """
    if not 0 <= score <= 1:
        raise InputError(f"score must be 0 to 1, got {score}")
    check_least(1, batch_size=batch_size)
    paths = [Path(file) for file in files]
    return _predict(detector, paths, image_ids(paths, annotations), faults, score, batch_size)


def notes(detector: Detector, files: Sequence[Path], annotations: Path | None = None) -> list[str]:
    """What a person must know of COCO's results to use them: where their ids come from."""
    ids = image_ids(files, annotations)
    found = [] if CATEGORY_IDS in detector.training else [_UNKNOWN_IDS]
    if ids and annotations is None:
        found.append(_BY_NAME if isinstance(ids[0], str) else _BY_NUMBER)
    return found


def _predict(
    detector: Detector,
    files: Sequence[Path],
    ids: Sequence[int | str],
    faults: list[str],
    score: float,
    batch_size: int,
) -> Iterator[Prediction]:
    for batch in file_batches(files, pil_to_tensor, faults, batch_size=batch_size):
        found = detector.detect([image for _, image in batch])
        for (index, _), detections in zip(batch, found, strict=True):
            yield Prediction(
                path=files[index],
                detections=detections.above(score),
                image_id=ids[index],
                category_ids=detector.category_ids,
            )
