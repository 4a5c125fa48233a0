"""Open images and masks to train on, to validate with, to check and to measure a network with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from acmix.data.datasets import OpenedData, check_files, held_out_of
from acmix.data.evaluation import DataRecord, Doors, EvaluationImages, find_held_out
from acmix.data.finding import FoundOf, PartOf, by_split, existing_folder
from acmix.data.folders import LeftOut
from acmix.data.images import read_bytes
from acmix.data.masks.coding import Coding, coding
from acmix.data.masks.finding import Folders, find_masks, find_pairs
from acmix.data.masks.images import MaskedImages, Pairs
from acmix.data.masks.legends import Legend, find_legend
from acmix.data.masks.pixels import mask_values
from acmix.data.sources import check_known
from acmix.data.trained import TrainedImages, check_apart
from acmix.errors import InputError, counted, few
from acmix.progress import Progress, silent

_EXPECTED = "expected images/ and masks/, with training/ and validation/ in both or without"


class MaskedData(OpenedData[MaskedImages]):
    """Training and validation images with masks."""


@dataclass(frozen=True, kw_only=True)
class MaskedParts:
    """What DATA holds, before anything is split.

    Attributes:
        found: Its parts.
        learned: The one that is learned from.
        measured: The one that is validated with; None where there is none.
        elsewhere: Where that lies, if not in the data.
        images: Of both, and of test images where these were asked for.
    """

    found: FoundOf[Folders]
    learned: PartOf[Folders]
    measured: PartOf[Folders] | None
    elsewhere: str | None
    images: Mapping[PartOf[Folders], MaskedImages]


def find_masked(data: str) -> FoundOf[Folders]:
    """Find the parts of images with masks.

    Args:
        data: A folder, see `acmix.data.masks.finding.find_masks`.

    Raises:
        InputError: If it has no folders of images and masks, or they may be taken in two ways.
    """
    root = existing_folder(data, _EXPECTED)
    parts = {
        split: PartOf(name=folders.name, words=folders.words, content=folders)
        for split, folders in find_masks(root).items()
    }
    masked = {split: part for split, part in parts.items() if part.content.masks is not None}
    if not masked:
        raise InputError(f"{root} has no folders of images and of masks; {_EXPECTED}")
    alone = [part for split, part in parts.items() if split not in masked]
    return replace(by_split(str(root), masked), unlabelled=next(iter(alone), None))


def open_masked(
    data: str,
    *,
    validation: str | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    ignore_value: int | str | None = None,
    check_images: bool = True,
    progress: Progress = silent,
) -> MaskedData:
    """Open training and validation images with their masks, and check them before any work starts.

    Args:
        data: A folder, see `acmix.data.masks.finding.find_masks`; the file that names classes lies in it, or with the
            masks, see `acmix.data.masks.legends.read_legend`.
        validation: Validation images, a folder like it, in place of those in data.
        val_fraction: Share of the images held out where there are no validation images, between 0 and 1.
        seed: Seed of that split.
        ignore_value: Mask value that says nothing, or its name in the file of classes; None is what that file tells,
            and 255.
        check_images: Decode every image and mask once.
        progress: Shows how far it is.

    Raises:
        InputError: If there are no such folders, it cannot be known what a value stands for, images and masks do not
            belong together or cannot be read, or there are too few.
    """
    parts = open_masked_parts(data, validation=validation, ignore_value=ignore_value, progress=progress)
    learned, measured = parts.learned, parts.measured
    train = parts.images[learned]
    fingerprint = train.fingerprint()
    if measured is None:
        train, held_out = train.split(val_fraction, seed)
    else:
        held_out = parts.images[measured]
    check_apart(train, held_out)
    if check_images:
        check_files(train, held_out, progress=progress)
    return MaskedData(
        location=parts.found.location,
        train=train,
        validation=held_out,
        was_split=measured is None,
        fingerprint=fingerprint,
        validation_location=parts.elsewhere,
        validation_fingerprint=None if measured is None else held_out.fingerprint(),
        measured=held_out_of(learned.words) if measured is None else measured.words,
        taken=_taken(parts, train, held_out, f"{val_fraction:.3g} of the images by seed {seed}"),
    )


def open_masked_parts(
    data: str,
    *,
    validation: str | None = None,
    test: bool = False,
    ignore_value: int | str | None = None,
    progress: Progress = silent,
) -> MaskedParts:
    """Open images with masks without splitting or checking them; what values stand for is the same in all parts.

    Args:
        data: As in `open_masked`.
        validation: As there.
        test: Open the test images, too.
        ignore_value: As there.
        progress: Shows how far reading masks is, where their values must be known.

    Raises:
        InputError: As there.
    """
    found = find_masked(data)
    learned = found.train or found.whole
    if learned is None:
        raise InputError(f"{found.location} has {' and '.join(found.names)} but no train; add it")
    elsewhere = None if validation is None else find_masked(validation)
    own = [part for part in (learned, None if elsewhere else found.validation, found.test if test else None) if part]
    pairs = {part: find_pairs(part.content) for part in own}
    known = _coding(_legend(learned.content), list(pairs.values()), ignore_value, progress)
    images = {part: MaskedImages(some, known) for part, some in pairs.items()}
    measured = found.validation
    if elsewhere is not None:
        measured = elsewhere.held_out()
        images[measured] = _aligned(_open(measured, known, ignore_value, progress), known, measured.words)
    return MaskedParts(
        found=found,
        learned=learned,
        measured=measured,
        elsewhere=elsewhere.location if elsewhere else None,
        images=images,
    )


def find_masked_evaluation(
    data: str,
    classes: tuple[str, ...],
    record: DataRecord | None,
    trained: TrainedImages | None = None,
    *,
    known: Coding | None = None,
    ignore_value: int | str | None = None,
    check_images: bool = True,
    progress: Progress = silent,
) -> EvaluationImages:
    """Open validation images with masks as `acmix.data.find_evaluation` does: without those that were trained on.

    Args:
        data: What `open_masked` takes.
        classes: The checkpoint's classes.
        record: Its memory of its training data; None where it has none, which is noted.
        trained: Its memory of each image; None leaves out nothing.
        known: What the values of the masks of training stood for: so they do in data that do not name their classes.
        ignore_value: As in `open_masked`.
        check_images: Decode every image and mask once.
        progress: Shows how far it is.

    Returns:
        Whose images are `MaskedImages`.

    Raises:
        InputError: As there.
    """
    doors = Doors(find_masked, lambda part, progress: _open(part, known, ignore_value, progress))
    return find_held_out(doors, data, classes, record, trained, check_images=check_images, progress=progress)


def _open(part: PartOf[Folders], known: Coding | None, ignore: int | str | None, progress: Progress) -> MaskedImages:
    """Images of a part under its own classes, or those that are known where nothing names its own."""
    pairs, legend = find_pairs(part.content), _legend(part.content)
    if known is not None and legend is None:
        return MaskedImages(pairs, known)
    return MaskedImages(pairs, _coding(legend, [pairs], ignore, progress))


def _legend(folders: Folders) -> Legend | None:
    """What names the classes of a part."""
    masks = folders.masks or folders.images
    return find_legend(list(dict.fromkeys((folders.root, masks.parent, masks))))


def _coding(legend: Legend | None, pairs: Sequence[Pairs], ignore: int | str | None, progress: Progress) -> Coding:
    @cache
    def found() -> NDArray[np.int64]:
        values = np.unique(np.concatenate([some.values(progress=progress) for some in pairs]))
        if not values.size and (masks := [mask for some in pairs for mask in some.masks]):
            # None of them can be read: the first says why.
            mask_values(read_bytes(masks[0]), str(masks[0]), colours=False)
        return values

    return coding(legend, ignore, found)


def _aligned(images: MaskedImages, known: Coding, words: str) -> MaskedImages:
    check_known(images.classes, known.classes, words)
    return images.with_classes(known.classes)


def _taken(parts: MaskedParts, train: MaskedImages, held_out: MaskedImages, split: str) -> dict[str, str]:
    """See `OpenedData`; split says how images were held out where none have a place of their own."""
    learned, measured, found = parts.learned, parts.measured, parts.found
    count = len(train.coding.ignored)
    ignored = f", {train.coding.words} {'says' if count == 1 else 'say'} nothing" if count else ""
    classes = f"{counted(len(train.classes), 'class')} ({few(train.classes)}){ignored}"
    taken = {"training": f"{learned.words}: {counted(len(train), 'image')} with masks of {classes}"}
    left_out = LeftOut()
    left_out.join(train.left_out, learned.name)
    if measured is None:
        taken["validation"] = f"{held_out_of(learned.words)}: {counted(len(held_out), 'image')}, {split}"
    else:
        taken["validation"] = f"{measured.words}: {counted(len(held_out), 'image')}"
        left_out.join(held_out.left_out, measured.name)
    if aside := found.test or found.unlabelled:
        taken["left aside"] = f"{aside.words}, test images: not trained on, not chosen on"
    if left_out.counts:
        taken["left out"] = str(left_out)
    return taken
