"""Open the images to evaluate a checkpoint on, never those it was trained on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic

import numpy as np

from acmix import records
from acmix.data.datasets import OpenedData, check_files, held_out_of, open_together
from acmix.data.finding import FoundOf, Held, Part, PartOf, find
from acmix.data.sources import ImageSource, NamedImages, Splittable, unknown_classes
from acmix.data.trained import TrainedImages, examine, refuse_unreadable
from acmix.errors import InputError, counted
from acmix.progress import Progress, silent


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
        validation_fingerprint: As in `ImageData`.
    """

    location: str
    was_split: bool
    val_fraction: float
    seed: int
    fingerprint: str
    validation_location: str | None = None
    validation_fingerprint: str | None = None

    @classmethod
    def of(cls, images: OpenedData[Any], *, val_fraction: float, seed: int) -> "DataRecord":
        """Make the record of opened images.

        Args:
            images: Of `open_dataset`, or of `acmix.data.annotated.open_annotated`.
            val_fraction: As there.
            seed: As there.
        """
        return cls(
            location=images.location,
            was_split=images.was_split,
            val_fraction=val_fraction,
            seed=seed,
            fingerprint=images.fingerprint,
            validation_location=images.validation_location,
            validation_fingerprint=images.validation_fingerprint,
        )


def data_record(training: Mapping[str, Any]) -> DataRecord:
    """The record of the training data in a checkpoint's training record.

    Raises:
        InputError: If it is missing or malformed.
    """
    if not (record := training.get("data")):
        raise InputError("the checkpoint does not say which data it was trained on, so none can be held out")
    try:
        return records.read(DataRecord, record)
    except InputError as fault:
        raise InputError(f"the checkpoint's record of its training data is damaged: {fault}") from fault


def data_record_if_any(training: Mapping[str, Any]) -> DataRecord | None:
    """The same, None where it is missing."""
    return data_record(training) if training.get("data") else None


@dataclass(frozen=True, kw_only=True)
class EvaluationImages:
    """Images to measure a checkpoint on, none of which it was trained on, and what else was found.

    Attributes:
        images: An `ImageSource`, or what else holds images, labelled in the order of the checkpoint's classes.
        measured: What they are, in words.
        trained_on: How many were left out, since their files were trained on, under whatever name.
        changed: How many were left out, since they are changed files of the training data.
        notes: What a person must know to trust the figures, one sentence each.
    """

    images: Any
    measured: str
    trained_on: int = 0
    changed: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def facts(self) -> dict[str, Any]:
        """What belongs beside the figures."""
        left_out = {"trained_on": self.trained_on, "changed": self.changed}
        return {"measured": self.measured, "left_out": left_out, "notes": self.notes}


def open_evaluation(
    data: str,
    classes: tuple[str, ...],
    record: DataRecord,
    *,
    multi_label: bool = False,
    check_images: bool = True,
    progress: Progress = silent,
) -> Any:
    """Open validation images as `find_evaluation` does, by the record of the data alone.

    Args:
        data: As there.
        classes: As there.
        record: As there.
        multi_label: As there.
        check_images: As there.
        progress: As there.

    Returns:
        An `ImageSource`.

    Raises:
        InputError: As there.
    """
    found = find_evaluation(
        data, classes, record, multi_label=multi_label, check_images=check_images, progress=progress
    )
    return found.images


def find_evaluation(
    data: str,
    classes: tuple[str, ...],
    record: DataRecord | None,
    trained: TrainedImages | None = None,
    *,
    multi_label: bool = False,
    check_images: bool = True,
    progress: Progress = silent,
) -> EvaluationImages:
    """Open validation images, labelled in the order of a checkpoint's classes, and leave out those it was trained on.

    The training data itself (recognised by its fingerprint, wherever it lies now) is split exactly as in training
    and only the held-out part is taken. Of other data with parts the validation images are taken, else the test
    images; data without parts is taken whole. Then images are left out whose files were trained on, whatever they are
    called now. Where most images that share their names with trained ones also share the file, the data is the
    training data with changes, and the other namesakes are left out, too.

    Args:
        data: What `open_dataset` takes; the training data stands for the validation images named beside it.
        classes: The checkpoint's classes.
        record: The checkpoint's memory of its training data; None where it has none, which is noted.
        trained: Its memory of each image; None leaves out nothing.
        multi_label: Whether the checkpoint gives images any number of labels.
        check_images: Decode every file of class folders once.
        progress: Shows how far it is while checking, and while counting the images of shards.

    Raises:
        InputError: If the data cannot be opened, holds classes the checkpoint does not know, is the images that the
            checkpoint was trained on, is the training folder with other files than in training while the checkpoint
            does not remember each image, or gives images one label where the checkpoint gives any number, or the other
            way round.
    """

    def opened(part: Part, progress: Progress) -> ImageSource:
        images = open_together([part], classes=classes, multi_label=multi_label or None, progress=progress)[part]
        if images.multi_label == multi_label:
            return images
        raise InputError(
            f"{part.words} gives each image one label, and the checkpoint any number: which others an image has is not "
            "known; give a CSV file of names and labels"
            if multi_label
            else f"{part.words} gives images any number of labels, and the checkpoint one; give class folders, or a "
            "CSV file with one label an image"
        )

    doors = Doors(find, opened)
    return find_held_out(doors, data, classes, record, trained, check_images=check_images, progress=progress)


@dataclass(frozen=True)
class Doors(Generic[Held]):
    """How data of one kind are found and opened.

    Attributes:
        find: The parts of DATA.
        open: The images of a part; shows how far it is.
    """

    find: Callable[[str], FoundOf[Held]]
    open: Callable[[PartOf[Held], Progress], NamedImages]


def find_held_out(
    doors: Doors[Held],
    data: str,
    classes: tuple[str, ...],
    record: DataRecord | None,
    trained: TrainedImages | None = None,
    *,
    check_images: bool = True,
    progress: Progress = silent,
) -> EvaluationImages:
    """See `find_evaluation`, of data of any kind.

    Args:
        doors: To the data.
        data: As there.
        classes: As there.
        record: As there.
        trained: As there.
        check_images: As there.
        progress: As there.

    Raises:
        InputError: As there.
    """
    found = doors.find(data)
    if record and record.validation_location is not None and found.location == record.location:
        found = doors.find(record.validation_location)
    trained = trained or TrainedImages.nothing()
    images, measured, own = _measured(doors, found, record, trained, progress)
    if unknown := unknown_classes(images.classes, classes):
        raise InputError(
            f"{data} has classes that the checkpoint does not know: {', '.join(unknown)}; it knows {', '.join(classes)}"
        )
    knows = len(trained.contents) > 0
    split_here = record is not None and record.was_split and found.location == record.location
    if split_here and not own and found.validation is None and not knows:
        raise InputError(
            f"the files in {data} have changed since training, so its held-out images cannot be told from the "
            "trained ones; give another folder of class folders"
        )
    chosen = EvaluationImages(images=images, measured=measured, notes=_also(found, measured))
    if knows:
        chosen = _leave_out(chosen, trained, data, own=own, check_images=check_images, progress=progress)
    else:
        if check_images:
            check_files(images, progress=progress)
        if record is None:
            chosen.notes.append("the checkpoint does not say what it was trained on: such images are not left out")
        elif not own:
            note = "the checkpoint does not remember its training images one by one: copies of them are not recognised"
            chosen.notes.append(note)
    return replace(chosen, images=chosen.images.with_classes(classes))


def _measured(
    doors: Doors[Held], found: FoundOf[Held], record: DataRecord | None, trained: TrainedImages, progress: Progress
) -> tuple[NamedImages, str, bool]:
    """The images to measure, what they are in words, and whether they are those that training validated with."""
    parts = [found.validation] if found.validation else [found.whole or found.train, found.test]
    # Where nothing is known of the training, training images are the last to be taken.
    chosen = [part for part in parts if part is not None][0 if record else -1 :]
    for part in chosen:
        images = doors.open(part, progress)
        last = part is chosen[-1]
        learned, held_out = images, None
        if record is None:
            return images, part.words, False
        known = images.fingerprint() == record.fingerprint
        if known and record.was_split and isinstance(images, Splittable):
            learned, held_out = images.split(record.val_fraction, record.seed)
        # Sizes of uncompressed files say little: data with equal names and sizes may be others.
        known = known and trained.may_hold(learned)
        if known and held_out is not None:
            return held_out, held_out_of(part.words), True
        if known and last:
            raise InputError(
                f"{part.words} is what the checkpoint was trained on; give its validation images, or other images"
            )
        if last:
            return images, part.words, images.fingerprint() == record.validation_fingerprint
    names = ", ".join(found.names)
    raise InputError(f"{found.location} has the parts {names}, none of them called val, validation or test")


def _also(found: FoundOf[Held], measured: str) -> list[str]:
    if found.test is None or measured == found.test.words:
        return []
    return [f"{found.test.words} is not measured; give it as DATA to measure it"]


def _leave_out(
    chosen: EvaluationImages, trained: TrainedImages, data: str, *, own: bool, check_images: bool, progress: Progress
) -> EvaluationImages:
    images, notes = chosen.images, list(chosen.notes)
    files = images.checked
    examined = examine(images, decode=check_images and files, progress=progress)
    if check_images and files:
        refuse_unreadable(examined.faults, len(images))
    same, named = trained.recognise(images, examined.contents)
    # Files of validation images may well have the names of training images, 0001.png in both.
    copied = not own and 2 * np.count_nonzero(same & named) >= np.count_nonzero(named)
    changed = named & ~same if copied else np.zeros_like(same)
    if not own and (count := int(np.count_nonzero(named & ~same & ~changed))):
        notes.append(f"{counted(count, 'image')} of a name that was trained on, and other contents: counted here")
    kept = np.flatnonzero(~(same | changed))
    if not len(kept):
        raise InputError(
            f"{data} is what the checkpoint was trained on: all {len(images):,} images; give its validation images, or "
            "other images"
        )
    return replace(
        chosen,
        images=images if len(kept) == len(images) else images.choose(kept.tolist()),
        trained_on=int(np.count_nonzero(same)),
        changed=int(np.count_nonzero(changed)),
        notes=notes,
    )
