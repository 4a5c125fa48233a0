"""A run folder: what training leaves, written so that it is complete after every epoch.

| file | content |
|---|---|
| config.json | settings, data, classes, preprocessing, versions |
| metrics.csv | one row an epoch |
| best.safetensors, last.safetensors | usable checkpoints (`acmix.checkpoints.classifier`) |
| last.ckpt | Lightning's state, to resume |
| summary.json | best accuracy and epoch, evaluation of the best checkpoint, time; written at the end |
| tensorboard/ | logs |
"""

import csv
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from acmix.errors import InputError
from acmix.storage import write_atomically

CONFIG, METRICS, SUMMARY = "config.json", "metrics.csv", "summary.json"
BEST, LAST, RESUME = "best.safetensors", "last.safetensors", "last.ckpt"
_MARKS = (CONFIG, METRICS, SUMMARY, BEST, LAST, RESUME)

EpochRow = dict[str, float]


def prepare_folder(output: Path, *, resume: bool) -> None:
    """Check that a folder can take a run, or holds one to resume. Changes nothing.

    Raises:
        InputError: If it holds a run already; when resuming, if it holds none, or one that has finished.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"output {output} is a file; give a folder")
    if not resume:
        if any((output / name).exists() for name in _MARKS):
            raise InputError(f"output {output} already holds a run; choose another --output, or continue with --resume")
        return
    if (output / SUMMARY).exists():
        raise InputError(f"output {output} holds a finished run; choose another --output to train anew")
    if missing := [name for name in (CONFIG, RESUME) if not (output / name).is_file()]:
        raise InputError(f"output {output} holds no run to resume: {' and '.join(missing)} missing")


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
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged: expected a JSON object, got {type(content).__name__}")
    return content


class RunFiles(Callback):
    """Write metrics.csv and both usable checkpoints after every epoch.

    Args:
        output: The run folder.
        images: Training images an epoch.
        save: Writes the present weights to a path; the row of the epoch goes into the checkpoint's record.
        on_epoch: Called with every finished row.
    """

    def __init__(
        self,
        output: Path,
        images: int,
        save: Callable[[Path, EpochRow], None],
        on_epoch: Callable[[EpochRow], None] | None = None,
    ) -> None:
        self.output, self.images, self.save, self.on_epoch = output, images, save, on_epoch
        self.rows: list[EpochRow] = []
        self._epoch_start = self._training_end = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Keep the rows, so that a resumed run continues the very file that its weights belong to."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows over from the run that is resumed."""
        self.rows = state_dict["rows"]

    @property
    def best(self) -> EpochRow:
        """The row of the highest validation accuracy; of equals, the one with the lowest loss."""
        return max(self.rows, key=lambda row: (row["val_top1"], -row["val_loss"]))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Start the clock."""
        self._epoch_start = time.perf_counter()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Stop the clock of the training part."""
        self._training_end = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Write the epoch."""
        names = ("train_loss", "val_loss", "val_top1", "val_top5", "learning_rate")
        metrics = trainer.callback_metrics
        row = {"epoch": trainer.current_epoch + 1} | {name: float(metrics[name]) for name in names if name in metrics}
        row["seconds"] = time.perf_counter() - self._epoch_start
        row["images_per_second"] = self.images / (self._training_end - self._epoch_start)
        self.rows.append(row)
        if self.best is row:
            self.save(self.output / BEST, row)
        self.save(self.output / LAST, row)
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.output / METRICS, text.getvalue())
        if self.on_epoch is not None:
            self.on_epoch(row)
