"""Runs side by side: what each achieved, and the settings in which they differ."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from acmix.tasks.record import Run


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run; what only a finished epoch tells is None before the first.

    Attributes:
        run: The run folder as it was given.
        status: Whether it finished, in a few words.
        finished: Whether it finished.
        task: Its kind of training.
        model: Name of the network.
        parameters: Of the network.
        multiply_adds: Of one image; None for a network that this installation does not have or cannot count.
        measure: What its epochs are ranked by, in words.
        best: The best of it.
        best_epoch: Its epoch, counted from 1.
        epochs: Finished.
        train_loss: Of the last epoch.
        val_loss: Of the last epoch; None for a kind that has none.
        images_per_second: Training images a second, median over the epochs.
        seconds: Of all epochs, validation included.
    """

    run: str
    status: str
    finished: bool
    task: str
    model: str
    parameters: int
    multiply_adds: int | None
    measure: str
    best: float | None
    best_epoch: int | None
    epochs: int
    train_loss: float | None
    val_loss: float | None
    images_per_second: float | None
    seconds: float


@dataclass(frozen=True)
class RunComparison:
    """Runs side by side.

    Attributes:
        runs: In the order given.
        differing: Settings, data and versions that are not the same in all runs, one value a run.
    """

    runs: list[RunSummary]
    differing: dict[str, list[Any]]

    @property
    def facts(self) -> dict[str, list[str]]:
        """What each run achieved, in words: a row a fact, a cell a run, "-" for what is not known."""
        rows: dict[str, Callable[[RunSummary], str]] = {
            "state": lambda run: run.status,
            "model": lambda run: run.model,
            "parameters": lambda run: f"{run.parameters / 1e6:.2f} M",
            "multiply-adds": lambda run: _text(run.multiply_adds, lambda count: f"{count / 1e6:,.1f} M"),
            "best": lambda run: _text(run.best, lambda share: f"{run.measure} {share:.2%} in epoch {run.best_epoch}"),
            "last training loss": lambda run: _text(run.train_loss, "{:.4f}".format),
            "last validation loss": lambda run: _text(run.val_loss, "{:.4f}".format),
            "images/s, median": lambda run: _text(run.images_per_second, "{:,.0f}".format),
            "time": lambda run: str(timedelta(seconds=round(run.seconds))),
        }
        return {name: [describe(run) for run in self.runs] for name, describe in rows.items()}


def _text(value: float | None, describe: Callable[[float], str]) -> str:
    return "-" if value is None else describe(value)


def compare_runs(runs: Sequence[Run]) -> RunComparison:
    """Put runs side by side."""
    known = [_conditions(run) for run in runs]
    names = dict.fromkeys(name for conditions in known for name in conditions)
    columns = {name: [conditions.get(name) for conditions in known] for name in names}
    differing = {name: values for name, values in columns.items() if any(value != values[0] for value in values)}
    return RunComparison([_summary(run) for run in runs], differing)


def _conditions(run: Run) -> dict[str, Any]:
    """What a run began with."""
    data = run.config["data"]
    return (
        {"data": data["location"], "validation data": data.get("validation_location")}
        | run.config["settings"]
        | {"start weights": run.config.get("weights"), "goes on from": run.config.get("extends", {}).get("run")}
        | {"processes": run.config["processes"]}
        | {f"version of {name}": version for name, version in run.config["versions"].items()}
    )


def _summary(run: Run) -> RunSummary:
    best, last = (run.best, run.rows[-1]) if run.rows else (None, None)
    first = run.measures[0]
    return RunSummary(
        run=str(run.folder),
        status=run.status,
        finished=run.summary is not None,
        task=run.kind.name,
        model=run.network,
        parameters=run.config["parameters"],
        multiply_adds=run.kind.multiply_adds(run.config),
        measure=first.title,
        best=None if best is None else best[first.name],
        best_epoch=None if best is None else int(best["epoch"]),
        epochs=run.trained,
        train_loss=None if last is None else last["train_loss"],
        val_loss=None if last is None else last.get("val_loss"),
        images_per_second=statistics.median(row["images_per_second"] for row in run.rows) if run.rows else None,
        seconds=sum(row["seconds"] for row in run.rows),
    )
