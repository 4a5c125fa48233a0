"""What `acmix data check` shows of images with masks."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import get_console

from acmix.cli.display.data import classes_table, identical_files, part_cells, parts_table, show_images
from acmix.cli.display.objects import FINDINGS, counted_reasons, findings_in_words
from acmix.cli.display.tables import WIDEST_MATRIX, print_json

if TYPE_CHECKING:
    from acmix.data.masks.checking import MaskedReport, MaskReport


def show_masked_report(report: "MaskedReport", *, as_json: bool) -> None:
    """Show `acmix data check` of images with masks."""
    if as_json:
        print_json(_as_json(report))
        return
    cells = {
        name: [*part_cells(report.images.parts[name], "pixels"), *_mask_cells(found)]
        for name, found in report.masks.items()
    }
    get_console().print(parts_table(report.location, cells))
    counts = {name: part.classes for name, part in report.images.parts.items()}
    if len(report.coding.classes) <= WIDEST_MATRIX:
        get_console().print(classes_table("pixels per class", counts))
    if report.coding.words:
        sys.stdout.write(f"mask values that say nothing: {report.coding.words}\n")
    for line in findings_in_words({name: found.findings for name, found in report.masks.items()}):
        sys.stdout.write(f"{line}\n")
    if report.unused:
        sys.stdout.write(f"classes that no mask has: {', '.join(report.unused)}\n")
    if report.without_masks:
        sys.stdout.write(f"without masks, left aside: {report.without_masks}\n")
    show_images(report.images, sound=report.sound)


def _mask_cells(found: "MaskReport") -> list[tuple[str, str]]:
    every = max(1, found.pixels + found.ignored)
    return [
        ("pixels of a class", f"{found.pixels:,}"),
        ("ignored pixels", f"{found.ignored:,} ({found.ignored / every:.1%})"),
    ]


def _as_json(report: "MaskedReport") -> dict[str, Any]:
    parts = {
        name: asdict(part)
        | {"pixels": found.pixels, "ignored": found.ignored}
        | {kind: counted_reasons(getattr(found.findings, kind)) for kind in FINDINGS}
        for (name, part), found in zip(report.images.parts.items(), report.masks.values(), strict=True)
    }
    coding = report.coding
    pairs = zip(coding.values, coding.labels, strict=True)
    values = {coding.described(value): coding.classes[label] for value, label in pairs}
    return {
        "data": report.location,
        "sound": report.sound,
        "values": values,
        "ignored_values": [*map(coding.described, coding.ignored)],
        "parts": parts,
        "unused_classes": report.unused,
        "without_masks": report.without_masks,
    } | identical_files(report.images, "leaked", "duplicates")
