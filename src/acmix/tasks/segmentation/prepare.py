"""Make a segmenter ready to be trained: all that can be checked without training is checked here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from acmix.checkpoints.segmenter import Segmenter
from acmix.data import preprocessing_for
from acmix.data.loading import collate, example_loader
from acmix.data.masks.augmentation import Augmentation, Seen
from acmix.data.masks.coding import IGNORED
from acmix.data.masks.images import MaskedImages
from acmix.data.masks.opening import MaskedData
from acmix.data.sources import read_in_threads
from acmix.errors import InputError
from acmix.models import segmenters
from acmix.tasks.loop import prepared
from acmix.tasks.loop.distribution import readers
from acmix.tasks.loop.measures import Measure
from acmix.tasks.loop.optimization import prepare_for_training
from acmix.tasks.loop.task import Batches
from acmix.tasks.loop.trials import check_batches, check_input_size
from acmix.tasks.loop.weights import described
from acmix.tasks.segmentation.inference import Evaluation, Outcome, measured_images, segment, tally
from acmix.tasks.segmentation.measures import MEASURES
from acmix.tasks.segmentation.networks import arguments_of
from acmix.tasks.segmentation.settings import Settings
from acmix.tasks.segmentation.task import Segmentation


@dataclass(frozen=True, kw_only=True)
class Prepared(prepared.Prepared):
    """What of a segmenter is ready.

    Attributes:
        class_weights: Of pixels by their class, where the settings want any.
    """

    trained: Segmenter
    images: MaskedData
    settings: Settings
    class_weights: Tensor | None = None

    @property
    def measures(self) -> Sequence[Measure]:
        """Mean IoU first."""
        return MEASURES

    @property
    def facts(self) -> dict[str, str]:
        """What the network sees, and what its classes weigh."""
        settings = self.settings
        side, short = settings.image_size, settings.short_side
        scaled = "" if short is None else f", scaled to a short side of {short}"
        weights = described(settings.class_weights, self.class_weights, self.trained.classes)
        return {"images": f"3 x {side} x {side}{scaled}"} | weights

    def task(self, device: torch.device) -> Segmentation:
        """What images and masks teach."""
        return Segmentation(self.settings, len(self.trained.classes), device, self.class_weights)

    def batches(self, fabric: Fabric) -> Batches:
        """Augmented images, and those to validate with as they are used later, one at a time."""
        settings, images = self.settings, self.images
        augmentation = Augmentation(
            self.trained.preprocessing,
            side=settings.image_size,
            scales=(settings.smallest_scale, settings.largest_scale),
            turn=settings.turn,
            most_of_a_class=settings.most_of_a_class,
            flip=settings.flip,
            color_jitter=settings.color_jitter,
        )
        validation = measured_images(images.validation, Seen(self.trained.preprocessing))
        return Batches(
            training=example_loader(
                images.train, self.sampler, augmentation, collate, seed=settings.seed, workers=self.workers
            ),
            sampler=self.sampler,
            validation=self.validation_loader(validation, fabric, batch_size=1, collate_fn=list),
        )

    def outcomes(self, trained: Segmenter) -> Iterator[Outcome]:
        """Segment the validation images."""
        return segment(trained, self.images.validation, workers=self.workers)

    def evaluate(self, trained: Segmenter, outcomes: Sequence[Outcome]) -> Evaluation:
        """Count."""
        return tally(outcomes, trained.classes)


def prepare(
    network: segmenters.Segmenter,
    images: MaskedData,
    settings: Settings,
    fabric: Fabric,
    *,
    workers: int | None = None,
) -> Prepared:
    """Check that a network can be trained on images, and change it as the settings ask.

    Args:
        network: Of `acmix.tasks.segmentation.networks.fresh_network`.
        images: To train on and to validate with.
        settings: Of the training.
        fabric: The processes that train, launched.
        workers: Processes that read images, for each that trains; None shares the cores among them, at most 8 each.

    Raises:
        InputError: If the network does not take such crops or batches, it has no parts as the settings name, there are
            too few images, or masks say nothing of any pixel.
    """
    _check_masks(images)
    size = (3, settings.image_size, settings.image_size)
    check_input_size(network, settings.network, size)
    sampler = prepared.sampler_for(images.train, settings, fabric)
    check_batches(network, settings, size, sampler.update_sizes, fabric.world_size)
    prepare_for_training(network, settings)
    return Prepared(
        trained=Segmenter(
            model=network,
            model_name=settings.model,
            classes=images.train.classes,
            preprocessing=_preprocessing(network, images.train, settings),
            model_arguments=arguments_of(settings),
        ),
        images=images,
        settings=settings,
        sampler=sampler,
        workers=readers(fabric) if workers is None else workers,
        class_weights=balanced_weights(images.train) if settings.class_weights == "balanced" else None,
    )


def _check_masks(images: MaskedData) -> None:
    """Refuse images of which no mask has a pixel with a class: nothing could be learned, or measured."""
    for use, some in (("training", images.train), ("validation", images.validation)):
        if not any(_says_something(some, index) for index in range(len(some))):
            raise InputError(
                f"masks of the {use} images say nothing of any pixel ({some.coding.words} in all of them); "
                "label some, or take other images"
            )


def _says_something(images: MaskedImages, index: int) -> bool:
    try:
        return bool((images.read(index)[1] != IGNORED).any())
    except InputError:
        # What cannot be read was told of before, or another image replaces it.
        return False


def _preprocessing(network: segmenters.Segmenter, images: MaskedImages, settings: Settings) -> dict[str, Any]:
    """See `Segmenter.preprocessing`: mean and std are those of timm's configuration of the backbone."""
    known, coding = preprocessing_for(network.backbone), images.coding
    return {
        "input_size": (3, settings.image_size, settings.image_size),
        "mean": tuple(map(float, known["mean"])),
        "std": tuple(map(float, known["std"])),
        "short_side": settings.short_side,
        "mask_values": None if coding.colours else coding.values,
        "ignored_values": () if coding.colours else coding.ignored,
    }


def balanced_weights(images: MaskedImages) -> Tensor:
    """Weights `(classes,)` of pixels by their class: known pixels / (classes x pixels of the class); 0 for none.

    Raises:
        InputError: If images or masks cannot be read.
    """

    def count(index: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        labels = images.read(index)[1]
        return np.bincount(labels[labels != IGNORED], minlength=len(images.classes))

    counts = torch.from_numpy(sum(read_in_threads(count, range(len(images))), np.zeros(len(images.classes), np.int64)))
    return torch.where(counts > 0, counts.sum() / (len(counts) * counts.clamp(min=1)), 0.0).float()
