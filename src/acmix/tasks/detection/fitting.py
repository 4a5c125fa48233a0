"""Train a detector in a run folder."""

from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from acmix.data.annotated import open_annotated
from acmix.progress import Progress
from acmix.tasks.detection.figures import check_installed
from acmix.tasks.detection.measures import MEASURES
from acmix.tasks.detection.networks import fresh_detector, load_start_weights
from acmix.tasks.detection.prepare import prepare
from acmix.tasks.detection.settings import Settings
from acmix.tasks.loop import fitting
from acmix.tasks.loop.checks import checked_images
from acmix.tasks.loop.results import TrainingResult


def fit(
    data: str,
    settings: Settings,
    output: Path,
    *,
    validation: str | None = None,
    check_images: bool = True,
    **options: Any,
) -> TrainingResult | None:
    """Train a detector; everything is checked before the run folder is touched.

    Args:
        data: What `acmix.data.annotated.open_annotated` takes.
        settings: The run's settings.
        output: The run folder, made if missing; it must not hold a run.
        validation: Of validation images, in place of those in data.
        check_images: Decode every image once before training.
        **options: Those of `acmix.tasks.loop.fitting.Options`; weights are a detector's or a classifier's, see
            `load_start_weights`.

    Returns:
        What the run achieved; None in all processes but the first.

    Raises:
        InputError: If an argument, the data or the run folder cannot be used.
        TrainingError: If the run had to stop, `PreemptedError` because a scheduler asked it to.
        KeyboardInterrupt: If the person stops it; the run can be resumed.
    """
    check_installed()
    asked = fitting.Options(**options)

    def begin(fabric: Fabric, progress: Progress) -> fitting.Begun:
        images = open_annotated(
            data,
            validation=validation,
            val_fraction=settings.val_fraction,
            seed=settings.seed,
            check_images=False,
            progress=progress,
        )
        checked = checked_images(images, fabric, check_images=check_images, progress=progress)
        network, arguments = fresh_detector(settings, len(images.train.classes))
        started = None if asked.start_weights is None else load_start_weights(network, asked.start_weights)
        prepared = prepare(network, arguments, images, settings, fabric, workers=asked.workers)
        return fitting.Begun(prepared=prepared, checked=checked, started=started)

    return fitting.fit(begin, settings, output, MEASURES, asked)
