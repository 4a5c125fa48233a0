"""Open the images to evaluate a checkpoint on, never those it was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from acmix.data.datasets import (
    DIGITS,
    Digits,
    LabelledImages,
    existing_folder,
    open_folder,
    validation_folder,
)
from acmix.data.images import check_images as check_every_image
from acmix.errors import InputError


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """What a checkpoint remembers of its training data, enough to find the held-out images again.

    Attributes:
        location: `digits`, or the absolute path of the folder.
        was_split: Whether validation was split off one folder.
        val_fraction: Share of that split.
        seed: Seed of that split.
        fingerprint: `LabelledImages.fingerprint` of the images before the split.
    """

    location: str
    was_split: bool
    val_fraction: float
    seed: int
    fingerprint: str


def data_record(training: Mapping[str, Any]) -> DataRecord:
    """The record of the training data in a checkpoint's training record.

    Raises:
        InputError: If it is missing or malformed.
    """
    record = training.get("data")
    types = {field.name: field.type for field in fields(DataRecord)}
    if not isinstance(record, dict) or set(record) != set(types):
        raise InputError("the checkpoint does not say which data it was trained on, so none can be held out")
    if wrong := [name for name, kind in types.items() if type(record[name]) is not kind]:
        raise InputError(f"the checkpoint's record of its training data is damaged: {', '.join(wrong)}")
    return DataRecord(**record)


def open_evaluation(
    data: str, classes: tuple[str, ...], record: DataRecord, *, check_images: bool = True, progress: bool = False
) -> LabelledImages:
    """Open validation images, labelled in the order of a checkpoint's classes.

    The training data itself (recognised by its fingerprint, wherever it lies now) is split exactly as in training
    and only the held-out part is returned. A folder with train/ and val/ gives val/. Any other folder of class
    folders is taken whole.

    Args:
        data: `digits` or a folder, as in training.
        classes: The checkpoint's classes.
        record: The checkpoint's memory of its training data.
        check_images: Decode every file once.
        progress: Show a progress bar on stderr while checking.

    Raises:
        InputError: If the data cannot be opened, holds classes the checkpoint does not know, or is the training
            folder with other files than in training, so that the held-out part cannot be found again.
    """
    if data == DIGITS:
        images: LabelledImages = Digits()
        location = DIGITS
    else:
        root = existing_folder(data)
        location = str(root)
        images = open_folder(validation_folder(root) or root)
    if unknown := sorted(set(images.classes) - set(classes)):
        raise InputError(
            f"{data} has classes that the checkpoint does not know: {', '.join(unknown)}; it knows {', '.join(classes)}"
        )
    if record.was_split:
        if images.fingerprint() == record.fingerprint:
            _, images = images.split(record.val_fraction, record.seed)
        elif location == record.location:
            raise InputError(
                f"the files in {data} have changed since training, so its held-out images cannot be told from the "
                "trained ones; give another folder of class folders"
            )
    if check_images:
        check_every_image([image for image in images.images if isinstance(image, Path)], progress=progress)
    labels = [classes.index(images.classes[label]) for label in images.labels]
    return LabelledImages(images.names, images.images, labels, classes)
