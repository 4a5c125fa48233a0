"""Train a classifier in a run folder."""

from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from acmix.data import open_dataset
from acmix.models.names import check_name
from acmix.progress import Progress
from acmix.tasks.classification.measures import MEASURES, MULTI_LABEL_MEASURES
from acmix.tasks.classification.networks import load_start_weights
from acmix.tasks.classification.prepare import fresh_network, prepare
from acmix.tasks.classification.settings import Settings
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
    """Train a classifier; everything is checked before the run folder is touched.

    Args:
        data: What `acmix.data.open_dataset` takes.
        settings: The run's settings.
        output: The run folder, made if missing; it must not hold a run.
        validation: Of validation images, where DATA holds none: shards, for instance.
        check_images: Decode every image once before training.
        **options: Those of `acmix.tasks.loop.fitting.Options`; weights are ours, published or of another trainer, see
            `load_start_weights`, and workers are none by default for bundled digits.

    Returns:
        What the run achieved; None in all processes but the first.

    Raises:
        InputError: If an argument, the data or the run folder cannot be used.
        TrainingError: If the run had to stop, `PreemptedError` because a scheduler asked it to.
        KeyboardInterrupt: If the person stops it; the run can be resumed.
    """
    asked = fitting.Options(**options)

    def begin(fabric: Fabric, progress: Progress) -> fitting.Begun:
        images = open_dataset(
            data,
            validation=validation,
            val_fraction=settings.val_fraction,
            seed=settings.seed,
            multi_label=settings.multi_label,
            check_images=False,
            progress=progress,
        )
        checked = checked_images(images, fabric, check_images=check_images, progress=progress)
        network, arguments = fresh_network(settings, len(images.train.classes))
        started = None if asked.start_weights is None else load_start_weights(network, asked.start_weights)
        prepared = prepare(network, images, settings, fabric, arguments=arguments, workers=asked.workers)
        measures = MULTI_LABEL_MEASURES if images.train.multi_label else MEASURES
        return fitting.Begun(prepared=prepared, checked=checked, started=started, measures=measures)

    settings.check()
    check_name(settings.model)
    return fitting.fit(begin, settings, output, MEASURES, asked)
