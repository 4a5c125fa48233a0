"""A classifier and its checkpoint: timm's network, its classes and its preprocessing."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar

import timm
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from acmix.checkpoints.trained import Metadata, TrainedNetwork
from acmix.data.given import Given, as_picture, one_by_one, stacked
from acmix.errors import InputError, check_least, counted, in_one_line

# A file may choose a network's shape and its regularisation, never what is downloaded or loaded to build it.
_MODEL_ARGUMENTS = {
    *("acmix_stages", "block_args", "in_chans", "drop_rate", "drop_path_rate", "global_pool", "img_size")
}
_BLOCK_ARGUMENTS = {"heads", "kernel_att", "kernel_conv", "quiet_shifts"}
# Probability above which a label is predicted.
THRESHOLD = 0.5
_PREPROCESSING = {"input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode"}


@dataclass(frozen=True, kw_only=True)
class Classifier(TrainedNetwork):
    """A trained classifier with what is needed to use it; `acmix.load` gives one.

    Attributes:
        model: `(B, 3, H, W)` to logits `(B, len(classes))`.
        model_name: timm's name of the network.
        model_arguments: Arguments of `timm.create_model` besides the number of classes.
        classes: Class names in the order of the logits.
        preprocessing: timm's data configuration: input_size `(C, H, W)`, interpolation, mean, std, crop_pct, crop_mode.
        training: Record of the training that made it (data, settings, accuracy).
        versions: Of acmix, torch and timm that wrote the file.
        multi_label: Whether an image has any number of classes, each with a probability of its own, in place of one.
    """

    task: ClassVar[str] = "classification"

    multi_label: bool = False

    @property
    def marks(self) -> dict[str, Any]:
        """See `TrainedNetwork.marks`."""
        return {"multi_label": True} if self.multi_label else {}

    @classmethod
    def check(cls, metadata: Metadata) -> Metadata:
        """See `TrainedNetwork.check`."""
        check_arguments(metadata.model_name, metadata.model_arguments)
        return replace(metadata, preprocessing=check_preprocessing(metadata.classes, metadata.preprocessing))

    @classmethod
    def build(cls, metadata: Metadata) -> "Classifier":
        """See `TrainedNetwork.build`."""
        model = timm.create_model(metadata.model_name, num_classes=len(metadata.classes), **metadata.model_arguments)
        return cls.of(model, metadata, multi_label=metadata.multi_label)

    @property
    def seen(self) -> str:
        """See `TrainedNetwork.seen`."""
        return " x ".join(map(str, self.preprocessing["input_size"]))

    @property
    def transform(self) -> Callable[[Image.Image], Tensor]:
        """From an RGB image to a normalised tensor `(C, H, W)`: what loaders of images hold."""
        transform: Any = create_transform(**self.preprocessing)
        return transform

    def preprocess(self, image: Given) -> Tensor:
        """Make the network's input of one image.

        Args:
            image: A path, a picture of Pillow of any mode, or a uint8 array `(H, W, 3)`, RGB; a tensor stays as it is.

        Returns:
            `(C, H, W)`, normalised, on the CPU; stacked, such tensors are what `model` takes.

        Raises:
            InputError: If it is not such an image, or cannot be read.
        """
        return self._input("image", image, self.transform)

    def predict(
        self, images: Given | Iterable[Given], *, batch_size: int = 64, threshold: float | None = None
    ) -> tuple[list[Any], Tensor]:
        """Classify images, in batches, where the model lies; it is put into evaluation mode.

        Args:
            images: One or several (an iterable, of any length): paths of image files, pictures of Pillow of any mode,
                uint8 arrays `(H, W, 3)` in RGB, or tensors `(C, H, W)` as `preprocess` makes them. An array
                `(N, H, W, 3)` and a tensor `(N, C, H, W)` are several.
            batch_size: Images at a time.
            threshold: Of a multi_label classifier: the probability above which a class is a label; by default 0.5.

        Returns:
            The most probable class of each image, and the probabilities of all classes, `(N, len(classes))`, float32 on
            the CPU, in the order of `classes`; of one image, too, they are a list and a matrix of one row. Of a
            multi_label classifier a tuple of labels each, in the order of `classes` and empty where there are none; the
            probabilities are then each class's own and do not add up to 1.

        Raises:
            InputError: If an image is none of these or cannot be read, images of a batch differ in shape, the network
                takes none of this shape or answers without finite numbers, or a threshold does not lie in 0..1 or is
                of no meaning.
        """
        threshold = self.threshold(threshold)
        check_least(1, batch_size=batch_size)
        found, parts = self._inputs(images), [torch.zeros(0, len(self.classes))]
        while batch := list(islice(found, batch_size)):
            probabilities = self.probabilities(self.logits(stacked(batch)))
            check_finite(probabilities, [name for name, _ in batch].__getitem__)
            parts.append(probabilities)
        probabilities = torch.cat(parts)
        if self.multi_label:
            sets = (chosen(row, threshold) for row in probabilities)
            return [tuple(self.classes[index] for index in labels) for labels in sets], probabilities
        return [self.classes[index] for index in probabilities.argmax(1).tolist()], probabilities

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of the classes, `(..., len(classes))`: of one among all of them, or of each by itself if multi_label."""
        return logits.sigmoid() if self.multi_label else logits.softmax(-1)

    def threshold(self, given: float | None = None) -> float:
        """The probability above which a class is a label.

        Args:
            given: By a person; None is 0.5.

        Raises:
            InputError: If it is not 0 to 1, or an image has one class, which is the most probable one.
        """
        if given is None:
            return THRESHOLD
        if not self.multi_label:
            raise InputError("threshold is of classifiers that give any number of labels, this gives one; leave it out")
        if not isinstance(given, int | float) or not 0 <= given <= 1:
            raise InputError(f"threshold must be 0 to 1, got {given!r}")
        return given

    def logits(self, batch: Tensor) -> Tensor:
        """Logits `(B, len(classes))`, float32 on the CPU, of a batch of `preprocess`, in evaluation mode.

        Args:
            batch: `(B, C, H, W)`, anywhere, in floating point.

        Raises:
            InputError: If the network takes none of this shape, or there is no memory for so many.
        """
        expected = tuple(self.preprocessing["input_size"])
        if batch.ndim != 4 or batch.shape[1] != expected[0]:
            raise InputError(f"images must be (B, C, H, W) like {(1, *expected)}, got {tuple(batch.shape)}")
        self.model.eval()
        try:
            with torch.no_grad():
                logits = self.model(batch.to(self.device, self.dtype))
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"batch_size is too large: {self.device} has no memory for {counted(len(batch), 'image')}"
            ) from error
        except (RuntimeError, ValueError, AssertionError) as error:
            if batch.shape[1:] == expected:
                raise
            reason = in_one_line(error)
            raise InputError(f"images must be like {expected}, got {tuple(batch.shape[1:])}: {reason}") from error
        return logits.float().cpu()

    def _inputs(self, images: Given | Iterable[Given]) -> Iterator[tuple[str, Tensor]]:
        transform = self.transform
        return ((name, self._input(name, image, transform)) for name, image in one_by_one(images))

    def _input(self, name: str, image: Given, transform: Callable[[Image.Image], Tensor]) -> Tensor:
        picture = as_picture(image, name)
        return picture.detach().cpu() if isinstance(picture, Tensor) else transform(picture)

    def as_seen(self, tensor: Tensor) -> Image.Image:
        """The RGB picture that the network sees, out of a normalised tensor `(C, H, W)` of `transform`."""
        mean, deviation = (tensor.new_tensor(self.preprocessing[key])[:, None, None] for key in ("mean", "std"))
        pixels = ((tensor * deviation + mean).clamp(0, 1) * 255).round().byte()
        return Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).cpu().numpy()).convert("RGB")


def check_finite(probabilities: Tensor, name: Callable[[int], str]) -> None:
    """Refuse answers `(B, classes)` in which no class is the most probable one.

    Args:
        probabilities: Of a batch.
        name: What to call an image of it in an error.

    Raises:
        InputError: If a number is not finite.
    """
    if lost := (~probabilities.isfinite()).any(1).nonzero()[:, 0].tolist():
        raise InputError(
            f"{name(lost[0])}: the network's answer is not finite; is every number of the image, and of the weights?"
        )


def chosen(probabilities: Tensor, threshold: float) -> list[int]:
    """The indices of `(classes,)` probabilities above a threshold."""
    return (probabilities > threshold).nonzero()[:, 0].tolist()


def check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Raise InputError unless timm knows the network and the arguments are of its shape and regularisation."""
    if not timm.is_model(name):
        raise InputError(f"unknown network {name!r}")
    if not set(arguments) <= _MODEL_ARGUMENTS:
        raise InputError(f"model_arguments may hold {', '.join(sorted(_MODEL_ARGUMENTS))}, got {dict(arguments)!r}")
    block = arguments.get("block_args", {})
    if not isinstance(block, dict) or not set(block) <= _BLOCK_ARGUMENTS:
        raise InputError(f"block_args may hold {', '.join(sorted(_BLOCK_ARGUMENTS))}, got {block!r}")


def check_preprocessing(classes: Sequence[str], preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing that timm makes a transform of, with tuples as timm has them.

    Raises:
        InputError: If there are no classes, or a part is missing, unknown or of no use. The message is the fault alone.
    """
    if not classes:
        raise InputError("classes must name at least one")
    if set(preprocessing) != _PREPROCESSING:
        raise InputError(f"preprocessing must hold {', '.join(sorted(_PREPROCESSING))}")
    pairs = ((key, tuple(item) if isinstance(item, list) else item) for key, item in preprocessing.items())
    found: dict[str, Any] = dict(pairs)
    try:
        transform: Any = create_transform(**found)
        transform(Image.new("RGB", (8, 8)))
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        raise InputError(f"its preprocessing cannot be used: {in_one_line(error)}") from error
    return found
