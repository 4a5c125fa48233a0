"""What `acmix data check` shows of annotated images."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import get_console

from acmix.cli.display.data import classes_table, identical_files, part_cells, parts_table, show_images
from acmix.cli.display.tables import WIDEST_MATRIX, print_json

if TYPE_CHECKING:
    from acmix.data.annotated.checking import AnnotatedReport, ObjectReport
    from acmix.data.annotated.findings import Findings
    from acmix.data.folders import LeftOut

# What each kind of findings is called.
FINDINGS = {"refused": "refused in training", "left_out": "left out of training", "noted": "to know"}


def show_annotated_report(report: "AnnotatedReport", *, as_json: bool) -> None:
    """Show `acmix data check` of annotated images."""
    if as_json:
        print_json(_as_json(report))
        return
    cells = {
        name: [*part_cells(report.images.parts[name], "objects"), *_object_cells(found)]
        for name, found in report.objects.items()
    }
    get_console().print(parts_table(report.location, cells))
    counts = {name: part.classes for name, part in report.images.parts.items()}
    if max(map(len, counts.values())) <= WIDEST_MATRIX:
        get_console().print(classes_table("objects per class", counts))
    for line in _lines(report):
        sys.stdout.write(f"{line}\n")
    show_images(report.images, sound=report.sound)


def _object_cells(found: "ObjectReport") -> list[tuple[str, str]]:
    return [
        ("objects", f"{found.objects:,}"),
        ("images without objects", f"{found.empty:,}"),
        ("masks", "all" if found.masks else "no"),
    ]


def findings_in_words(parts: "Mapping[str, Findings]") -> Iterator[str]:
    """Findings of parts by name, each with its first examples."""
    for kind, words in FINDINGS.items():
        for name, findings in parts.items():
            reasons: LeftOut = getattr(findings, kind)
            for reason, _ in reasons.counts.most_common():
                yield f"{words}, {name}: {reasons.words(reason)}"


def _lines(report: "AnnotatedReport") -> Iterator[str]:
    yield from findings_in_words({name: found.findings for name, found in report.objects.items()})
    for name, classes in report.differing.items():
        yield f"classes of {name} that no other part has: {', '.join(classes)}"
    if report.unused:
        yield f"classes without objects: {', '.join(report.unused)}"


def _as_json(report: "AnnotatedReport") -> dict[str, Any]:
    parts = {
        name: asdict(part)
        | {"objects": found.objects, "without_objects": found.empty, "masks": found.masks}
        | {kind: counted_reasons(getattr(found.findings, kind)) for kind in FINDINGS}
        for (name, part), found in zip(report.images.parts.items(), report.objects.values(), strict=True)
    }
    return {
        "data": report.location,
        "sound": report.sound,
        "parts": parts,
        "unused_classes": report.unused,
        "differing_classes": report.differing,
    } | identical_files(report.images, "leaked", "duplicates")


def counted_reasons(reasons: "LeftOut") -> dict[str, dict[str, object]]:
    """Reasons for JSON."""
    return {reason: {"count": count, "first": reasons.names[reason]} for reason, count in reasons.counts.items()}
