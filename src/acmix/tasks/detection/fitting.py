"""Train a detector in a run folder."""

from typing import Any

from acmix.data.annotated import AnnotatedData, open_annotated
from acmix.tasks.detection.figures import check_installed
from acmix.tasks.detection.networks import fresh_detector, load_start_weights
from acmix.tasks.detection.prepare import prepare
from acmix.tasks.detection.settings import Settings
from acmix.tasks.loop.fitting import Room


def _check(settings: Settings) -> None:  # noqa: ARG001  they are checked with the network
    check_installed()


def _open(data: str, settings: Settings, **options: Any) -> AnnotatedData:
    return open_annotated(data, val_fraction=settings.val_fraction, seed=settings.seed, **options)


ROOM = Room(check=_check, open=_open, network=fresh_detector, load=load_start_weights, prepare=prepare)
