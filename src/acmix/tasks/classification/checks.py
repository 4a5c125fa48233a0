"""What is checked before a run begins, or goes on: every image, by all processes together, and that nothing changed."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric import Fabric

from acmix.data import ImageData, LabelledImages, TrainedImages
from acmix.data.trained import examine, refuse_unreadable
from acmix.errors import InputError
from acmix.tasks.loop import run, states
from acmix.tasks.loop.distribution import patience
from acmix.tasks.loop.settings import DEFAULTS

# What a run's record says of its data by fingerprints, in words.
_FINGERPRINTS = {
    "fingerprint": "training images",
    "validation_fingerprint": "validation images",
    "contents": "contents of images",
}


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What reading all images before training told; nothing where they were not read.

    Attributes:
        trained: What to remember of the training images.
        contents: SHA-256 of the digests of all images in their order.
        copies: How many validation images are among the training images.
    """

    trained: TrainedImages = field(default_factory=TrainedImages.nothing)
    contents: str | None = None
    copies: int = 0


def check_images_together(images: ImageData, fabric: Fabric, *, progress: bool = False) -> Checked:
    """Read and decode every image of class folders once, each process its share, however long it takes.

    Shards and saved datasets are larger: `acmix data check` reads them.

    Args:
        images: To train on and to validate with.
        fabric: The processes that train, launched.
        progress: Show progress bars on stderr.

    Raises:
        InputError: If images cannot be read, in all processes at once.
    """
    sources = [source for source in (images.train, images.validation) if isinstance(source, LabelledImages)]
    with patience(fabric) as gather:
        rank, processes = fabric.global_rank, fabric.world_size
        own = [examine(source, range(rank, len(source), processes), progress=progress) for source in sources]
        gathered = gather(own)
    faults = [fault for process in gathered for examined in process for fault in examined.faults]
    refuse_unreadable(faults, sum(map(len, sources)))
    if len(sources) < 2:
        return Checked()
    # Every image was read by one process and is 0 in all others.
    train, validation = (
        np.bitwise_or.reduce([part.contents for part in parts]) for parts in zip(*gathered, strict=True)
    )
    trained = TrainedImages.of(images.train, train)
    return Checked(
        trained=trained,
        contents=hashlib.sha256(train.tobytes() + validation.tobytes()).hexdigest(),
        copies=int(trained.recognise(images.validation, validation)[0].sum()),
    )


def resumable_state(output: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The state to continue from; a run is not continued under other settings, with other data, from a damaged file.

    Data are told by their fingerprints, and by their contents where both runs read them: they may lie elsewhere now.

    Args:
        output: The run folder.
        config: What config.json would be if the run began now.

    Raises:
        InputError: If settings or data differ, or a file of the run is damaged.
    """
    saved = run.read_json(output / run.CONFIG)
    for part in ("settings", "data"):
        if not isinstance(saved.get(part), dict):
            raise InputError(f"{output / run.CONFIG} is damaged: {part} is missing")
    now, before = (_conditions(each) for each in (config, saved | {"settings": DEFAULTS | saved["settings"]}))
    # What the run did not record was not known then: images that were not read, or to a version before this.
    changed = [
        f"{name} was {before.get(name)}, is {value}"
        if name not in _FINGERPRINTS
        else f"the {_FINGERPRINTS[name]} are others"
        for name, value in now.items()
        if before.get(name) != value and (name in before or name not in _FINGERPRINTS)
    ]
    if changed:
        raise InputError(f"resume needs the settings and data the run began with: {'; '.join(changed)}")
    return states.read(states.paths(output)[-1])


def _conditions(config: dict[str, Any]) -> dict[str, Any]:
    """What must be as it was when a run is resumed: the data themselves, wherever they lie."""
    data = {name: value for name, value in config["data"].items() if name not in ("location", "validation_location")}
    counted = {name: config.get(name) for name in ("weights", "processes", "train_images", "validation_images")}
    contents: dict[str, str] = {} if config.get("contents") is None else {"contents": config["contents"]}
    return config["settings"] | data | counted | contents
