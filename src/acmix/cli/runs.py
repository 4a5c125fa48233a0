"""The subcommands that look at runs, and the reports that `acmix train` leaves."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acmix.cli import lines, outputs
from acmix.errors import InputError, check_least


def report(
    run: Path, data: str | None = None, *, output: Path | None = None, workers: int = 0, device: str = "auto"
) -> int:
    """Write the report of a run as one HTML page that opens without a network.

    Args:
        run: The run folder of acmix train, finished or not.
        data: As in acmix validate: the data of the training where they lie now (default: where they lay then).
        output: The HTML file (default: report.html in the run folder).
        workers: Processes that read the validation images.
        device: auto, cpu, cuda, cuda:1 (any number) or mps.
    """
    from acmix.cli.display import progress

    check_least(0, workers=workers)
    outputs.check_file("--output", output, outputs.PAGES)
    with progress.working():
        from acmix.devices import find_device
        from acmix.pages.report import write_report

        find_device(device)
    written = write_report(run, output, data=data, workers=workers, device=device, progress=progress.track)
    sys.stdout.write(f"report: {written}\n")
    return 0


def compare(runs: list[Path], *, output: Path | None = None, json: bool = False) -> int:
    """Put runs side by side: what each achieved, and the settings in which they differ.

    Args:
        runs: Run folders of acmix train, finished or not.
        output: An HTML file for the same with curves, which opens without a network.
        json: Print JSON.
    """
    from acmix.cli.display import progress
    from acmix.cli.display import runs as display

    outputs.check_file("--output", output, outputs.PAGES)
    with progress.working():
        from acmix.tasks.comparison import compare_runs
        from acmix.tasks.record import read_run

        found = [read_run(run) for run in runs]
        comparison = compare_runs(found)
    if output is not None:
        from acmix.pages.comparison import write_comparison

        write_comparison(found, comparison, output)
    display.show_runs(comparison, as_json=json)
    if output is not None and not json:
        sys.stdout.write(f"page: {output}\n")
    return 0


def report_end(run: Path, outcomes: Sequence[Any]) -> None:
    """Write the report of a run that has just finished; what it achieved is safe if that fails."""
    from acmix.pages.report import write_report

    try:
        write_report(run, outcomes=outcomes)
    except InputError as error:
        lines.warning("acmix train", f"no report: {error}")


def report_stop(run: Path, *, quiet: bool = False) -> None:
    """Write the report of a run that an error or a signal ends, if an epoch is finished: at once, without pictures.

    A scheduler that stops a run kills it soon after, and a device that failed cannot classify images.
    """
    from acmix.pages.report import write_report
    from acmix.tasks.loop.run import METRICS

    if not (run / METRICS).is_file():
        return
    try:
        page = write_report(run, pictures=False)
    except Exception as error:
        lines.warning("acmix train", f"no report: {error}")
    else:
        if not quiet:
            sys.stderr.write(f"report: {page}\n")
