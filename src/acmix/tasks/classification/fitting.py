"""Train a classifier in a run folder."""

from typing import Any

from acmix.data import ImageData, open_dataset
from acmix.tasks.classification.networks import check_network, fresh_network, load_start_weights
from acmix.tasks.classification.prepare import prepare
from acmix.tasks.classification.settings import Settings
from acmix.tasks.loop.fitting import Room


def _open(data: str, settings: Settings, **options: Any) -> ImageData:
    own = {"val_fraction": settings.val_fraction, "seed": settings.seed, "multi_label": settings.multi_label}
    return open_dataset(data, **own, **options)


ROOM = Room(check=check_network, open=_open, network=fresh_network, load=load_start_weights, prepare=prepare)
