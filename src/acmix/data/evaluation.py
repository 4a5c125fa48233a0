"""Open the images to evaluate a checkpoint on, never those it was trained on."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, get_args, get_type_hints

from acmix.data.datasets import check_files, locate, open_for_evaluation
from acmix.data.sources import SplittableImages
from acmix.errors import InputError


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """What a checkpoint remembers of its training data, enough to find the held-out images again.

    Attributes:
        location: As in `ImageData`.
        was_split: Whether validation was split off one folder.
        val_fraction: Share of that split.
        seed: Seed of that split.
        fingerprint: `ImageSource.fingerprint` of the images before the split, or of the training images.
        validation_location: As in `ImageData`.
    """

    location: str
    was_split: bool
    val_fraction: float
    seed: int
    fingerprint: str
    validation_location: str | None = None


def data_record(training: Mapping[str, Any]) -> DataRecord:
    """The record of the training data in a checkpoint's training record.

    Raises:
        InputError: If it is missing or malformed.
    """
    record = training.get("data")
    known = {field.name: field for field in fields(DataRecord)}
    required = {name for name, field in known.items() if field.default is MISSING}
    if not isinstance(record, dict) or not required <= set(record) <= set(known):
        raise InputError("the checkpoint does not say which data it was trained on, so none can be held out")
    hints = get_type_hints(DataRecord)
    if wrong := [name for name, value in record.items() if not _is(value, hints[name])]:
        raise InputError(f"the checkpoint's record of its training data is damaged: {', '.join(wrong)}")
    return DataRecord(**record)


def _is(value: object, hint: Any) -> bool:
    """Whether a value has just this type: True is no whole number here."""
    return type(value) in (get_args(hint) or (hint,))


def open_evaluation(
    data: str, classes: tuple[str, ...], record: DataRecord, *, check_images: bool = True, progress: bool = False
) -> Any:
    """Open validation images, labelled in the order of a checkpoint's classes.

    The training data itself (recognised by its fingerprint, wherever it lies now) is split exactly as in training
    and only the held-out part is returned. Data with train and validation parts gives the latter. Any other data is
    taken whole.

    Args:
        data: What `open_dataset` takes; the training data stands for the validation images named beside it.
        classes: The checkpoint's classes.
        record: The checkpoint's memory of its training data.
        check_images: Decode every file of class folders once.
        progress: Show a progress bar on stderr while checking, and while counting the images of shards.

    Returns:
        An `ImageSource`.

    Raises:
        InputError: If the data cannot be opened, holds classes the checkpoint does not know, is the images that the
            checkpoint was trained on, or is the training folder with other files than in training, so that the
            held-out part cannot be found again.
    """
    if record.validation_location is not None and locate(data) == record.location:
        data = record.validation_location
    location, images = open_for_evaluation(data, progress=progress)
    if unknown := sorted(set(images.classes) - set(classes)):
        raise InputError(
            f"{data} has classes that the checkpoint does not know: {', '.join(unknown)}; it knows {', '.join(classes)}"
        )
    trained = images.fingerprint() == record.fingerprint
    if trained and not record.was_split:
        raise InputError(f"{data} is what the checkpoint was trained on; give its validation images, or other images")
    if record.was_split:
        if trained and isinstance(images, SplittableImages):
            _, images = images.split(record.val_fraction, record.seed)
        elif location == record.location:
            raise InputError(
                f"the files in {data} have changed since training, so its held-out images cannot be told from the "
                "trained ones; give another folder of class folders"
            )
    if check_images:
        check_files(images, progress=progress)
    return images.with_classes(classes)
