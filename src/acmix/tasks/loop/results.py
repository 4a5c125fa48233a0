"""What comes of trainings, validations and predictions of any kind, as tables, commands and pages ask for it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from acmix.checkpoints.opening import load
from acmix.checkpoints.trained import TrainedNetwork
from acmix.data import EvaluationImages
from acmix.tasks.loop import run


@dataclass(frozen=True)
class Table:
    """Rows under a heading; the first cell of a row names it.

    Attributes:
        title: What it is.
        heading: One a column.
        rows: Cells.
    """

    title: str
    heading: Sequence[str]
    rows: Sequence[Sequence[str]]


class Evaluation(Protocol):
    """How good a network is on images that it was not trained on, a dataclass of what JSON can hold."""

    @property
    def first(self) -> float:
        """The first of the kind's measures."""
        ...

    @property
    def words(self) -> str:
        """The most important figures: "60 images: top-1 93.33%"."""
        ...

    @property
    def tables(self) -> Sequence[Table]:
        """The others."""
        ...


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An evaluation, and the images that it is of.

    Attributes:
        evaluation: A dataclass, see `Evaluation`.
        found: What was measured and left out.
    """

    evaluation: Any
    found: EvaluationImages

    @property
    def record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self.evaluation) | self.found.facts


class Prediction(Protocol):
    """What a network makes of one image file."""

    @property
    def path(self) -> Path:
        """The image file."""
        ...

    @property
    def words(self) -> str:
        """A line."""
        ...

    @property
    def record(self) -> dict[str, Any]:
        """For JSON."""
        ...

    @property
    def results(self) -> Sequence[dict[str, Any]]:
        """Entries of a JSON file of many predictions."""
        ...

    @property
    def rows(self) -> Sequence[Sequence[str | float]]:
        """Cells of a table behind the path, under the room's `headings`."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a finished run achieved.

    Attributes:
        output: The run folder; `acmix.tasks.loop.run` lists its files.
        task: The kind of training.
        measure: What epochs are ranked by, in words: "top-1" of classifiers.
        best: The best of it: validation accuracy of classifiers, 0..1.
        best_epoch: Its epoch, counted from 1.
        epochs: Epochs trained, those of a run from which it went on among them.
        stopped_early: Why it did not train all that were asked for; None if it did.
        seconds: Of all epochs, validation included.
        images_per_second: Training images a second, median over the epochs.
        validation: Evaluation of best.safetensors on the validation images, a dataclass of the kind.
        outcomes: What it made of each of them, in their order.
    """

    output: Path
    task: str
    measure: str
    best: float
    best_epoch: int
    epochs: int
    stopped_early: str | None
    seconds: float
    images_per_second: float
    validation: Any
    outcomes: Sequence[Any]

    def load(self) -> TrainedNetwork:
        """The best checkpoint, ready to use."""
        return load(self.output / run.BEST)
