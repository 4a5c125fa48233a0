"""Make a classifier ready to be trained: all that can be checked without training is checked here."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric import Fabric
from PIL.Image import Image
from torch import Tensor, nn

from acmix.checkpoints.classifier import Classifier
from acmix.data import ImageData, preprocessing_for, training_loader, training_transform
from acmix.data.bundled import BUNDLED
from acmix.tasks.classification.inference import classify, evaluation_of
from acmix.tasks.classification.measures import MEASURES, MULTI_LABEL_MEASURES
from acmix.tasks.classification.networks import arguments_of
from acmix.tasks.classification.settings import Settings
from acmix.tasks.classification.task import Classification, balanced_weights, positive_weights
from acmix.tasks.loop import prepared
from acmix.tasks.loop.distribution import readers
from acmix.tasks.loop.measures import Measure
from acmix.tasks.loop.optimization import prepare_for_training
from acmix.tasks.loop.task import Batches
from acmix.tasks.loop.trials import check_batches, check_input_size
from acmix.tasks.loop.weights import described


@dataclass(frozen=True, kw_only=True)
class Prepared(prepared.Prepared):
    """What of a classifier is ready.

    Attributes:
        augmentation: Of a training image.
        class_weights: Of images by their class, or of those that have a label, where the settings want any.
    """

    trained: Classifier
    images: ImageData
    settings: Settings
    augmentation: Callable[[Image], Tensor]
    class_weights: Tensor | None = None

    @property
    def measures(self) -> Sequence[Measure]:
        """Top-1 accuracy first, or mAP where images have any number of labels."""
        return MULTI_LABEL_MEASURES if self.trained.multi_label else MEASURES

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
        seen = images.validation.with_transform(self.trained.transform)
        own = {"seed": settings.seed, "workers": self.workers}
        return Batches(
            training=training_loader(images.train, self.sampler, self.augmentation, **own),
            sampler=self.sampler,
            validation=self.validation_loader(seen, fabric, batch_size=settings.batch_size),
        )

    def outcomes(self, trained: Classifier) -> Iterator[Any]:
        """Classify the validation images."""
        options = {"batch_size": self.settings.batch_size, "workers": self.workers}
        return classify(trained, self.images.validation, **options)

    def evaluate(self, trained: Classifier, outcomes: Sequence[Any]) -> Any:
        """Count."""
        return evaluation_of(trained, outcomes)


def prepare(
    network: nn.Module,
    images: ImageData,
    settings: Settings,
    fabric: Fabric,
    *,
    workers: int | None = None,
) -> Prepared:
    """Check that a network can be trained on images, and change it as the settings ask.

    Args:
        network: `(B, C, H, W)` to logits `(B, classes)`, of timm's data configuration.
        images: To train on and to validate with.
        settings: Of the training.
        fabric: The processes that train, launched.
        workers: Processes that read images, for each that trains; None shares the cores among them, at most 8 each, and
            is none for bundled digits.

    Raises:
        InputError: If the network does not take such images or batches, it has no parts as the settings name, timm has
            no such augmentation, there are too few images, or their labels are not known.
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
    own = {"shard_lengths": images.train.shard_lengths, "prefetch": images.train.prefetch}
    sampler = prepared.sampler_for(images.train, settings, fabric, repeats=settings.repeats, **own)
    check_batches(network, settings, size, sampler.update_sizes, fabric.world_size)
    prepare_for_training(network, settings)
    classifier = Classifier(
        model=network,
        model_name=settings.model,
        classes=images.train.classes,
        preprocessing=preprocessing,
        model_arguments=arguments_of(settings),
        multi_label=multi_label,
    )
    augmentation = training_transform(
        preprocessing,
        digits=images.location in BUNDLED,
        random_augment=settings.random_augment,
        random_erase=settings.random_erase,
        smallest_crop=settings.smallest_crop,
        flip=settings.flip,
        color_jitter=settings.color_jitter,
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
        augmentation=augmentation,
        class_weights=weights(images.train) if settings.class_weights == "balanced" else None,
    )
