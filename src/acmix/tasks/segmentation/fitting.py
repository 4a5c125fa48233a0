"""Train a segmenter in a run folder."""

from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from acmix.data.masks.opening import open_masked
from acmix.progress import Progress
from acmix.tasks.loop import fitting
from acmix.tasks.loop.checks import checked_images
from acmix.tasks.loop.results import TrainingResult
from acmix.tasks.segmentation.measures import MEASURES
from acmix.tasks.segmentation.networks import check_network, fresh_network, load_start_weights
from acmix.tasks.segmentation.prepare import prepare
from acmix.tasks.segmentation.settings import Settings


def fit(
    data: str,
    settings: Settings,
    output: Path,
    *,
    validation: str | None = None,
    check_images: bool = True,
    **options: Any,
) -> TrainingResult | None:
    """Train a segmenter; everything is checked before the run folder is touched.

    Args:
        data: What `acmix.data.masks.opening.open_masked` takes.
        settings: The run's settings.
        output: The run folder, made if missing; it must not hold a run.
        validation: Of validation images with masks, where DATA holds none.
        check_images: Decode every image and mask once before training.
        **options: Those of `acmix.tasks.loop.fitting.Options`; weights are of a segmenter or of the backbone's
            classifier, see `load_start_weights`.

    Returns:
        What the run achieved; None in all processes but the first.

    Raises:
        InputError: If an argument, the data or the run folder cannot be used.
        TrainingError: If the run had to stop, `PreemptedError` because a scheduler asked it to.
        KeyboardInterrupt: If the person stops it; the run can be resumed.
    """
    asked = fitting.Options(**options)

    def begin(fabric: Fabric, progress: Progress) -> fitting.Begun:
        images = open_masked(
            data,
            validation=validation,
            val_fraction=settings.val_fraction,
            seed=settings.seed,
            ignore_value=settings.ignore_value,
            check_images=False,
            progress=progress,
        )
        checked = checked_images(images, fabric, check_images=check_images, progress=progress)
        network = fresh_network(settings, len(images.train.classes))
        started = None if asked.start_weights is None else load_start_weights(network, settings, asked.start_weights)
        prepared = prepare(network, images, settings, fabric, workers=asked.workers)
        return fitting.Begun(prepared=prepared, checked=checked, started=started)

    settings.check()
    check_network(settings)
    return fitting.fit(begin, settings, output, MEASURES, asked)
