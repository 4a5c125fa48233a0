"""A segmenter and its checkpoint: a network that gives every pixel a class, its classes and its preprocessing."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from acmix import records
from acmix.checkpoints.classifier import check_arguments
from acmix.checkpoints.trained import Metadata, TrainedNetwork
from acmix.data.given import Given, as_picture, one_by_one
from acmix.data.masks.augmentation import Seen
from acmix.errors import InputError, in_one_line
from acmix.models.segmenters import SEGMENTERS, segmenter

# A file may choose a network's shape and its regularisation, never what is downloaded or loaded to build it.
_ARGUMENTS = {"backbone", "decoder_channels", "output_stride", "drop_rate", "drop_path_rate", "block_args"}
_OF_DECODER = {"backbone", "decoder_channels", "output_stride"}
_MOST_CHANNELS = 4_096
_LONGEST_SIDE = 65_536


@dataclass(frozen=True, kw_only=True)
class Segmenter(TrainedNetwork):
    """A trained segmenter with what is needed to use it; `acmix.load` gives one.

    Attributes:
        model: `(B, 3, H, W)` to logits `(B, len(classes), H, W)`.
        model_name: Of the decoder: semantic_fpn, upernet or deeplabv3_plus.
        model_arguments: Of `acmix.models.segmenters.segmenter` besides the number of classes, the backbone among them.
        classes: Class names in the order of the logits.
        preprocessing: mean and std of each channel; short_side, which images are scaled to, or None; input_size of the
            crops of training `(C, H, W)`; mask_values, what the masks of training had for each class, None where they
            had colours; ignored_values, what said nothing.
        training: Record of the training that made it (data, settings, scores).
        versions: Of acmix, torch and timm that wrote the file.
    """

    task: ClassVar[str] = "segmentation"

    @classmethod
    def check(cls, metadata: Metadata) -> Metadata:
        """See `TrainedNetwork.check`."""
        name, arguments = metadata.model_name, metadata.model_arguments
        if name not in SEGMENTERS:
            raise InputError(f"unknown network {name!r}")
        if not set(arguments) <= _ARGUMENTS or not isinstance(arguments.get("backbone"), str):
            raise InputError(f"model_arguments may hold {', '.join(sorted(_ARGUMENTS))}, got {arguments!r}")
        channels = arguments.get("decoder_channels", 1)
        if not isinstance(channels, int) or not 1 <= channels <= _MOST_CHANNELS:
            raise InputError(f"decoder_channels must be 1 to {_MOST_CHANNELS}, got {channels!r}")
        check_arguments(
            arguments["backbone"], {key: value for key, value in arguments.items() if key not in _OF_DECODER}
        )
        return replace(metadata, preprocessing=check_preprocessing(metadata.classes, metadata.preprocessing))

    @classmethod
    def build(cls, metadata: Metadata) -> "Segmenter":
        """See `TrainedNetwork.build`."""
        model = segmenter(metadata.model_name, num_classes=len(metadata.classes), **metadata.model_arguments)
        return cls.of(model, metadata)

    @property
    def network(self) -> str:
        """See `TrainedNetwork.network`."""
        return f"{self.model_name} on {self.model_arguments['backbone']}"

    @property
    def seen(self) -> str:
        """See `TrainedNetwork.seen`."""
        side = self.preprocessing["short_side"]
        return "their own size" if side is None else f"{side} pixels the shorter side"

    def preprocess(self, image: Given) -> Tensor:
        """Make the network's input of one image.

        Args:
            image: A path, a picture of Pillow of any mode, or a uint8 array `(H, W, 3)`, RGB; a tensor stays as it is.

        Returns:
            `(C, H, W)`, normalised, on the CPU, of the image's size or with the short side of the preprocessing.

        Raises:
            InputError: If it is not such an image, or cannot be read.
        """
        return self._input("image", image)[0]

    def predict(self, images: Given | Iterable[Given]) -> list[NDArray[np.int64]]:
        """The class of every pixel of images, one after another, where the model lies; it is put into evaluation mode.

        Args:
            images: One or several (an iterable, of any length): paths of image files, pictures of Pillow of any mode,
                uint8 arrays `(H, W, 3)` in RGB, or tensors `(C, H, W)` as `preprocess` makes them. An array
                `(N, H, W, 3)` and a tensor `(N, C, H, W)` are several. Each may have a size of its own.

        Returns:
            For each image indices into `classes`, `(H, W)` of the image; of one image, too, they are a list.

        Raises:
            InputError: If an image is none of these or cannot be read, or the network takes none of this shape or
                answers without finite numbers.
        """
        return [logits.argmax(0).numpy() for _, logits in self.logits(images)]

    def logits(self, images: Given | Iterable[Given]) -> Iterator[tuple[str, Tensor]]:
        """Logits of images one after another; arguments and errors are those of `predict`.

        Yields:
            What to call an image in an error, and `(len(classes), H, W)` of the image, float32 on the CPU.
        """
        for name, image in one_by_one(images):
            seen, size = self._input(name, image)
            yield name, self.at_size(name, seen, size)

    def _input(self, name: str, image: Given) -> tuple[Tensor, tuple[int, int]]:
        """The network's input, and height and width of the image."""
        picture = as_picture(image, name)
        if isinstance(picture, Tensor):
            return picture.detach().cpu(), (picture.shape[1], picture.shape[2])
        return Seen(self.preprocessing)(picture), (picture.height, picture.width)

    def at_size(self, name: str, seen: Tensor, size: Sequence[int]) -> Tensor:
        """Logits `(len(classes), *size)` of one image, float32 on the CPU, in evaluation mode.

        Args:
            name: What to call the image in an error.
            seen: `(C, H, W)`, of `preprocess`.
            size: Height and width of the picture that it was made of.

        Raises:
            InputError: If the network takes none of this shape, or answers without finite numbers.
        """
        channels = self.preprocessing["input_size"][0]
        if seen.shape[0] != channels or 0 in seen.shape:
            raise InputError(f"{name}: must be ({channels}, H, W), got {tuple(seen.shape)}")
        self.model.eval()
        try:
            with torch.no_grad():
                logits = self.model(seen[None].to(self.device, self.dtype)).float()
                if tuple(logits.shape[-2:]) != tuple(size):
                    logits = nn.functional.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)
        except torch.OutOfMemoryError as error:
            raise InputError(f"{name}: {self.device} has no memory for {size[1]} x {size[0]} pixels") from error
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = in_one_line(error)
            raise InputError(f"{name}: the network does not take {tuple(seen.shape)}: {reason}") from error
        if not logits.isfinite().all():
            raise InputError(f"{name}: the network's answer is not finite; is every number of the image?")
        return logits[0].cpu()

    def as_seen(self, tensor: Tensor) -> Image.Image:
        """The RGB picture that the network sees, out of a normalised tensor `(C, H, W)` of `preprocess`."""
        mean, deviation = (tensor.new_tensor(self.preprocessing[key])[:, None, None] for key in ("mean", "std"))
        pixels = ((tensor * deviation + mean).clamp(0, 1) * 255).round().byte()
        return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


@dataclass(frozen=True, kw_only=True)
class _Preprocessing:
    """See `Segmenter`."""

    input_size: tuple[int, int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    short_side: int | None
    mask_values: tuple[int, ...] | None
    ignored_values: tuple[int, ...]


def check_preprocessing(classes: tuple[str, ...], preprocessing: dict[str, Any]) -> dict[str, Any]:
    """Preprocessing of a segmenter, with tuples where there are lists.

    Raises:
        InputError: If there are no classes, or a part is missing, unknown or of no use. The message is the fault alone.
    """
    if not classes:
        raise InputError("classes must name at least one")
    try:
        found = records.read(_Preprocessing, preprocessing)
    except InputError as fault:
        raise InputError(f"its preprocessing cannot be used: {fault}") from fault
    if min(found.input_size) < 1 or min(found.std) <= 0 or not 0 < (found.short_side or 1) < _LONGEST_SIDE:
        raise InputError(f"its preprocessing cannot be used: input_size, std and short_side must be positive, {found}")
    if found.mask_values is not None and len(found.mask_values) != len(classes):
        raise InputError(f"mask_values must be one a class, got {len(found.mask_values)} of {len(classes)}")
    return vars(found)
