"""A detector and its checkpoint: a network of `acmix.models.detectors`, its classes, and how images are resized."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from acmix import records
from acmix.checkpoints.classifier import check_arguments
from acmix.checkpoints.trained import Metadata, TrainedNetwork
from acmix.data.given import Given, as_picture, one_by_one
from acmix.errors import InputError, check_least, counted
from acmix.models.answers import any_lost, watched_answers
from acmix.models.detectors import DETECTORS, DetectorArguments, create_detector

# The arguments that say what becomes of an image.
PREPROCESSING = ("image_size", "longest_side", "mean", "std")
# Where a training record holds what the data call the classes.
CATEGORY_IDS = "category_ids"
_MOST_CHANNELS, _MOST_SIDE = 4096, 16384


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """Objects of one image, the surest first.

    Attributes:
        boxes: `(N, 4)`, x1, y1, x2, y2 in pixels of the image.
        scores: `(N,)`, 0..1.
        classes: `(N,)`, int64, index into the detector's.
        labels: Their names.
        masks: `(N, H, W)`, bool, of detectors that give some.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    labels: list[str]
    masks: Tensor | None = None

    def __len__(self) -> int:
        """Count the objects."""
        return len(self.labels)

    def above(self, score: float) -> "Detections":
        """Those of at least this score."""
        kept = int((self.scores >= score).sum())
        masks = None if self.masks is None else self.masks[:kept]
        return Detections(
            boxes=self.boxes[:kept],
            scores=self.scores[:kept],
            classes=self.classes[:kept],
            labels=self.labels[:kept],
            masks=masks,
        )


@dataclass(frozen=True, kw_only=True)
class Detector(TrainedNetwork):
    """A trained detector with what is needed to use it; `acmix.load` gives one.

    Attributes:
        model: A list of images `(3, H, W)` in 0..1, of any sizes, to a list of boxes, labels, scores, maybe masks.
        model_name: One of `acmix.models.detectors.DETECTORS`.
        model_arguments: Of `DetectorArguments`, those that are not preprocessing.
        classes: Class names in the order of the labels.
        preprocessing: image_size, longest_side, mean and std, see `DetectorArguments`: the network applies them.
        training: Record of the training that made it (data, settings, measures).
        versions: Of acmix, torch and timm that wrote the file.
    """

    task: ClassVar[str] = "detection"

    @classmethod
    def check(cls, metadata: Metadata) -> Metadata:
        """See `TrainedNetwork.check`."""
        if metadata.model_name not in DETECTORS:
            raise InputError(f"unknown detector {metadata.model_name!r}")
        if not metadata.classes:
            raise InputError("classes must name at least one")
        _check_arguments(arguments_of(metadata.model_arguments, metadata.preprocessing))
        _check_category_ids(metadata.training.get(CATEGORY_IDS), len(metadata.classes))
        tuples = {key: tuple(item) if isinstance(item, list) else item for key, item in metadata.preprocessing.items()}
        return replace(metadata, preprocessing=tuples)

    @classmethod
    def build(cls, metadata: Metadata) -> "Detector":
        """See `TrainedNetwork.build`."""
        arguments = arguments_of(metadata.model_arguments, metadata.preprocessing)
        return cls.of(create_detector(metadata.model_name, len(metadata.classes), arguments), metadata)

    @property
    def network(self) -> str:
        """See `TrainedNetwork.network`."""
        return f"{self.model_name} on {self.arguments.backbone}"

    @property
    def seen(self) -> str:
        """See `TrainedNetwork.seen`."""
        arguments = self.arguments
        return f"{arguments.image_size} pixels the shorter side, at most {arguments.longest_side} the longer"

    @property
    def category_ids(self) -> tuple[int, ...]:
        """What COCO's results call each class: as the data of training did; 1, 2, ... where that is not known."""
        known = self.training.get(CATEGORY_IDS)
        return tuple(range(1, len(self.classes) + 1)) if known is None else tuple(known)

    @property
    def arguments(self) -> DetectorArguments:
        """What builds the network, and what it does with images."""
        return arguments_of(self.model_arguments, self.preprocessing)

    def preprocess(self, image: Given) -> Tensor:
        """Make the network's input of one image: it resizes and normalises by itself.

        Args:
            image: A path, a picture of Pillow of any mode, or a uint8 array `(H, W, 3)`, RGB; a tensor stays as it is.

        Returns:
            `(3, H, W)`, 0..1, on the CPU.

        Raises:
            InputError: If it is not such an image, or cannot be read.
        """
        return self._input("image", image)

    def _input(self, name: str, image: Given) -> Tensor:
        picture = as_picture(image, name)
        if not isinstance(picture, Tensor):
            return pil_to_tensor(picture).float() / 255
        if picture.shape[0] != 3 or 0 in picture.shape:
            raise InputError(f"{name}: must be (3, H, W), got {tuple(picture.shape)}")
        return picture.detach().cpu()

    def predict(self, images: Given | Iterable[Given], *, batch_size: int = 8, score: float = 0.5) -> list[Detections]:
        """Find objects in images, in batches, where the model lies; it is put into evaluation mode.

        Args:
            images: One or several (an iterable, of any length) of what `preprocess` takes.
            batch_size: Images at a time.
            score: The least score of an object; below `score_threshold` of the network there are none.

        Returns:
            The objects of each image, of one image, too, a list.

        Raises:
            InputError: If an image is none of these or cannot be read, the network answers without finite numbers, or
                score does not lie in 0..1.
        """
        check_least(1, batch_size=batch_size)
        if not isinstance(score, int | float) or not 0 <= score <= 1:
            raise InputError(f"score must be 0 to 1, got {score!r}")
        found: Iterator[Tensor] = (self._input(name, image) for name, image in one_by_one(images))
        detected: list[Detections] = []
        while batch := list(islice(found, batch_size)):
            detected += [each.above(score) for each in self.detect(batch)]
        return detected

    def detect(self, batch: list[Tensor]) -> list[Detections]:
        """All objects that the network finds in images of `preprocess`, in evaluation mode, on the CPU.

        Raises:
            InputError: If there is no memory for so many, or the network answers without finite numbers.
        """
        device, dtype = self.device, self.dtype
        self.model.eval()
        try:
            with torch.no_grad(), watched_answers(self.model) as lost:
                images = [image.to(device) for image in batch]
                # The network would make float32 of bytes, whatever it takes itself.
                shares = [image / 255 if image.dtype == torch.uint8 else image for image in images]
                found = self.model([image.to(dtype) for image in shares])
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"batch_size is too large: {self.device} has no memory for {counted(len(batch), 'image')}"
            ) from error
        if any_lost(lost):
            raise InputError("the network's answer is not finite; is every number of the images, and of its weights?")
        return [detections(each, self.classes) for each in found]

    def as_seen(self, tensor: Tensor) -> Image.Image:
        """The RGB picture that `preprocess` made a tensor of."""
        pixels = tensor if tensor.dtype == torch.uint8 else (tensor.clamp(0, 1) * 255).round().byte()
        return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def detections(found: dict[str, Tensor], classes: tuple[str, ...]) -> Detections:
    """What a network found in one image, on the CPU, the surest first.

    Args:
        found: boxes, scores, labels and maybe masks, see `acmix.models.detectors.DetectionNetwork`.
        classes: Of the labels.
    """
    plain = {name: each.detach().cpu() for name, each in found.items()}
    order = plain["scores"].argsort(descending=True, stable=True)
    labels = plain["labels"][order]
    return Detections(
        boxes=plain["boxes"][order].float(),
        scores=plain["scores"][order].float(),
        classes=labels,
        labels=[classes[index] for index in labels.tolist()],
        masks=plain["masks"][order, 0] > 0.5 if "masks" in plain else None,
    )


def arguments_of(model_arguments: dict[str, Any], preprocessing: dict[str, Any]) -> DetectorArguments:
    """What builds a detector, out of what a checkpoint holds.

    Raises:
        InputError: If a part is missing, unknown or of another type. The message is the fault alone.
    """
    if set(preprocessing) != {*PREPROCESSING}:
        raise InputError(f"preprocessing must hold {', '.join(PREPROCESSING)}")
    plain = {key: list(item) if isinstance(item, tuple) else item for key, item in preprocessing.items()}
    return records.read(DetectorArguments, {**model_arguments, **plain})


def stored_arguments(arguments: DetectorArguments) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a checkpoint holds of arguments: model_arguments and preprocessing."""
    values = {field.name: getattr(arguments, field.name) for field in fields(arguments)}
    preprocessing = {name: values.pop(name) for name in PREPROCESSING}
    return values, preprocessing


def _check_category_ids(known: Any, classes: int) -> None:
    if known is None:
        return
    if not isinstance(known, list) or not all(type(each) is int for each in known):
        raise InputError(f"{CATEGORY_IDS} must be whole numbers, got {known!r:.100}")
    if len({*known}) != classes or len(known) != classes:
        raise InputError(f"{CATEGORY_IDS} must be one a class, each another, got {len(known)} of {classes}")


def _check_arguments(arguments: DetectorArguments) -> None:
    """Bounds within which a file may choose the network that is built for it."""
    check_arguments(arguments.backbone, arguments.backbone_arguments)
    ranges: dict[str, tuple[float, float]] = {
        "pyramid_channels": (1, _MOST_CHANNELS),
        "finest_stride": (1, 64),
        "pyramid_levels": (1, 8),
        "head_convolutions": (1, 4),
        "anchor_scale": (1e-3, 1e3),
        "anchor_octaves": (1, 16),
        "image_size": (1, _MOST_SIDE),
        "longest_side": (1, _MOST_SIDE),
        "score_threshold": (0, 1),
        "overlap": (0, 1),
        "most_detections": (1, 10_000),
    }
    for name, (low, high) in ranges.items():
        value = getattr(arguments, name)
        if value is not None and not low <= value <= high:
            raise InputError(f"{name} must be {low:g} to {high:g}, got {value}")
    for name in ("mean", "std"):
        values = getattr(arguments, name)
        if len(values) != 3 or not all(-1e3 < value < 1e3 and (name == "mean" or value > 0) for value in values):
            raise InputError(f"{name} must be three numbers, got {values}")
