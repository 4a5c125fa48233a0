"""Train a classifier that is prepared."""

from collections.abc import Mapping
from typing import Any

from lightning.fabric import Fabric

from acmix.data import image_loader, training_loader, training_transform
from acmix.data.sampling import evaluation_batches
from acmix.errors import InputError
from acmix.tasks.classification.prepare import Prepared
from acmix.tasks.classification.task import Classification
from acmix.tasks.loop.failures import explained
from acmix.tasks.loop.progress import Reporting
from acmix.tasks.loop.run import RunFiles
from acmix.tasks.loop.task import Batches
from acmix.tasks.loop.training import Training


def execute(
    prepared: Prepared, fabric: Fabric, files: RunFiles, state: Mapping[str, Any] | None, reporting: Reporting
) -> None:
    """Train in a run folder that exists, to the last epoch.

    Args:
        prepared: What is trained.
        fabric: The processes that train, launched.
        files: What is written in the run folder.
        state: Of `acmix.tasks.loop.states`, to continue from; None begins.
        reporting: Whom to tell of progress, and how often to save.

    Raises:
        InputError: If the state is of another version.
        TrainingError: If the run had to stop, `PreemptedError` because a scheduler asked it to.
        KeyboardInterrupt: If the person stops it.
    """
    classifier, settings = prepared.classifier, prepared.settings
    task = Classification(settings, len(classifier.classes), fabric.device, prepared.class_weights)
    training = Training(fabric, classifier.model, task, _batches(prepared, fabric), settings, files, reporting)
    if state is not None:
        training.restore(state)
    try:
        training.run()
    except (OSError, RuntimeError, InputError) as error:
        raise explained(error, files) from error


def _batches(prepared: Prepared, fabric: Fabric) -> Batches:
    settings, images, workers = prepared.settings, prepared.images, prepared.workers
    transform = training_transform(
        prepared.classifier.preprocessing,
        digits=prepared.digits,
        random_augment=settings.random_augment,
        random_erase=settings.random_erase,
    )
    own = evaluation_batches(
        len(images.validation),
        batch_size=settings.batch_size,
        processes=fabric.world_size,
        rank=fabric.global_rank,
    )
    seen = images.validation.with_transform(prepared.classifier.transform)
    return Batches(
        training=training_loader(images.train, prepared.sampler, transform, seed=settings.seed, workers=workers),
        sampler=prepared.sampler,
        validation=image_loader(seen, batch_sampler=own, workers=workers),
    )
