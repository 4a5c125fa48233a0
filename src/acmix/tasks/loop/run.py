"""A run folder: what training leaves, written so that it is complete after every epoch, and nothing else.

| file | content |
|---|---|
| config.json | settings, data, classes, preprocessing, versions |
| metrics.csv | one row an epoch |
| rates.csv | the two rates of every ACmix layer after every epoch; written only if there are such layers |
| best.safetensors, last.safetensors | usable checkpoints (`acmix.checkpoints.classifier`) |
| states/update-*.pt | everything a run needs to continue at its next update (`acmix.tasks.loop.states`) |
| problems.jsonl | images that could not be read, updates without finite numbers; written only if there were any |
| stopped.json | why the run stopped; written when an error or a signal ends it, deleted when it continues |
| summary.json | best accuracy and epoch, evaluation of the best checkpoint, time; written at the end |
| report.html | what `acmix.pages.report` shows of all this; written by the command line when the run ends |
| tensorboard/events.out.tfevents.* | logs, a file for every start |

What is being written lies beside as `.acmix-*.partial` (`acmix.storage`). A run that is killed leaves at most one in a
folder, for as long as it is not continued.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from acmix import records
from acmix.checkpoints.files import BEST, LAST
from acmix.errors import InputError, printable
from acmix.shell import command, quoted
from acmix.storage import write_atomically
from acmix.tasks.loop import states
from acmix.tasks.loop.measures import EpochRow, Measure, best_epoch
from acmix.tasks.loop.progress import Reporting

CONFIG, METRICS, SUMMARY = "config.json", "metrics.csv", "summary.json"
PROBLEMS = "problems.jsonl"
RATES, STOPPED, REPORT = "rates.csv", "stopped.json", "report.html"
_MARKS = (METRICS, SUMMARY, BEST, LAST)

# What a person may ask of a run that decides no result, with its default. What was asked last stands in config.json.
ASKED: dict[str, Any] = {
    "device": "auto",
    "strategy": "ddp",
    "workers": None,
    "save_minutes": Reporting.save_minutes,
    "keep_states": Reporting.keep_states,
    "check_images": True,
}

# epoch, layer, attention (alpha), convolution (beta)
RateRow = dict[str, Any]


@dataclass(frozen=True)
class _Settings:
    model: str
    epochs: int


@dataclass(frozen=True)
class _Data:
    location: str


@dataclass(frozen=True, kw_only=True)
class Config:
    """What config.json of every version holds at least, so that a run can be gone on with."""

    settings: _Settings
    data: _Data
    processes: int


def prepare_folder(output: Path, *, resume: bool, epochs: int) -> None:
    """Check that a folder can take a run, or holds one to resume. Changes nothing.

    Args:
        output: The folder.
        resume: Whether it should hold one.
        epochs: That are wanted.

    Raises:
        InputError: If its name is not in UTF-8; if it holds a run already; when resuming, if it holds none, or one that
            has finished.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"output {output} is a file; give a folder")
    if printable(output) != str(output):
        raise InputError(
            f"output {output} is no name in UTF-8 without control characters, as TensorBoard needs; give one"
        )
    if not resume:
        # A configuration alone is of a run that ended before its first state.
        if any((output / name).exists() for name in _MARKS) or states.paths(output):
            raise InputError(f"output {output} already holds a run; choose another --output, or continue with --resume")
        return
    if (output / SUMMARY).exists():
        raise InputError(f"output {output} holds a finished run; {_longer(output, epochs)}")
    if not (output / CONFIG).is_file():
        raise InputError(f"output {output} holds no run to resume: {CONFIG} is missing")
    if not states.paths(output):
        raise InputError(f"output {output} holds no run to resume: it stopped before its first state; train anew")


def _longer(output: Path, epochs: int) -> str:
    """What trains a finished run to more epochs."""
    config = read_config(output)
    known = epochs > config["settings"]["epochs"]
    wanted = epochs if known else 2 * config["settings"]["epochs"]
    return f"a run of its own trains it to {wanted} epochs: {extending(output, config, {'epochs': wanted})}"


def free_folder(parent: Path, name: str) -> Path:
    """The first of name, name-2, name-3, ... that does not exist in parent."""
    candidate, number = parent / name, 1
    while candidate.exists():
        number += 1
        candidate = parent / f"{name}-{number}"
    return candidate


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary as indented JSON, atomically."""
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: If the file is missing or no JSON object.
    """
    try:
        return records.read(dict[str, Any], records.parse(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except InputError as fault:
        raise InputError(f"{path} is damaged: {fault}") from fault


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json of a run.

    Raises:
        InputError: If it is missing or damaged.
    """
    config = read_json(folder / CONFIG)
    try:
        records.read(Config, config, others=True)
    except InputError as fault:
        raise InputError(f"{folder / CONFIG} is damaged: {fault}") from fault
    return config


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    # A run that an older version began has rows without what that did not measure.
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, fieldnames=[*names], restval="nan", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def continuing(output: Path, config: Mapping[str, Any]) -> str:
    """What continues a run in a shell, by its config.json."""
    return _command(config, weights=config.get("weights"), output=output, resume=True)


def extending(output: Path, config: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """What goes on from a run's last state in a folder of its own, in a shell, by its config.json."""
    given = {name: str(value) for name, value in changes.items()}
    return _command(config, output=free_folder(output.parent, output.name), extend=output, **given)


def _command(config: Mapping[str, Any], **own: Any) -> str:
    """With what a run and those that go on from it have in common; an older version's config.json has not all of it."""
    launcher = config.get("launcher", [])
    options = {
        "validation": (config["data"].get("validation_location"), None),
        "devices": (1 if launcher else config["processes"], 1),
        **{name: (config.get(name, default), default) for name, default in ASKED.items()},
    }
    asked = {name: value for name, (value, default) in options.items() if value != default}
    typed = command("train", config["data"]["location"], **asked, **own)
    return f"{quoted(launcher)} {typed}" if launcher else typed


class RunFiles:
    """metrics.csv, rates.csv, both usable checkpoints and the list of problems.

    Args:
        output: The run folder.
        measures: Of the task; they tell which epoch is best.
        save: Writes weights to a path as a usable checkpoint; the row of their epoch goes into its record.
        advice: How a person continues a run that stopped, at the end of errors.
    """

    def __init__(
        self,
        output: Path,
        measures: Sequence[Measure],
        save: Callable[[Path, EpochRow, Mapping[str, Tensor]], None],
        advice: str,
    ) -> None:
        self.output, self.measures, self._save = output, measures, save
        self.advice = advice
        self.rows: list[EpochRow] = []
        self.rates: list[RateRow] = []

    @property
    def best(self) -> EpochRow:
        """See `best_epoch`."""
        return best_epoch(self.rows, self.measures)

    def write_epoch(self, row: EpochRow, rates: list[RateRow], weights: Mapping[str, Tensor]) -> None:
        """Add an epoch.

        Raises:
            OSError: If a file cannot be written; those before it are then whole.
        """
        self.rows.append(row)
        self.rates += rates
        if self.best is row:
            self._save(self.output / BEST, row, weights)
        self._save(self.output / LAST, row, weights)
        if self.rates:
            _write_table(self.output / RATES, self.rates)
        _write_table(self.output / METRICS, self.rows)

    def report_problem(self, content: dict[str, Any]) -> None:
        """Add a line to problems.jsonl; several processes may do so at once."""
        with (self.output / PROBLEMS).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(content, ensure_ascii=False) + "\n")
