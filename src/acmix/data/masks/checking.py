"""Read every image and its mask once and say what is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from acmix.data.annotated.findings import Findings
from acmix.data.checking import DataReport, check_data
from acmix.data.finding import PartOf
from acmix.data.images import ImageFacts, check_image
from acmix.data.masks.coding import IGNORED, Coding
from acmix.data.masks.finding import Folders
from acmix.data.masks.images import MaskedImages
from acmix.data.masks.opening import open_masked_parts
from acmix.data.masks.pixels import MaskError
from acmix.data.sources import read_in_threads
from acmix.errors import InputError
from acmix.progress import Progress, silent


@dataclass(frozen=True, kw_only=True)
class MaskReport:
    """The masks of one part of a data set.

    Attributes:
        pixels: Of all masks that can be used, those that say something.
        ignored: Those that say nothing.
        findings: What is wrong.
    """

    pixels: int
    ignored: int
    findings: Findings


@dataclass(frozen=True, kw_only=True)
class MaskedReport:
    """What `check_masked` found.

    Attributes:
        location: As in `MaskedData`.
        coding: What mask values stand for.
        images: Of all parts; classes count pixels.
        masks: Of all parts.
        unused: Classes that no mask has.
        without_masks: What lies there without masks, in words; empty where nothing does.
    """

    location: str
    coding: Coding
    images: DataReport
    masks: dict[str, MaskReport]
    unused: list[str]
    without_masks: str

    @property
    def sound(self) -> bool:
        """Whether all images and masks can be used, every image has one, and none leaks."""
        faults = [found.findings for found in self.masks.values()]
        return self.images.sound and not any(found.refused.counts or found.left_out.counts for found in faults)


class _Pictures(MaskedImages):
    """Images whose masks are looked at elsewhere."""

    def check(self, index: int, content: bytes) -> ImageFacts:
        return check_image(content, self.place(index))


def check_masked(
    data: str,
    *,
    validation: str | None = None,
    ignore_value: int | str | None = None,
    progress: Progress = silent,
) -> MaskedReport:
    """Decode every image and mask of DATA once.

    Args:
        data: As in `acmix.data.masks.opening.open_masked`.
        validation: As there.
        ignore_value: As there.
        progress: Shows how far it is.

    Raises:
        InputError: If there are no images with masks, or it cannot be known what a value stands for.
    """
    opened = open_masked_parts(data, validation=validation, test=True, ignore_value=ignore_value, progress=progress)
    named = _named(opened.learned, opened.measured)
    parts = {named.get(part, "test"): images for part, images in opened.images.items()}
    report = check_data({name: _Pictures(each.pairs, each.coding) for name, each in parts.items()}, progress=progress)
    found = {name: _masks(images, name, progress) for name, images in parts.items()}
    classes = opened.images[opened.learned].classes
    totals = sum(counts for counts, _ in found.values())
    return MaskedReport(
        location=opened.found.location,
        coding=opened.images[opened.learned].coding,
        images=replace(
            report,
            parts={
                name: replace(part, classes=dict(zip(classes, found[name][0].tolist(), strict=True)))
                for name, part in report.parts.items()
            },
        ),
        masks={name: masks for name, (_, masks) in found.items()},
        unused=[name for name, count in zip(classes, np.asarray(totals).tolist(), strict=True) if not count],
        without_masks=opened.found.unlabelled.words if opened.found.unlabelled else "",
    )


def _named(learned: PartOf[Folders], measured: PartOf[Folders] | None) -> Mapping[PartOf[Folders], str]:
    return {learned: "images"} if measured is None else {learned: "train", measured: "validation"}


def _masks(images: MaskedImages, part: str, progress: Progress) -> tuple[NDArray[np.int64], MaskReport]:
    """Pixels of each class, and what is wrong with masks."""
    count = len(images.classes)

    def read(index: int) -> NDArray[np.int64] | MaskError | None:
        try:
            labels = images.read(index)[1]
        except MaskError as error:
            return error
        except InputError:
            # The image's own fault is told with the images.
            return None
        return np.bincount(labels.ravel() - IGNORED, minlength=count + 1)

    findings = Findings()
    findings.left_out.join(images.left_out)
    counts = np.zeros(count + 1, np.int64)
    outcomes = progress(read_in_threads(read, range(len(images))), f"reading masks of {part}", len(images))
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, MaskError):
            findings.refused.add(outcome.kind, f"{images.name(index)}: {outcome.reason}")
        elif outcome is not None:
            counts += outcome
            if not outcome[1:].any():
                findings.noted.add("mask of ignored pixels alone", images.name(index))
    return counts[1:], MaskReport(pixels=int(counts[1:].sum()), ignored=int(counts[0]), findings=findings)
