"""What is checked of images before a run begins: every one of them, by all processes together."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lightning.fabric import Fabric

from acmix.data import TrainedImages
from acmix.data.datasets import OpenedData
from acmix.data.trained import examine, refuse_unreadable
from acmix.progress import Progress, silent
from acmix.tasks.loop.distribution import patience


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What reading all images before training told; nothing where they were not read.

    Attributes:
        trained: What to remember of the training images.
        contents: SHA-256 of the digests of all images in their order, and of their masks where they have some.
        copies: How many validation images are among the training images.
    """

    trained: TrainedImages = field(default_factory=TrainedImages.nothing)
    contents: str | None = None
    copies: int = 0


def checked_images(
    images: OpenedData[Any], fabric: Fabric, *, check_images: bool, progress: Progress = silent
) -> Checked:
    """Read images as `check_images_together` does, if that is wanted; copies are noted with what was taken."""
    checked = check_images_together(images, fabric, progress=progress) if check_images else Checked()
    if checked.copies:
        images.taken["copies"] = f"{checked.copies:,} validation images are training images, see acmix data check"
    return checked


def check_images_together(images: OpenedData[Any], fabric: Fabric, *, progress: Progress = silent) -> Checked:
    """Read and decode every image in files of its own once, each process its share, however long it takes.

    Shards and saved datasets are larger: `acmix data check` reads them.

    Args:
        images: To train on and to validate with.
        fabric: The processes that train, launched.
        progress: Shows how far it is.

    Raises:
        InputError: If images cannot be read, in all processes at once.
    """
    sources = [source for source in (images.train, images.validation) if source.checked]
    with patience(fabric) as gather:
        rank, processes = fabric.global_rank, fabric.world_size
        own = [examine(source, range(rank, len(source), processes), progress=progress) for source in sources]
        gathered = gather(own)
    faults = [fault for process in gathered for examined in process for fault in examined.faults]
    refuse_unreadable(faults, sum(map(len, sources)))
    if len(sources) < 2:
        return Checked()
    # Every image was read by one process and is 0 in all others.
    parts = list(zip(*gathered, strict=True))
    train, validation = (np.bitwise_or.reduce([process.contents for process in part]) for part in parts)
    masks = [np.bitwise_or.reduce([process.masks for process in part]) for part in parts]
    read = [train, validation, *(some for some in masks if some.any())]
    trained = TrainedImages.of(images.train, train)
    return Checked(
        trained=trained,
        contents=hashlib.sha256(b"".join(some.tobytes() for some in read)).hexdigest(),
        copies=int(trained.recognise(images.validation, validation)[0].sum()),
    )
