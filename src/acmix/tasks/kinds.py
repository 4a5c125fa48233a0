"""Kinds of training by name: what the command line, records of runs, comparisons and pages ask of them.

A kind is a room of this package with doors of the same names in each: `settings.Settings`, `choice.choose`,
`fitting.ROOM` (an `acmix.tasks.loop.fitting.Room`), `measures.MEASURES`, `inference.measure` and `predict`,
`networks.multiply_adds` and `cost`; those that studies ask have `networks.fresh_network`, `on_images` and `input_size`.
Nothing of a room is loaded before it is asked for.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acmix.errors import InputError, printable
from acmix.records import FIRST_TASK
from acmix.tasks.loop import recipes
from acmix.tasks.loop.fields import settings_of
from acmix.tasks.loop.measures import Measure
from acmix.tasks.loop.settings import LoopSettings

if TYPE_CHECKING:
    from torch import nn

    from acmix.accounting import Account
    from acmix.checkpoints.trained import TrainedNetwork
    from acmix.tasks.loop.fitting import Room
    from acmix.tasks.loop.results import Measured, Prediction, TrainingResult


@dataclass(frozen=True)
class Kind:
    """A kind of training.

    Attributes:
        name: Of its room, and as `task` in config.json and in a checkpoint's metadata.
        noun: What it trains.
        recipe: Whose settings are taken where none are named.
        results: File of all predictions that lies beside drawings of them; None without.
    """

    name: str
    noun: str
    recipe: str
    results: str | None = None

    def _door(self, module: str, name: str) -> Any:
        return getattr(import_module(f"acmix.tasks.{self.name}.{module}"), name)

    @property
    def settings(self) -> type[LoopSettings]:
        """The class of its settings."""
        return self._door("settings", "Settings")

    @property
    def measures(self) -> Sequence[Measure]:
        """What its validations find, of whatever data."""
        room = import_module(f"acmix.tasks.{self.name}.measures")
        return tuple(dict.fromkeys((*room.MEASURES, *getattr(room, "MULTI_LABEL_MEASURES", ()))))

    def measures_of(self, config: Mapping[str, Any]) -> Sequence[Measure]:
        """What the validations of a run find, by its config.json, the first most important."""
        return self._door("measures", "MULTI_LABEL_MEASURES" if config.get("multi_label") else "MEASURES")

    def choose(
        self, data: str, recipe: str | None, changes: Mapping[str, Any], *, base: Path | None = None
    ) -> LoopSettings:
        """The settings of a training as a person asks for it, see `acmix.tasks.loop.choice.choose`.

        Args:
            data: As in training.
            recipe: None is the kind's own, or the settings of the run that goes on.
            changes: Settings that win.
            base: The folder of a run that goes on, if any.

        Raises:
            InputError: If a setting or recipe cannot be used.
        """
        self.check_names(changes)
        return self._door("choice", "choose")(data, recipe, changes, base=base)

    def check_names(self, names: Iterable[str]) -> None:
        """Raise InputError for a setting that other kinds have and this has not."""
        for name in names:
            others = [kind.name for kind in KINDS.values() if name in settings_of(kind.settings)]
            if others and self.name not in others:
                raise InputError(f"{name} is a setting of {' and '.join(others)}; DATA is of {self.name}")

    @property
    def room(self) -> "Room":
        """What it does before the loop runs."""
        return self._door("fitting", "ROOM")

    def fresh_network(self, settings: LoopSettings, classes: int, **options: Any) -> "nn.Module":
        """The network that settings ask for, not tried; options are arguments of that of timm in it.

        Raises:
            InputError: If there is no such network, or it does not take what is asked for.
        """
        return self._door("networks", "fresh_network")(settings, classes, **options)

    def on_images(self, network: "nn.Module") -> "nn.Module":
        """What of a network is called on a batch of images `(B, 3, H, W)` alone, to be counted or timed."""
        return self._door("networks", "on_images")(network)

    def input_size(self, trained: "TrainedNetwork") -> tuple[int, int, int]:
        """Of the images that a trained network is meant for."""
        return self._door("networks", "input_size")(trained)

    def fit(self, data: str, settings: LoopSettings, output: Path, **options: Any) -> "TrainingResult | None":
        """Train in a run folder; options and errors are those of `acmix.tasks.loop.fitting.Room.fit`."""
        return self.room.fit(data, settings, output, **options)

    def measure(self, trained: "TrainedNetwork", data: str, **options: Any) -> "Measured":
        """Measure a trained network on data that it was not trained on; options are those of the room's `measure`."""
        return self._door("inference", "measure")(trained, data, **options)

    def predict(
        self, trained: "TrainedNetwork", files: Sequence[Path], faults: list[str], **options: Any
    ) -> "Iterator[Prediction]":
        """What a trained network makes of image files; options are those of the room's `predict`."""
        return self._door("inference", "predict")(trained, files, faults, **options)

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise InputError for an option of predictions that only other kinds have."""
        for name in options.keys() - signature(self._door("inference", "predict")).parameters.keys():
            raise InputError(f"{name} is of other networks than {self.noun}s; leave it out")

    def notes(self, trained: "TrainedNetwork", files: Sequence[Path], **options: Any) -> list[str]:
        """What a person must know of JSON of predictions to use it."""
        room = import_module(f"acmix.tasks.{self.name}.inference")
        own = getattr(room, "notes", None)
        if own is None:
            return []
        taken = signature(own).parameters
        return own(trained, files, **{name: value for name, value in options.items() if name in taken})

    def headings(self, trained: "TrainedNetwork", **options: Any) -> list[str]:
        """Of a table of predictions."""
        return self._door("inference", "headings")(trained, **options)

    def cost(self, trained: "TrainedNetwork", image_size: int | None = None) -> "Account":
        """What a trained network costs for one image.

        Args:
            trained: Not modified.
            image_size: Side of a square image; by default what the network was trained for.

        Raises:
            InputError: If it does not take such an image.
        """
        return self._door("networks", "cost")(trained, image_size)

    def multiply_adds(self, config: Mapping[str, Any]) -> int | None:
        """Of one image, by a run's config.json; None for a network that cannot be made or counted here."""
        count: Callable[[Mapping[str, Any]], int | None] = self._door("networks", "multiply_adds")
        return count(config)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("classification", "classifier", "small"),
        Kind("detection", "detector", "detection_small", "results.json"),
        Kind("segmentation", "segmenter", "segmentation_small"),
    )
}


def kind_of(data: str, recipe: str | None = None, base: Path | None = None) -> Kind:
    """The kind of a training: of the run that goes on, or of the recipe; it must be what the data are for.

    Args:
        data: As in training.
        recipe: Of the training, where one is named.
        base: The folder of a run that goes on, if any.

    Raises:
        InputError: If the data are for another kind than run or recipe, or for several and nothing says for which.
    """
    from acmix.data.kinds import kind_of as kind_of_data
    from acmix.tasks.loop import run

    given: dict[str, str] = {}
    if base is not None and (base / run.CONFIG).is_file():
        given[f"the run {base}"] = str(run.read_json(base / run.CONFIG).get("task", FIRST_TASK))
    if recipe is not None:
        given[f"recipe {recipe!r}"] = recipes.task_of(recipe)
    try:
        possible = {kind_of_data(data)}
    except InputError:
        # Of several kinds the one that is given is meant; that there are no data is said where they are opened.
        if not given:
            raise
        possible = {*given.values()}
    for what, task in given.items():
        if task not in possible:
            raise InputError(f"{what} is of {task}; DATA {printable(data)} is of {' or '.join(possible)}")
    if len(possible) > 1:
        what = ", ".join(f"{what} is of {task}" for what, task in given.items())
        raise InputError(f"{what}; name a --recipe of what is meant")
    return kind_named(next(iter(possible)))


def kind_named(name: str) -> Kind:
    """The kind of a name that comes from a file.

    Raises:
        InputError: If there is none. The message is the fault alone.
    """
    if name not in KINDS:
        raise InputError(f"task is {name!r}, this acmix knows {', '.join(KINDS)} (upgrade acmix)")
    return KINDS[name]
