"""What `acmix data` shows."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich import get_console
from rich.markup import escape

from acmix.cli.display.tables import NAMED, WIDEST_MATRIX, make_table, print_json

if TYPE_CHECKING:
    from acmix.data.checking import DataReport, PartReport
    from acmix.data.datasets import Parts
    from acmix.data.writing import WrittenSplit


def show_data_report(parts: "Parts", report: "DataReport", *, as_json: bool) -> None:
    """Show `acmix data check`."""
    if as_json:
        found = {"leaked": report.leaked, "conflicting": report.conflicting, "duplicates": report.duplicates}
        groups = {name: [[asdict(copy) for copy in group] for group in value] for name, value in found.items()}
        reports = {name: asdict(part) | {"empty": part.empty} for name, part in report.parts.items()}
        left_out = {"left_out": dict(parts.left_out.counts), "left_out_first": parts.left_out.names}
        print_json({"data": parts.location, "sound": report.sound, "parts": reports} | groups | left_out)
        return
    table = make_table(escape(parts.location))
    table.add_column("")
    for name in report.parts:
        table.add_column(name, justify="right")
    unlabelled = any(part.unlabelled for part in report.parts.values())
    cells = [_part_cells(part, unlabelled=unlabelled) for part in report.parts.values()]
    for row in zip(*cells, strict=True):
        table.add_row(row[0][0], *(value for _, value in row))
    console = get_console()
    console.print(table)
    if len(next(iter(report.parts.values())).classes) <= WIDEST_MATRIX:
        balance = make_table("per class")
        balance.add_column("class")
        for name in report.parts:
            balance.add_column(name, justify="right")
        counts = [part.classes for part in report.parts.values()]
        for name in counts[0]:
            balance.add_row(escape(name), *(f"{count[name]:,}" for count in counts))
        console.print(balance)
    if parts.left_out.counts:
        sys.stdout.write(f"left out: {parts.left_out}\n")
    _show_faults(report)


def _part_cells(part: "PartReport", *, unlabelled: bool) -> list[tuple[str, str]]:
    """What a part holds as (heading, value)."""
    cells = [("images", f"{part.images:,}"), ("unreadable", f"{len(part.unreadable):,}")]
    for heading, side in (("width", part.width), ("height", part.height)):
        sizes = "-" if side is None else f"{side.smallest:,} / {side.median:,} / {side.largest:,}"
        cells.append((f"{heading}, smallest / median / largest", sizes))
    for heading, counts in (("formats", part.formats), ("modes", part.modes)):
        cells.append((heading, ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "-"))
    ranked = sorted(part.classes.items(), key=lambda item: item[1])
    cells += [("classes", f"{len(ranked):,}"), ("classes without images", f"{len(part.empty):,}")]
    if unlabelled:
        cells.append(("images without a label", f"{part.unlabelled:,}"))
    for heading, (name, count) in (("smallest class", ranked[0]), ("largest class", ranked[-1])):
        cells.append((heading, f"{escape(name)}: {count:,}"))
    return cells


def _show_faults(report: "DataReport") -> None:
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
        lines = [
            " = ".join(f"{copy.part + ': ' if several else ''}{copy.name} ({copy.label})" for copy in group)
            for group in groups
        ]
        faults.append((heading, lines))
    # Plain text: names must not be wrapped, or they cannot be copied.
    for heading, lines in faults:
        if lines:
            sys.stdout.write(f"{heading}: {len(lines):,}\n")
            sys.stdout.writelines(f"  {line}\n" for line in lines[:NAMED])
            if len(lines) > NAMED:
                sys.stdout.write(f"  and {len(lines) - NAMED:,} more: see --json\n")
    sys.stdout.write("the images are sound\n" if report.sound else "the images are NOT sound\n")


def show_shards(output: Path, written: "Mapping[str, WrittenSplit]") -> None:
    """Show what `acmix data shard` wrote and what to type next."""
    table = make_table(escape(str(output)))
    for heading in ("split", "images", "shards", "MB"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for name, split in written.items():
        table.add_row(name, f"{split.images:,}", f"{split.shards:,}", f"{split.size / 1e6:,.1f}")
    get_console().print(table)
    sys.stdout.write(f"acmix train {output}\n")
