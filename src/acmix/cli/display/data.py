"""What `acmix data` shows."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import get_console
from rich.markup import escape
from rich.table import Table

from acmix.cli.display.tables import NAMED, WIDEST_MATRIX, make_table, print_json
from acmix.errors import printable
from acmix.shell import command

if TYPE_CHECKING:
    from acmix.data.checking import Copy, DataReport, PartReport
    from acmix.data.datasets import Parts
    from acmix.data.writing import WrittenSplit


def show_data_report(parts: "Parts", report: "DataReport", *, as_json: bool) -> None:
    """Show `acmix data check`."""
    if as_json:
        groups = identical_files(report, "leaked", "conflicting", "duplicates")
        reports = {name: asdict(part) | {"empty": part.empty} for name, part in report.parts.items()}
        left_out = {"left_out": dict(parts.left_out.counts), "left_out_first": parts.left_out.names}
        print_json({"data": parts.location, "sound": report.sound, "parts": reports} | groups | left_out)
        return
    unlabelled = any(part.unlabelled for part in report.parts.values())
    cells = {name: part_cells(part, "images", unlabelled=unlabelled) for name, part in report.parts.items()}
    get_console().print(parts_table(parts.location, cells))
    if len(next(iter(report.parts.values())).classes) <= WIDEST_MATRIX:
        counts = {name: part.classes for name, part in report.parts.items()}
        get_console().print(classes_table("per class", counts))
    if parts.left_out.counts:
        sys.stdout.write(f"left out: {parts.left_out}\n")
    show_images(report, sound=report.sound)


def identical_files(report: "DataReport", *kinds: str) -> dict[str, list[list[dict[str, Any]]]]:
    """Groups of identical files for JSON, by the names that the report has for their kinds."""
    return {kind: [[asdict(copy) for copy in group] for group in getattr(report, kind)] for kind in kinds}


def parts_table(title: str, cells: Mapping[str, Sequence[tuple[str, str]]]) -> Table:
    """What each part holds as (heading, value), the same headings in all of them."""
    table = make_table(escape(title))
    table.add_column("")
    for name in cells:
        table.add_column(name, justify="right")
    for row in zip(*cells.values(), strict=True):
        table.add_row(row[0][0], *(value for _, value in row))
    return table


def classes_table(title: str, counts: Mapping[str, Mapping[str, int]]) -> Table:
    """How many there are of each class in each part."""
    balance = make_table(title)
    balance.add_column("class")
    for part in counts:
        balance.add_column(part, justify="right")
    for name in next(iter(counts.values())):
        balance.add_row(escape(name), *(f"{count.get(name, 0):,}" for count in counts.values()))
    return balance


def part_cells(part: "PartReport", counted: str, *, unlabelled: bool = False) -> list[tuple[str, str]]:
    """What a part holds as (heading, value); counted is what there is of each class."""
    cells = [("images", f"{part.images:,}"), ("unreadable", f"{len(part.unreadable):,}")]
    for heading, side in (("width", part.width), ("height", part.height)):
        sizes = "-" if side is None else f"{side.smallest:,} / {side.median:,} / {side.largest:,}"
        cells.append((f"{heading}, smallest / median / largest", sizes))
    for heading, counts in (("formats", part.formats), ("modes", part.modes)):
        cells.append((heading, ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "-"))
    ranked = sorted(part.classes.items(), key=lambda item: item[1])
    cells += [("classes", f"{len(ranked):,}"), (f"classes without {counted}", f"{len(part.empty):,}")]
    if unlabelled:
        cells.append(("images without a label", f"{part.unlabelled:,}"))
    for heading, (name, count) in (("smallest class", ranked[0]), ("largest class", ranked[-1])):
        cells.append((heading, f"{escape(name)}: {count:,}"))
    return cells


def show_images(report: "DataReport", *, sound: bool) -> None:
    """Name what is wrong with image files, and say whether all is sound."""
    faults = [
        ("unreadable", [f"{fault.name}: {fault.reason}" for part in report.parts.values() for fault in part.unreadable])
    ]
    several = len(report.parts) > 1
    for heading, groups in (
        (
            f"identical files in {'several parts' if 'test' in report.parts else 'training and validation'}",
            report.leaked,
        ),
        ("identical files in different classes", report.conflicting),
        ("other identical files", report.harmless),
    ):
        lines = [" = ".join(_named(copy, several) for copy in group) for group in groups]
        faults.append((heading, lines))
    # Plain text: names must not be wrapped, or they cannot be copied.
    for heading, lines in faults:
        if lines:
            sys.stdout.write(f"{heading}: {len(lines):,}\n")
            sys.stdout.writelines(f"  {line}\n" for line in lines[:NAMED])
            if len(lines) > NAMED:
                sys.stdout.write(f"  and {len(lines) - NAMED:,} more: see --json\n")
    sys.stdout.write("the images are sound\n" if sound else "the images are NOT sound\n")


def _named(copy: "Copy", several: bool) -> str:
    return f"{copy.part + ': ' if several else ''}{copy.name}" + (f" ({copy.label})" if copy.label else "")


def show_shards(output: Path, written: "Mapping[str, WrittenSplit]") -> None:
    """Show what `acmix data shard` wrote and what to type next."""
    table = make_table(escape(printable(output)))
    for heading in ("split", "images", "shards", "MB"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for name, split in written.items():
        table.add_row(name, f"{split.images:,}", f"{split.shards:,}", f"{split.size / 1e6:,.1f}")
    get_console().print(table)
    sys.stdout.write(command("train", output) + "\n")
