"""What a study leaves: one JSON file, whole after every training, from which everything shown is drawn."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from acmix import records
from acmix.bench import Timing
from acmix.errors import InputError
from acmix.records import FIRST_TASK
from acmix.storage import write_atomically
from acmix.study.kinds import KINDS, Score

# The variants that others are compared to, and what is read off convolutions of several widths: no network of its own.
CONVOLUTION, ACMIX, EQUAL_TIME = "convolution", "acmix", "equal-time"
# The variant whose rates are not learned.
FIXED = "equal-rates"


@dataclass(frozen=True)
class Trained:
    """One finished training.

    Attributes:
        variant: Name of the network.
        seed: Of split, order, augmentation and weights.
        accuracy: On the validation images after the last epoch, 0 to 1; no epoch is chosen by it. Of another kind than
            classifiers the first of its scores, see `acmix.study.kinds`.
        curve: The same after every epoch.
        train_loss: Of the last epoch.
        rates: The two rates of every operator after training, attention and convolution.
        seconds: Of all epochs.
        scores: The others of the kind after the last epoch, by name, that its validation images have.
    """

    variant: str
    seed: int
    accuracy: float
    curve: list[float]
    train_loss: float
    rates: list[tuple[float, float]]
    seconds: float
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What a network costs.

    Attributes:
        title: The network in words.
        parameters: That learn.
        multiply_adds: Of one image.
        forward: Seconds of a batch without gradients; None until measured.
        training: Seconds of a batch forward and backward; None until measured.
    """

    title: str
    parameters: int
    multiply_adds: int
    forward: Timing | None = None
    training: Timing | None = None


@dataclass(kw_only=True)
class Study:
    """All that is known.

    Attributes:
        data: Location, fingerprint, number of training and validation images, classes, input size.
        settings: Of all trainings; their seeds are their own.
        variants: By name, in the order shown.
        task: The kind of training.
        trainings: Those that have finished.
        batch: Images a call when times were measured.
        machine: Where times were measured; empty until then.
    """

    data: dict[str, Any]
    settings: dict[str, Any]
    variants: dict[str, Measured]
    task: str = FIRST_TASK
    trainings: list[Trained] = field(default_factory=list)
    batch: int = 0
    machine: dict[str, Any] = field(default_factory=dict)

    def seeds(self) -> list[int]:
        """Seeds with which every variant was trained."""
        done = {name: {item.seed for item in self.trainings if item.variant == name} for name in self.variants}
        return sorted(set.intersection(*done.values()))

    @property
    def scores(self) -> list[Score]:
        """What networks are compared by: those of the kind that all trainings have."""
        first, *others = KINDS[self.task].scores
        return [first, *(each for each in others if all(each.name in item.scores for item in self.trainings))]

    def found(self, score: Score, variant: str) -> list[float]:
        """Of one variant, in the order of `seeds`."""
        own = {item.seed: item for item in self.trainings if item.variant == variant}
        return [own[seed].scores.get(score.name, own[seed].accuracy) for seed in self.seeds()]


def save_study(path: Path, study: Study) -> None:
    """Write a study as JSON, atomically."""
    write_atomically(path, json.dumps(asdict(study), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def load_study(path: Path) -> Study:
    """Read what `save_study` wrote.

    Raises:
        InputError: If the file is missing, no JSON or no study.
    """
    try:
        study = records.read(Study, records.parse(path.read_bytes()))
        if study.task not in KINDS:
            raise InputError(f"task is {study.task!r}, this acmix knows studies of {' and '.join(KINDS)}")
        if not study.variants:
            raise InputError("variants must hold at least one network, got none")
        return study
    except OSError as error:
        raise InputError(f"the study {path} cannot be read: {error.strerror or error}") from error
    except InputError as fault:
        raise InputError(f"{path} is no study: {fault}; give a file that acmix study run wrote") from fault
