"""Open annotated images to train on and to validate with."""

from dataclasses import replace

from acmix.data.annotated.finding import Reader, find_annotated
from acmix.data.annotated.findings import Findings
from acmix.data.annotated.images import AnnotatedImages
from acmix.data.datasets import OpenedData, check_files, held_out_of
from acmix.data.finding import FoundOf, PartOf
from acmix.data.folders import LeftOut
from acmix.data.sources import check_known
from acmix.data.trained import check_apart
from acmix.errors import InputError, counted, few
from acmix.progress import Progress, silent


class AnnotatedData(OpenedData[AnnotatedImages]):
    """Training and validation images with the objects in them."""


def open_annotated(
    data: str,
    *,
    validation: str | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    check_images: bool = True,
    progress: Progress = silent,
) -> AnnotatedData:
    """Open training and validation images with their objects, and check them before any work starts.

    Args:
        data: A folder with COCO's or YOLO's annotations, or a file of them, see `find_annotated`.
        validation: Validation images, any of these, in place of those in data.
        val_fraction: Share of the images held out where there are no validation images, between 0 and 1.
        seed: Seed of that split.
        check_images: Decode every file once.
        progress: Shows how far it is while checking.

    Raises:
        InputError: If there are no annotations, something in them would be learned wrongly, files are unreadable, or
            there is nothing to learn from.
    """
    found = find_annotated(data)
    elsewhere = None if validation is None else find_annotated(validation)
    learned = found.train or found.whole
    if learned is None:
        raise InputError(f"{found.location} has {' and '.join(found.names)} but no train; add it")
    measured = replace(elsewhere.held_out(), name="") if elsewhere else found.validation
    train = open_part(learned)
    if not len(train.objects.labels):
        raise InputError(f"{learned.words}: no objects to learn from in {counted(len(train), 'image')}")
    fingerprint = train.fingerprint()
    if measured is None:
        train, held_out = train.split(val_fraction, seed)
    else:
        held_out = _aligned(open_part(measured), train, measured)
    check_apart(train, held_out)
    if check_images:
        check_files(train, held_out, progress=progress)
    return AnnotatedData(
        location=found.location,
        train=train,
        validation=held_out,
        was_split=measured is None,
        fingerprint=fingerprint,
        validation_location=elsewhere.location if elsewhere else None,
        validation_fingerprint=None if measured is None else held_out.fingerprint(),
        measured=held_out_of(learned.words) if measured is None else measured.words,
        taken=_taken(found, learned, train, measured, held_out, f"{val_fraction:.3g} of the images by seed {seed}"),
    )


def open_part(part: PartOf[Reader]) -> AnnotatedImages:
    """Read the annotations of a part.

    Args:
        part: Of `find_annotated`.

    Raises:
        InputError: If something in them would be learned wrongly.
    """
    findings = Findings()
    images = part.content(findings)
    findings.check(part.words)
    return images


def _aligned(images: AnnotatedImages, train: AnnotatedImages, part: PartOf[Reader]) -> AnnotatedImages:
    check_known(images.classes, train.classes, part.words)
    return images.with_classes(train.classes)


def _taken(
    found: FoundOf[Reader],
    learned: PartOf[Reader],
    train: AnnotatedImages,
    measured: PartOf[Reader] | None,
    held_out: AnnotatedImages,
    split: str,
) -> dict[str, str]:
    """See `OpenedData`; split says how images were held out where none have a place of their own."""
    classes = f"{counted(len(train.classes), 'class')} ({few(train.classes)})"
    taken = {"training": f"{learned.words}: {_content(train)} of {classes}"}
    left_out = LeftOut()
    left_out.join(train.left_out)
    if measured is None:
        taken["validation"] = f"{held_out_of(learned.words)}: {_content(held_out)}, {split}"
    else:
        taken["validation"] = f"{measured.words}: {_content(held_out)}"
        left_out.join(held_out.left_out)
    if found.test:
        taken["left aside"] = f"{found.test.words}, test images: not trained on, not chosen on"
    if left_out.counts:
        taken["left out"] = str(left_out)
    return taken


def _content(images: AnnotatedImages) -> str:
    counts = images.objects.counts
    empty = int((counts == 0).sum())
    without = f", {empty:,} without objects" if empty else ""
    masks = " with masks" if images.has_masks else ""
    return f"{counted(len(images), 'image')}{without}, {counted(int(counts.sum()), 'object')}{masks}"
