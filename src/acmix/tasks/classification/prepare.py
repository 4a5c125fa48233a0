"""Make a classifier ready to be trained: all that can be checked without training is checked here."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric
from torch import Tensor, nn

from acmix.checkpoints.classifier import Classifier, running_versions, save_classifier
from acmix.data import DataRecord, ImageData, preprocessing_for
from acmix.data.bundled import BUNDLED
from acmix.data.sampling import EpochSampler
from acmix.tasks.classification.networks import check_batches, check_input_size, create_network
from acmix.tasks.classification.settings import Settings
from acmix.tasks.classification.task import balanced_weights
from acmix.tasks.loop.measures import EpochRow
from acmix.tasks.loop.optimization import prepare_for_training

# More processes than this only wait for the network.
_MOST_WORKERS = 8


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A classifier, what it will be trained with, and how.

    Attributes:
        classifier: The network with its classes and preprocessing.
        images: To train on and to validate with.
        settings: The run's settings.
        sampler: What this process draws of the training images, a function of the seed alone.
        workers: Processes that read images, for each that trains.
        class_weights: Of images by their class, where the settings want any.
        record: What checkpoints tell of the training.
    """

    classifier: Classifier
    images: ImageData
    settings: Settings
    sampler: EpochSampler
    workers: int
    class_weights: Tensor | None = None
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def digits(self) -> bool:
        """Whether the images are bundled digits."""
        return self.images.location in BUNDLED

    def save(self, path: Path, row: EpochRow, weights: Mapping[str, Tensor]) -> None:
        """Write weights as a usable checkpoint, with the row of their epoch in its record."""
        save_classifier(path, replace(self.classifier, training=self.record | {"metrics": row}), weights)


def fresh_network(settings: Settings, classes: int) -> tuple[nn.Module, dict[str, Any]]:
    """The network that settings ask for, and the arguments that a checkpoint must repeat to build it.

    Raises:
        InputError: If there is no such network, or it does not take what the settings ask for.
    """
    arguments = {"block_args": {"quiet_shifts": True}} if settings.quiet_shifts else {}
    dropped = {"drop_rate": settings.drop_rate, "drop_path_rate": settings.drop_path}
    return create_network(settings.model, num_classes=classes, **dropped, **arguments), arguments


def prepare(
    network: nn.Module,
    images: ImageData,
    settings: Settings,
    fabric: Fabric,
    *,
    arguments: dict[str, Any] | None = None,
    workers: int | None = None,
) -> Prepared:
    """Check that a network can be trained on images, and change it as the settings ask.

    Args:
        network: `(B, C, H, W)` to logits `(B, classes)`, of timm's data configuration.
        images: To train on and to validate with.
        settings: Of the training.
        fabric: The processes that train, launched.
        arguments: Of the network, which its checkpoints repeat.
        workers: Processes that read images, for each that trains; None shares the cores among them, at most 8 each, and
            is none for bundled digits.

    Raises:
        InputError: If the network does not take such images or batches, it has no parts as the settings name, there are
            too few images, or their labels are not known.
    """
    preprocessing = preprocessing_for(
        network,
        image_size=settings.image_size,
        crop_share=settings.crop_share,
        digits=images.location in BUNDLED,
    )
    size = preprocessing["input_size"]
    check_input_size(network, settings.model, size)
    sampler = _sampler(images, settings, fabric)
    check_batches(network, settings, size, sampler.update_sizes, fabric.world_size)
    prepare_for_training(network, settings)
    classifier = Classifier(
        model=network,
        model_name=settings.model,
        classes=images.train.classes,
        preprocessing=preprocessing,
        model_arguments=arguments or {},
    )
    workers = _workers(images, fabric) if workers is None else workers
    return Prepared(
        classifier=classifier,
        images=images,
        settings=settings,
        sampler=sampler,
        workers=workers,
        class_weights=balanced_weights(images.train) if settings.class_weights == "balanced" else None,
    )


def _sampler(images: ImageData, settings: Settings, fabric: Fabric) -> EpochSampler:
    return EpochSampler(
        len(images.train),
        # An image is not drawn twice to fill a batch.
        batch_size=min(settings.batch_size, len(images.train)),
        accumulate=settings.accumulate,
        processes=fabric.world_size,
        rank=fabric.global_rank,
        seed=settings.seed,
        repeats=settings.repeats,
        shard_lengths=images.train.shard_lengths,
        prefetch=images.train.prefetch,
    )


def _workers(images: ImageData, fabric: Fabric) -> int:
    share = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", fabric.world_size))
    return 0 if images.location in BUNDLED else max(1, min(_MOST_WORKERS, share))


def configuration(prepared: Prepared, processes: int, *, weights: Path | None, contents: str | None) -> dict[str, Any]:
    """What config.json holds of a run.

    Args:
        prepared: What is trained.
        processes: That train.
        weights: The file of start weights.
        contents: See `acmix.tasks.classification.checks.Checked`.
    """
    settings, images, classifier = prepared.settings, prepared.images, prepared.classifier
    return {
        "settings": asdict(settings),
        "processes": processes,
        "images_an_update": settings.batch_size * settings.accumulate * processes,
        "weights": None if weights is None else str(weights),
        "data": asdict(DataRecord.of(images, val_fraction=settings.val_fraction, seed=settings.seed)),
        "taken": images.taken,
        "train_images": len(images.train),
        "validation_images": len(images.validation),
        "classes": list(classifier.classes),
        "preprocessing": {key: list(v) if isinstance(v, tuple) else v for key, v in classifier.preprocessing.items()},
        "parameters": sum(parameter.numel() for parameter in classifier.model.parameters()),
        "versions": running_versions(),
        "updates_an_epoch": len(prepared.sampler.update_sizes),
        "contents": contents,
    }
