"""Train a segmenter in a run folder."""

from typing import Any

from acmix.data.masks.opening import MaskedData, open_masked
from acmix.tasks.loop.fitting import Room
from acmix.tasks.segmentation.networks import check_network, fresh_network, load_start_weights
from acmix.tasks.segmentation.prepare import prepare
from acmix.tasks.segmentation.settings import Settings


def _open(data: str, settings: Settings, **options: Any) -> MaskedData:
    own = {"val_fraction": settings.val_fraction, "seed": settings.seed, "ignore_value": settings.ignore_value}
    return open_masked(data, **own, **options)


ROOM = Room(check=check_network, open=_open, network=fresh_network, load=load_start_weights, prepare=prepare)
