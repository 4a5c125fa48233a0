"""What a kind of training makes ready, and what the loop asks of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from acmix.checkpoints.trained import TrainedNetwork, running_versions, save_trained
from acmix.data import DataRecord, image_loader
from acmix.data.datasets import OpenedData
from acmix.data.sampling import EpochSampler, evaluation_batches
from acmix.tasks.loop.measures import EpochRow, Measure
from acmix.tasks.loop.results import Evaluation
from acmix.tasks.loop.settings import LoopSettings
from acmix.tasks.loop.task import Batches, Task


@dataclass(frozen=True, kw_only=True)
class Prepared(ABC):
    """A network, what it will be trained with, and how.

    Attributes:
        trained: What checkpoints hold: the network with its classes and preprocessing.
        images: To train on and to validate with.
        settings: The run's settings.
        sampler: What this process draws of the training images, a function of the seed alone.
        workers: Processes that read images, for each that trains.
    """

    trained: TrainedNetwork
    images: OpenedData[Any]
    settings: LoopSettings
    sampler: EpochSampler
    workers: int

    @property
    @abstractmethod
    def measures(self) -> Sequence[Measure]:
        """What validations find, the first decides which epoch is best."""

    @property
    @abstractmethod
    def facts(self) -> Mapping[str, str]:
        """What the kind alone can say of itself before training, in words; "images" is what the network sees."""

    @abstractmethod
    def task(self, device: torch.device) -> Task:
        """What a batch teaches, and what a validation finds."""

    @abstractmethod
    def batches(self, fabric: Fabric) -> Batches:
        """Augmented images, and those to validate with as they are used later."""

    @abstractmethod
    def outcomes(self, trained: Any) -> Iterator[Any]:
        """What a checkpoint makes of each validation image, as a user would have it."""

    @abstractmethod
    def evaluate(self, trained: Any, outcomes: Sequence[Any]) -> Evaluation:
        """Count all outcomes of a checkpoint."""

    def validation_loader(
        self, images: Dataset[Any], fabric: Fabric, *, batch_size: int, **options: Any
    ) -> DataLoader[Any]:
        """A loader of this process's share of the validation images; options are those of `DataLoader`."""
        own = evaluation_batches(
            len(self.images.validation),
            batch_size=batch_size,
            processes=fabric.world_size,
            rank=fabric.global_rank,
        )
        return image_loader(images, batch_sampler=own, workers=self.workers, **options)


def sampler_for(images: Sized, settings: LoopSettings, fabric: Fabric, **options: Any) -> EpochSampler:
    """What a process draws of the training images; options are those of `EpochSampler`."""
    return EpochSampler(
        len(images),
        # An image is not drawn twice to fill a batch.
        batch_size=min(settings.batch_size, len(images)),
        accumulate=settings.accumulate,
        processes=fabric.world_size,
        rank=fabric.global_rank,
        seed=settings.seed,
        **options,
    )


def configuration(prepared: Prepared, processes: int) -> dict[str, Any]:
    """What config.json holds of a run, beside what `Room.fit` was told.

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
