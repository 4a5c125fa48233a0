"""Read a run folder: what `acmix.tasks.loop.run` lists, whether the run finished, and how to continue it if not."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acmix import records
from acmix.errors import InputError
from acmix.records import FIRST_TASK
from acmix.tasks.kinds import Kind, kind_named
from acmix.tasks.loop import run, states
from acmix.tasks.loop.extending import Origin
from acmix.tasks.loop.measures import EpochRow, Measure, best_epoch
from acmix.tasks.loop.progress import PARTS
from acmix.tasks.loop.run import RateRow

_METRICS = {"epoch", "train_loss", "learning_rate", "seconds", "images_per_second"}


@dataclass(frozen=True, kw_only=True)
class _Config(run.Config):
    """What config.json must hold at least to be shown."""

    classes: list[str]
    parameters: int
    preprocessing: dict[str, Any]
    train_images: int
    updates_an_epoch: int
    validation_images: int
    versions: dict[str, str]
    extends: Origin | None = None
    task: str = FIRST_TASK


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run, finished or not.

    Attributes:
        folder: Of the run, as it was given.
        kind: Of training.
        config: config.json.
        rows: metrics.csv; empty before the first epoch is finished.
        rates: rates.csv; empty for a network without ACmix layers.
        problems: problems.jsonl; a line that was cut off is a problem of its own.
        summary: summary.json; None if the run has not finished.
        stopped: Why the run stopped; None if it finished, is at work, or was killed.
        updates: Of the last state, since the run began; None if there is no state.
    """

    folder: Path
    kind: Kind
    config: dict[str, Any]
    rows: list[EpochRow]
    rates: list[RateRow]
    problems: list[dict[str, Any]]
    summary: dict[str, Any] | None
    stopped: str | None
    updates: int | None

    @property
    def network(self) -> str:
        """What is trained, in words."""
        settings = self.config["settings"]
        return f"{settings['model']} on {settings['backbone']}" if "backbone" in settings else settings["model"]

    @property
    def measures(self) -> Sequence[Measure]:
        """What its validations found, in the order in which epochs are ranked by it."""
        return [each for each in self.kind.measures_of(self.config) if not self.rows or each.name in self.rows[0]]

    @property
    def best(self) -> EpochRow:
        """The row of the best epoch, of those that are finished."""
        return best_epoch(self.rows, self.measures)

    @property
    def origin(self) -> Origin | None:
        """Where it began, if it goes on from another run."""
        return records.read(Origin, self.config["extends"], others=True) if "extends" in self.config else None

    @property
    def trained(self) -> int:
        """Epochs that are finished, those of a run from which it went on among them."""
        if self.rows:
            return int(self.rows[-1]["epoch"])
        return 0 if self.origin is None else self.origin.epoch

    @property
    def epochs(self) -> int:
        """Epochs that were asked for."""
        return self.config["settings"]["epochs"]

    @property
    def status(self) -> str:
        """Whether the run finished, in a few words."""
        if self.summary is None:
            return f"{'stopped' if self.stopped else 'unfinished'}, {self.trained} of {self.epochs} epochs"
        if (early := self.summary.get("stopped_early")) is None:
            return "finished"
        return f"finished early, {self.trained} of {self.epochs} epochs: {early}"

    @property
    def position(self) -> str:
        """Where the last state lies, in words."""
        if self.updates is None:
            return "no state was saved"
        epoch, update = divmod(self.updates, self.config["updates_an_epoch"])
        if update == 0:
            return f"the last state lies after epoch {epoch} of {self.epochs}"
        return (
            f"the last state lies in epoch {epoch + 1} of {self.epochs}, after update {update} of "
            f"{self.config['updates_an_epoch']}"
        )

    @property
    def command(self) -> str | None:
        """What continues the run in a shell; None if it finished or has no state."""
        if self.summary is not None or self.updates is None:
            return None
        return run.continuing(self.folder, self.config)


def read_run(folder: Path) -> Run:
    """Read a run of `acmix train`, finished or not.

    Args:
        folder: Of the run; a checkpoint in it stands for it.

    Raises:
        InputError: If the folder holds no run, or a file of it is damaged.
    """
    if folder.name in (run.BEST, run.LAST) and folder.is_file():
        folder = folder.parent
    if not (folder / run.CONFIG).is_file():
        raise InputError(f"{folder} is not a run: {run.CONFIG} missing; give the --output folder of acmix train")
    config = run.read_json(folder / run.CONFIG)
    if "architecture" in config:
        raise InputError(f"{folder} is no run but an exported network; give the --output folder of acmix train")
    try:
        kind = kind_named(records.read(_Config, config, others=True).task)
    except InputError as fault:
        raise InputError(f"{folder / run.CONFIG} is damaged: {fault}") from fault
    summary = run.read_json(folder / run.SUMMARY) if (folder / run.SUMMARY).is_file() else None
    stopped = run.read_json(folder / run.STOPPED) if (folder / run.STOPPED).is_file() else None
    found = states.paths(folder)
    return Run(
        folder=folder,
        kind=kind,
        config=config,
        rows=_read_metrics(folder / run.METRICS, kind.measures_of(config)),
        rates=_read_rates(folder / run.RATES),
        problems=_read_problems(folder / run.PROBLEMS),
        summary=summary,
        stopped=None if stopped is None else str(stopped.get("reason") or stopped.get("kind")),
        updates=states.updates(found[-1]) if found else None,
    )


def _read_metrics(path: Path, measures: Sequence[Measure]) -> list[EpochRow]:
    found = {measure.name for measure in measures if not measure.optional}
    rows = _read_table(path, _METRICS | found | {f"{part}_seconds" for part in PARTS})
    try:
        return [{key: float(value) for key, value in row.items()} for row in rows]
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def _read_rates(path: Path) -> list[RateRow]:
    numbers = ("epoch", "attention", "convolution")
    rows = _read_table(path, {"layer", *numbers})
    try:
        return [{"layer": row["layer"]} | {name: float(row[name]) for name in numbers} for row in rows]
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def _read_table(path: Path, columns: set[str]) -> Sequence[dict[str, str]]:
    """Rows of a table with a heading; none if there is no such file."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            found, rows = reader.fieldnames or (), [*reader]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if missing := sorted(columns - {*found}):
        raise InputError(f"{path} is damaged: it has no column {', '.join(missing)}")
    return rows


def _read_problems(path: Path) -> list[dict[str, Any]]:
    problems: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for line in lines:
        try:
            problems.append(records.read(dict[str, Any], records.parse(line)))
        except InputError:
            # A process that is killed while it writes leaves a part of a line.
            problems.append({"problem": "line cut off", "reason": line})
    return problems
