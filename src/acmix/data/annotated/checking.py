"""Read all annotations and every image of them once and say what is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from acmix.data.annotated.finding import Reader, find_annotated
from acmix.data.annotated.findings import Findings
from acmix.data.annotated.images import AnnotatedImages
from acmix.data.annotated.segments import Polygons, crosses
from acmix.data.checking import DataReport, check_data
from acmix.data.finding import PartOf
from acmix.data.sources import class_name, unknown_classes
from acmix.progress import Progress, silent

# Corners of a polygon of which it is found out whether it crosses itself: each edge is compared with each.
_MOST_CORNERS = 1_000


@dataclass(frozen=True, kw_only=True)
class ObjectReport:
    """The objects of one part of a data set.

    Attributes:
        objects: How many are kept.
        empty: Images without any.
        masks: Whether all have a segment.
        findings: What is wrong.
    """

    objects: int
    empty: int
    masks: bool
    findings: Findings


@dataclass(frozen=True, kw_only=True)
class AnnotatedReport:
    """What `check_annotated` found.

    Attributes:
        location: As in `AnnotatedData`.
        images: Of all parts; classes count objects.
        objects: Of all parts.
        unused: Classes that no part has an object of.
        differing: Classes of a part that the first part has not.
    """

    location: str
    images: DataReport
    objects: dict[str, ObjectReport]
    unused: list[str]
    differing: dict[str, list[str]]

    @property
    def sound(self) -> bool:
        """Whether all images can be read, none leaks, nothing of the annotations is refused or left out."""
        faults = [found.findings for found in self.objects.values()]
        wrong = any(found.refused.counts or found.left_out.counts for found in faults)
        return self.images.sound and not wrong and not self.differing


def check_annotated(data: str, *, validation: str | None = None, progress: Progress = silent) -> AnnotatedReport:
    """Read all annotations of DATA and decode every image once.

    Args:
        data: As in `acmix.data.annotated.open_annotated`.
        validation: As there.
        progress: Shows how far it is.

    Raises:
        InputError: If there are no annotations, or a file of them is damaged.
    """
    found = find_annotated(data)
    parts = {"images": found.whole, "train": found.train, "validation": found.validation, "test": found.test}
    if validation is not None:
        parts |= {"train": found.train or found.whole, "images": None}
        parts["validation"] = find_annotated(validation).held_out()
    opened = {name: _read(part) for name, part in parts.items() if part is not None}
    report = check_data({name: images for name, (images, _) in opened.items()}, progress=progress)
    counts = {name: _classes(images) for name, (images, _) in opened.items()}
    return AnnotatedReport(
        location=found.location,
        images=replace(
            report, parts={name: replace(part, classes=counts[name]) for name, part in report.parts.items()}
        ),
        objects={name: _objects(images, findings) for name, (images, findings) in opened.items()},
        unused=_unused(counts),
        differing=_differing({name: images for name, (images, _) in opened.items()}),
    )


def _read(part: PartOf[Reader]) -> tuple[AnnotatedImages, Findings]:
    findings = Findings()
    images = part.content(findings)
    for index in np.flatnonzero(~images.objects.runs).tolist():
        segment = images.objects.segment(index)
        if isinstance(segment, Polygons):
            place = images.name(images.objects.image_of(index))
            if any(len(ring) <= _MOST_CORNERS and crosses(ring) for ring in segment.rings):
                findings.noted.add("polygon of edges that cross", place)
            if any(len(ring) > _MOST_CORNERS for ring in segment.rings):
                findings.noted.add(f"polygon of more than {_MOST_CORNERS:,} corners, not held to cross", place)
    for index in np.flatnonzero(images.objects.counts == 0).tolist():
        findings.noted.add("image without objects", images.name(index))
    return images, findings


def _classes(images: AnnotatedImages) -> dict[str, int]:
    counts = np.bincount(images.objects.labels, minlength=len(images.classes))
    return dict(zip(images.classes, counts.tolist(), strict=True))


def _objects(images: AnnotatedImages, findings: Findings) -> ObjectReport:
    return ObjectReport(
        objects=len(images.objects.labels),
        empty=int((images.objects.counts == 0).sum()),
        masks=images.has_masks,
        findings=findings,
    )


def _unused(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    known = {class_name(name) for part in counts.values() for name in part}
    used = {name for part in counts.values() for name, count in part.items() if count}
    return sorted(known - used)


def _differing(parts: Mapping[str, AnnotatedImages]) -> dict[str, list[str]]:
    first = next(iter(parts.values()))
    found = {name: unknown_classes(images.classes, first.classes) for name, images in parts.items()}
    return {name: unknown for name, unknown in found.items() if unknown}
