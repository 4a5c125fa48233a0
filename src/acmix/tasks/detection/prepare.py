"""Make a detector ready to be trained: all that can be checked without training is checked here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lightning.fabric import Fabric

from acmix.checkpoints.detector import CATEGORY_IDS, Detector, stored_arguments
from acmix.data.annotated import AnnotatedData
from acmix.data.loading import example_loader
from acmix.errors import InputError, counted
from acmix.models.detectors import DetectionNetwork
from acmix.tasks.detection.augmentation import Augmentation, collate
from acmix.tasks.detection.inference import Evaluation, Outcome, Pictures, as_lists, search, tally
from acmix.tasks.detection.measures import MEASURES
from acmix.tasks.detection.networks import arguments_for, freeze_norms
from acmix.tasks.detection.settings import Settings
from acmix.tasks.detection.task import Detection
from acmix.tasks.loop import prepared
from acmix.tasks.loop.distribution import readers
from acmix.tasks.loop.measures import Measure
from acmix.tasks.loop.optimization import prepare_for_training
from acmix.tasks.loop.task import Batches


@dataclass(frozen=True, kw_only=True)
class Prepared(prepared.Prepared):
    """What of a detector is ready."""

    trained: Detector
    images: AnnotatedData
    settings: Settings

    @property
    def measures(self) -> Sequence[Measure]:
        """AP first."""
        return MEASURES

    @property
    def learns_masks(self) -> bool:
        """Whether the network learns masks."""
        return self.settings.model == "mask_rcnn"

    @property
    def facts(self) -> dict[str, str]:
        """What the network sees."""
        return {"images": self.trained.seen}

    def task(self, device: torch.device) -> Detection:
        """What images and objects teach."""
        return Detection(self.images.validation, device, masks=self.learns_masks and self.images.validation.has_masks)

    def batches(self, fabric: Fabric) -> Batches:
        """Augmented images, and those to validate with as they are used later."""
        settings, pictures = self.settings, Pictures(self.images.validation)
        return Batches(
            training=example_loader(
                self.images.train,
                self.sampler,
                Augmentation(settings, masks=self.learns_masks),
                collate,
                seed=settings.seed,
                workers=self.workers,
            ),
            sampler=self.sampler,
            validation=self.validation_loader(pictures, fabric, batch_size=settings.batch_size, collate_fn=as_lists),
        )

    def outcomes(self, trained: Detector) -> Iterator[Outcome]:
        """Search the validation images."""
        options = {"batch_size": self.settings.batch_size, "workers": self.workers, "losses": True}
        return search(trained, self.images.validation, **options)

    def evaluate(self, trained: Detector, outcomes: Sequence[Outcome]) -> Evaluation:
        """Count."""
        del trained
        return tally(outcomes, self.images.validation)


def prepare(
    network: DetectionNetwork,
    images: AnnotatedData,
    settings: Settings,
    fabric: Fabric,
    *,
    workers: int | None = None,
) -> Prepared:
    """Check that a detector can be trained on images, and change it as the settings ask.

    Args:
        network: With its start weights.
        images: To train on and to validate with.
        settings: Of the training.
        fabric: The processes that train, launched.
        workers: Processes that read images, for each that trains; None shares the cores among them, at most 8 each.

    Raises:
        InputError: If there are no masks for a network that learns some, nothing to find in the validation images, too
            few images, or the network has no parts as the settings name.
    """
    if settings.model == "mask_rcnn" and not images.train.has_masks:
        raise InputError(
            "model must be another than mask_rcnn, which learns masks: not every object of the training images has one"
        )
    if images.validation.objects.crowd.all():
        count = counted(len(images.validation), "validation image")
        raise InputError(f"there is nothing to find in {count}, so no epoch is better than another; add objects")
    sizes = images.train.sizes
    sampler = prepared.sampler_for(
        images.train,
        settings,
        fabric,
        # Images of a batch are continued to one size: upright ones beside wide ones would be half empty.
        groups=None if settings.jitters else (sizes[:, 0] > sizes[:, 1]).astype(np.int64),
    )
    if settings.freeze_norms:
        freeze_norms(network)
    prepare_for_training(network, settings)
    model_arguments, preprocessing = stored_arguments(arguments_for(settings))
    detector = Detector(
        model=network,
        model_name=settings.model,
        classes=images.train.classes,
        preprocessing=preprocessing,
        model_arguments=model_arguments,
        training={CATEGORY_IDS: [int(each) for each in images.train.category_ids]},
    )
    return Prepared(
        trained=detector,
        images=images,
        settings=settings,
        sampler=sampler,
        workers=readers(fabric) if workers is None else workers,
    )
