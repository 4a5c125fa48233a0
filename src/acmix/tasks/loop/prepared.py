"""What a kind of training makes ready, and what the loop asks of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.fabric import Fabric
from torch import Tensor

from acmix.checkpoints.trained import TrainedNetwork, running_versions, save_trained
from acmix.data import DataRecord
from acmix.data.sampling import EpochSampler
from acmix.tasks.loop.measures import EpochRow
from acmix.tasks.loop.results import Evaluation
from acmix.tasks.loop.settings import LoopSettings
from acmix.tasks.loop.task import Batches, Task


class Prepared(Protocol):
    """A network, what it will be trained with, and how."""

    @property
    def trained(self) -> TrainedNetwork:
        """What checkpoints hold: the network with its classes and preprocessing."""
        ...

    @property
    def images(self) -> Any:
        """To train on and to validate with: as `acmix.data.ImageData`, of the kind's own sources."""
        ...

    @property
    def settings(self) -> LoopSettings:
        """The run's settings."""
        ...

    @property
    def sampler(self) -> EpochSampler:
        """What this process draws of the training images, a function of the seed alone."""
        ...

    @property
    def facts(self) -> Mapping[str, str]:
        """What the kind alone can say of itself before training, in words; "images" is what the network sees."""
        ...

    def task(self, device: torch.device) -> Task:
        """What a batch teaches, and what a validation finds."""
        ...

    def batches(self, fabric: Fabric) -> Batches:
        """Where batches come from."""
        ...

    def evaluate(self, trained: Any) -> tuple[Evaluation, Sequence[Any]]:
        """Measure the best checkpoint as a user would, and what it made of each validation image."""
        ...


def configuration(prepared: Prepared, processes: int) -> dict[str, Any]:
    """What config.json holds of a run, beside what `fitting.fit` was told.

    Args:
        prepared: What is trained.
        processes: That train.
    """
    settings, images, trained = prepared.settings, prepared.images, prepared.trained
    return {
        "task": settings.task,
        "settings": asdict(settings),
        "processes": processes,
        "images_an_update": settings.batch_size * settings.accumulate * processes,
        "data": asdict(DataRecord.of(images, val_fraction=settings.val_fraction, seed=settings.seed)),
        "taken": images.taken,
        "train_images": len(images.train),
        "validation_images": len(images.validation),
        "classes": list(trained.classes),
        "preprocessing": {key: list(v) if isinstance(v, tuple) else v for key, v in trained.preprocessing.items()},
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "versions": running_versions(),
        "updates_an_epoch": len(prepared.sampler.update_sizes),
    } | trained.marks


def writer(
    trained: TrainedNetwork, record: Mapping[str, Any]
) -> Callable[[Path, EpochRow, Mapping[str, Tensor]], None]:
    """What writes weights as a usable checkpoint, with the row of their epoch in its record.

    Args:
        trained: The network with its classes and preprocessing.
        record: What checkpoints tell of the training, beside what the network's own record says.
    """

    def write(path: Path, row: EpochRow, weights: Mapping[str, Tensor]) -> None:
        save_trained(path, replace(trained, training={**trained.training, **record, "metrics": row}), weights)

    return write
