"""A usable classifier in one file: safetensors weights with JSON metadata, read without running anything in it."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor, nn

import acmix.models
from acmix import records
from acmix.checkpoints import sealed
from acmix.checkpoints.files import BEST, LAST, read_bytes
from acmix.checkpoints.loading import load_weights
from acmix.data.given import Given, as_picture, one_by_one, stacked
from acmix.errors import InputError, counted
from acmix.storage import write_atomically

# Version 1 has no digests.
FORMAT_VERSION = 2
_METADATA_KEY = "acmix"
# What holds a classifier, in the words of errors; `opening` opens all of it.
WITH_LAYERS = f"a run folder of acmix train, its {BEST} or {LAST}, or a folder that acmix export wrote"
ACCEPTED = f"{WITH_LAYERS}; predict and validate take an .onnx of it, too"
_ADVICE = f"give {ACCEPTED} (acmix train --weights starts from other weights)"
# A file may choose a network's shape and its regularisation, never what is downloaded or loaded to build it.
_MODEL_ARGUMENTS = {"block_args", "in_chans", "drop_rate", "drop_path_rate", "global_pool", "img_size"}
_BLOCK_ARGUMENTS = {"heads", "kernel_att", "kernel_conv", "quiet_shifts"}
_PREPROCESSING = {"input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode"}


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A trained network with what is needed to use it; `acmix.load` gives one.

    Attributes:
        model: `(B, 3, H, W)` to logits `(B, len(classes))`.
        model_name: timm's name of the network.
        model_arguments: Arguments of `timm.create_model` besides the number of classes.
        classes: Class names in the order of the logits.
        preprocessing: timm's data configuration: input_size `(C, H, W)`, interpolation, mean, std, crop_pct, crop_mode.
        training: Record of the training that made it (data, settings, accuracy).
        versions: Of acmix, torch and timm that wrote the file.
    """

    model: nn.Module
    model_name: str
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]
    model_arguments: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def transform(self) -> Callable[[Image.Image], Tensor]:
        """From an RGB image to a normalised tensor `(C, H, W)`: what loaders of images hold."""
        transform: Any = create_transform(**self.preprocessing)
        return transform

    @property
    def device(self) -> torch.device:
        """Where the model lies; the CPU if it has no tensors."""
        return next((each.device for each in chain(self.model.parameters(), self.model.buffers())), torch.device("cpu"))

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

    def predict(self, images: Given | Iterable[Given], *, batch_size: int = 64) -> tuple[list[str], Tensor]:
        """Classify images, in batches, where the model lies; it is put into evaluation mode.

        Args:
            images: One or several (an iterable, of any length): paths of image files, pictures of Pillow of any mode,
                uint8 arrays `(H, W, 3)` in RGB, or tensors `(C, H, W)` as `preprocess` makes them. An array
                `(N, H, W, 3)` and a tensor `(N, C, H, W)` are several.
            batch_size: Images at a time.

        Returns:
            The most probable class of each image, and the probabilities of all classes, `(N, len(classes))`, float32 on
            the CPU, in the order of `classes`; of one image, too, they are a list and a matrix of one row.

        Raises:
            InputError: If an image is none of these or cannot be read, images of a batch differ in shape, or the
                network takes none of this shape or answers without finite numbers.
        """
        if not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
        found, parts = self._inputs(images), [torch.zeros(0, len(self.classes))]
        while batch := list(islice(found, batch_size)):
            probabilities = self.logits(stacked(batch)).softmax(1)
            for (name, _), row in zip(batch, probabilities, strict=True):
                if not row.isfinite().all():
                    raise InputError(f"{name}: the network's answer is not finite; is every number of the image?")
            parts.append(probabilities)
        probabilities = torch.cat(parts)
        return [self.classes[index] for index in probabilities.argmax(1).tolist()], probabilities

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
        kinds = (each.dtype for each in self.model.parameters() if each.is_floating_point())
        self.model.eval()
        try:
            with torch.no_grad():
                logits = self.model(batch.to(self.device, next(kinds, torch.float32)))
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"batch_size is too large: {self.device} has no memory for {counted(len(batch), 'image')}"
            ) from error
        except (RuntimeError, ValueError, AssertionError) as error:
            if batch.shape[1:] == expected:
                raise
            reason = " ".join(str(error).split())[:200]
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


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What lies beside the weights of a classifier: its parts, and the version of the format."""

    format_version: int
    model_name: str
    model_arguments: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]
    training: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True)
class _Format:
    format_version: int


def save_classifier(path: str | Path, classifier: Classifier, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write a classifier; an existing file is replaced only once the new one is complete.

    The file holds digests of its tensors and its header: a byte that changes later is noticed when it is read.

    Args:
        path: The file, by convention `.safetensors`.
        classifier: What to write; its versions are set to the ones running.
        weights: In place of its model's own: an average of them, or those that processes hold in parts.

    Raises:
        OSError: If the file cannot be written.
    """
    metadata = Metadata(
        format_version=FORMAT_VERSION,
        model_name=classifier.model_name,
        model_arguments=classifier.model_arguments,
        classes=classifier.classes,
        preprocessing=classifier.preprocessing,
        training=classifier.training,
        versions=running_versions(),
    )
    weights = classifier.model.state_dict() if weights is None else weights
    write_atomically(path, sealed.serialize(weights, {_METADATA_KEY: json.dumps(vars(metadata), allow_nan=False)}))


def load_classifier(path: str | Path) -> Classifier:
    """Read a classifier that `save_classifier` wrote, onto the CPU, in evaluation mode.

    Raises:
        InputError: If the file is missing, truncated, changed in any byte, not a safetensors file, not a classifier, of
            a newer format, or contradicts itself (metadata of the wrong type, an unknown network, weights of another
            network).
    """
    metadata, content = _read(path)
    try:
        return assemble(metadata, content)
    except InputError as fault:
        raise _unusable(path, str(fault)) from fault


def assemble(metadata: Any, content: sealed.Content) -> Classifier:
    """Make a classifier of metadata that nobody has checked, on the CPU, in evaluation mode.

    Args:
        metadata: What `save_classifier` stores beside the weights.
        content: Exactly the network's weights; with digests, unless the metadata are of a version that had none.

    Raises:
        InputError: If the metadata breaks its rules, the weights are of another network or without their digests. The
            message is the fault alone: the caller knows where both came from.
    """
    found = _checked(metadata)
    name, arguments, classes = found.model_name, found.model_arguments, found.classes
    if found.format_version > 1 and not content.sealed:
        raise InputError("its digests are gone: it was changed since it was written")
    try:
        model = timm.create_model(name, num_classes=len(classes), **arguments)
        load_weights(model, content.tensors)
        classifier = Classifier(
            model=model.eval(),
            model_name=name,
            classes=classes,
            preprocessing=found.preprocessing,
            model_arguments=arguments,
            training=found.training,
            versions=found.versions,
        )
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"its weights or arguments do not fit {name}: {reason}") from error
    return classifier


def running_versions() -> dict[str, str]:
    """Versions of acmix, torch and timm."""
    return {"acmix": acmix.__version__, "torch": torch.__version__, "timm": timm.__version__}


def _read(path: str | Path) -> tuple[Any, sealed.Content]:
    path = Path(path)
    data = read_bytes(path, "checkpoint")
    try:
        content = sealed.deserialize(data)
    except InputError as fault:
        raise _unusable(path, str(fault)) from fault
    if _METADATA_KEY not in content.metadata:
        raise InputError(
            f"checkpoint {path} holds weights but not what is needed to use them (no acmix metadata); {_ADVICE}"
        )
    try:
        return records.parse(content.metadata[_METADATA_KEY]), content
    except InputError as fault:
        raise _unusable(path, f"its metadata are {fault}") from fault


def _checked(content: Any) -> Metadata:
    """Metadata whose every part may be used; tuples in the preprocessing, as timm has them."""
    # Another version may hold other parts.
    version = records.read(_Format, content, others=True).format_version
    if not 1 <= version <= FORMAT_VERSION:
        raise InputError(f"it has format version {version}, this acmix reads 1 to {FORMAT_VERSION} (upgrade acmix)")
    metadata = records.read(Metadata, content, others=True)
    if not timm.is_model(metadata.model_name):
        raise InputError(f"unknown network {metadata.model_name!r}")
    if not set(metadata.model_arguments) <= _MODEL_ARGUMENTS:
        raise InputError(
            f"model_arguments may hold {', '.join(sorted(_MODEL_ARGUMENTS))}, got {metadata.model_arguments!r}"
        )
    block = metadata.model_arguments.get("block_args", {})
    if not isinstance(block, dict) or not set(block) <= _BLOCK_ARGUMENTS:
        raise InputError(f"block_args may hold {', '.join(sorted(_BLOCK_ARGUMENTS))}, got {block!r}")
    return replace(metadata, preprocessing=check_preprocessing(metadata.classes, metadata.preprocessing))


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
        raise InputError(f"its preprocessing cannot be used: {' '.join(str(error).split())[:200]}") from error
    return found


def _unusable(path: str | Path, fault: str) -> InputError:
    return InputError(f"checkpoint {path} cannot be used: {fault}; {_ADVICE}")
