"""Make a classifier ready to be trained: all that can be checked without training is checked here."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from acmix.checkpoints.classifier import Classifier
from acmix.data import ImageData, image_loader, preprocessing_for, training_loader, training_transform
from acmix.data.bundled import BUNDLED
from acmix.data.sampling import EpochSampler, evaluation_batches
from acmix.tasks.classification.inference import classify, evaluation_of
from acmix.tasks.classification.networks import create_network
from acmix.tasks.classification.settings import Settings
from acmix.tasks.classification.task import Classification, balanced_weights, positive_weights
from acmix.tasks.loop.distribution import readers
from acmix.tasks.loop.optimization import prepare_for_training
from acmix.tasks.loop.task import Batches
from acmix.tasks.loop.trials import check_batches, check_input_size
from acmix.tasks.loop.weights import described


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The `acmix.tasks.loop.prepared.Prepared` of classifiers.

    Attributes:
        trained: The network with its classes and preprocessing.
        images: To train on and to validate with.
        settings: The run's settings.
        sampler: What this process draws of the training images, a function of the seed alone.
        workers: Processes that read images, for each that trains.
        class_weights: Of images by their class, or of those that have a label, where the settings want any.
    """

    trained: Classifier
    images: ImageData
    settings: Settings
    sampler: EpochSampler
    workers: int
    class_weights: Tensor | None = None

    @property
    def facts(self) -> dict[str, str]:
        """What the network sees, and what its classes weigh."""
        weights = described(self.settings.class_weights, self.class_weights, self.trained.classes)
        return {"images": self.trained.seen} | weights

    def task(self, device: torch.device) -> Classification:
        """What images and labels teach."""
        classes, multi_label = len(self.trained.classes), self.trained.multi_label
        return Classification(self.settings, classes, device, self.class_weights, multi_label=multi_label)

    def batches(self, fabric: Fabric) -> Batches:
        """Augmented images, and those to validate with as they are used later."""
        settings, images = self.settings, self.images
        transform = training_transform(
            self.trained.preprocessing,
            digits=images.location in BUNDLED,
            random_augment=settings.random_augment,
            random_erase=settings.random_erase,
            smallest_crop=settings.smallest_crop,
            flip=settings.flip,
            color_jitter=settings.color_jitter,
        )
        own = evaluation_batches(
            len(images.validation),
            batch_size=settings.batch_size,
            processes=fabric.world_size,
            rank=fabric.global_rank,
        )
        seen = images.validation.with_transform(self.trained.transform)
        return Batches(
            training=training_loader(images.train, self.sampler, transform, seed=settings.seed, workers=self.workers),
            sampler=self.sampler,
            validation=image_loader(seen, batch_sampler=own, workers=self.workers),
        )

    def evaluate(self, trained: Classifier) -> tuple[Any, list[Any]]:
        """Classify the validation images, and count."""
        options = {"batch_size": self.settings.batch_size, "workers": self.workers}
        outcomes = list(classify(trained, self.images.validation, **options))
        return evaluation_of(trained, outcomes), outcomes


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
    multi_label = images.train.multi_label
    settings = settings.suited(multi_label=multi_label)
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
        multi_label=multi_label,
    )
    weights = positive_weights if multi_label else balanced_weights
    if workers is None:
        workers = 0 if images.location in BUNDLED else readers(fabric)
    return Prepared(
        trained=classifier,
        images=images,
        settings=settings,
        sampler=sampler,
        workers=workers,
        class_weights=weights(images.train) if settings.class_weights == "balanced" else None,
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
