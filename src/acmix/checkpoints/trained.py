"""A trained network in one file: safetensors weights with JSON metadata, read without running anything in it.

What is the same for every kind: `classifier`, `detector` and `segmenter` are the kinds, `stored` opens all of them.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self

import timm
import torch
from PIL import Image
from torch import Tensor, nn

import acmix.models
from acmix import records
from acmix.checkpoints import sealed
from acmix.checkpoints.files import BEST, LAST, read_bytes
from acmix.data.given import Given
from acmix.errors import InputError
from acmix.records import FIRST_TASK
from acmix.storage import write_atomically

# Version 1 has no digests, version 2 no classifiers of any number of labels: an acmix of then takes none for what it is
# not. What version 2 can hold is written as such.
FORMAT_VERSION, _SEALED = 3, 2
_METADATA_KEY = "acmix"
# What holds a trained network, in the words of errors; `opening` opens all of it.
WITH_LAYERS = f"a run folder of acmix train, its {BEST} or {LAST}, or a folder that acmix export wrote"
ACCEPTED = f"{WITH_LAYERS}; predict and validate take an .onnx of it, too"
_ADVICE = f"give {ACCEPTED} (acmix train --weights starts from other weights)"


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What lies beside the weights of a network: its parts, and the version of the format.

    Attributes:
        format_version: Of the file.
        model_name: See `TrainedNetwork`, as all that follows.
        model_arguments: Which build the network.
        classes: Names.
        preprocessing: As the kind has it.
        training: Record of the training.
        versions: That wrote the file.
        task: The kind.
        multi_label: Of classifiers, see there.
    """

    format_version: int
    model_name: str
    model_arguments: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]
    training: dict[str, Any]
    versions: dict[str, str]
    task: str = FIRST_TASK
    multi_label: bool = False


@dataclass(frozen=True)
class Format:
    """What metadata of every version and kind hold."""

    format_version: int
    task: str = FIRST_TASK


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork(ABC):
    """A trained network with what is needed to use it; `acmix.load` gives one.

    Attributes:
        model: The network.
        model_name: Its name.
        model_arguments: What builds it besides its name and the number of classes.
        classes: Class names in the order of the network's.
        preprocessing: What makes an image its input.
        training: Record of the training that made it (data, settings, measures).
        versions: Of acmix, torch and timm that wrote the file.
    """

    task: ClassVar[str]

    model: nn.Module
    model_name: str
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]
    model_arguments: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the model lies; the CPU if it has no tensors."""
        return next((each.device for each in chain(self.model.parameters(), self.model.buffers())), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Of the numbers that the model takes: that of its first parameter in floating point, or float32."""
        kinds = (each.dtype for each in self.model.parameters() if each.is_floating_point())
        return next(kinds, torch.float32)

    @property
    def network(self) -> str:
        """The network in words."""
        return self.model_name

    @property
    @abstractmethod
    def seen(self) -> str:
        """What size the network sees images in, in words, after "images of"."""

    @property
    def marks(self) -> dict[str, Any]:
        """What records and metadata say of some networks of the kind alone; no older acmix may overlook it."""
        return {}

    @property
    def format_version(self) -> int:
        """The first version of the format that can hold it."""
        return FORMAT_VERSION if self.marks else _SEALED

    @classmethod
    @abstractmethod
    def check(cls, metadata: Metadata) -> Metadata:
        """Check metadata that come from a file, and give those that can be used.

        Raises:
            InputError: If a part breaks its rule. The message is the fault alone.
        """

    @classmethod
    @abstractmethod
    def build(cls, metadata: Metadata) -> Self:
        """Make the network that metadata of `check` describe, with fresh weights."""

    @classmethod
    def of(cls, model: nn.Module, metadata: Metadata, **own: Any) -> Self:
        """Put a model and its metadata together; own is what the kind alone has."""
        return cls(
            model=model,
            model_name=metadata.model_name,
            classes=metadata.classes,
            preprocessing=metadata.preprocessing,
            model_arguments=metadata.model_arguments,
            training=metadata.training,
            versions=metadata.versions,
            **own,
        )

    @abstractmethod
    def predict(self, images: Given | Iterable[Given]) -> Any:
        """What the network makes of images."""

    @abstractmethod
    def preprocess(self, image: Given) -> Tensor:
        """The network's input of one image, `(C, H, W)`, on the CPU."""

    @abstractmethod
    def as_seen(self, tensor: Tensor) -> Image.Image:
        """The RGB picture that the network sees, out of what `preprocess` made."""


def save_trained(path: str | Path, trained: TrainedNetwork, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write a trained network; an existing file is replaced only once the new one is complete.

    The file holds digests of its tensors and its header: a byte that changes later is noticed when it is read.

    Args:
        path: The file, by convention `.safetensors`.
        trained: What to write; its versions are set to the ones running.
        weights: In place of its model's own: an average of them, or those that processes hold in parts.

    Raises:
        OSError: If the file cannot be written.
    """
    weights = trained.model.state_dict() if weights is None else weights
    text = json.dumps(metadata_of(trained), allow_nan=False)
    write_atomically(path, sealed.serialize(weights, {_METADATA_KEY: text}))


def metadata_of(trained: TrainedNetwork) -> dict[str, Any]:
    """What is stored beside the weights of a trained network: the parts of `Metadata`, of the versions running."""
    return vars(
        Metadata(
            format_version=trained.format_version,
            task=trained.task,
            model_name=trained.model_name,
            model_arguments=trained.model_arguments,
            classes=trained.classes,
            preprocessing=trained.preprocessing,
            training=trained.training,
            versions=running_versions(),
            **trained.marks,
        )
    )


def read_trained(path: Path) -> tuple[Any, sealed.Content]:
    """Metadata that nobody has checked, and weights, of a file that `save_trained` wrote.

    Raises:
        InputError: If the file is missing, truncated, changed in any byte, not a safetensors file, or has no metadata.
    """
    data = read_bytes(path, "checkpoint")
    try:
        content = sealed.deserialize(data)
    except InputError as fault:
        raise unusable(path, fault) from fault
    if _METADATA_KEY not in content.metadata:
        raise InputError(
            f"checkpoint {path} holds weights but not what is needed to use them (no acmix metadata); {_ADVICE}"
        )
    try:
        return records.parse(content.metadata[_METADATA_KEY]), content
    except InputError as fault:
        raise unusable(path, f"its metadata are {fault}") from fault


def running_versions() -> dict[str, str]:
    """Versions of acmix, torch and timm."""
    return {"acmix": acmix.__version__, "torch": torch.__version__, "timm": timm.__version__}


def unusable(path: str | Path, fault: object) -> InputError:
    """The error of a checkpoint with a fault."""
    return InputError(f"checkpoint {path} cannot be used: {fault}; {_ADVICE}")
