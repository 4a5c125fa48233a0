"""Kinds of trainings whose networks a study compares: what it asks of their rooms, and by what it compares them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from acmix.errors import InputError
from acmix.tasks import kinds
from acmix.tasks.loop import recipes
from acmix.tasks.loop.settings import LoopSettings

if TYPE_CHECKING:
    from acmix.checkpoints.trained import TrainedNetwork
    from acmix.study.networks import Shape
    from acmix.tasks.loop.fitting import Room


@dataclass(frozen=True)
class Score:
    """What networks are compared by, a share of 1.

    Attributes:
        name: Of the column of metrics.csv.
        title: In words.
    """

    name: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of training of which studies can be made.

    Attributes:
        training: The kind.
        operators: The setting that names the network with ACmix.
        scores: What networks are compared by, the first most.
        timed: What is timed of a network, where that is not all of it; empty else.
        own: Settings that are there unless others are named, beside those of the kind's recipe.
    """

    training: kinds.Kind
    operators: str
    scores: Sequence[Score]
    timed: str = ""
    own: Mapping[str, Any]

    @property
    def settings(self) -> type[LoopSettings]:
        """The class of its settings."""
        return self.training.settings

    @property
    def room(self) -> "Room":
        """Opens data and prepares trainings."""
        return self.training.room

    def choose(self, recipe: str | None, changes: Mapping[str, Any]) -> LoopSettings:
        """The settings of a study as a person asks for it.

        Args:
            recipe: None is the kind's own.
            changes: Settings that win.

        Raises:
            InputError: If a setting or recipe cannot be used.
        """
        base = recipes.load(recipe or self.training.recipe, self.settings) | dict(self.own)
        return recipes.resolve(base, changes, self.settings)

    def shape(self, settings: LoopSettings, classes: int) -> "Shape":
        """What all networks of a study have alike."""
        from acmix.study.networks import Shape

        make = partial(self.training.fresh_network, settings, classes)
        return Shape(getattr(settings, self.operators), make, self.training.on_images)

    def input_size(self, trained: "TrainedNetwork") -> tuple[int, int, int]:
        """Of the images that a network is counted and timed with."""
        return self.training.input_size(trained)


_CLASSIFICATION, _DETECTION = (kinds.KINDS[name] for name in ("classification", "detection"))
KINDS = {
    kind.training.name: kind
    for kind in (
        Kind(
            training=_CLASSIFICATION,
            operators="model",
            scores=(Score("val_top1", "accuracy"),),
            own={"model": "acmix_resnet14_small"},
        ),
        Kind(
            training=_DETECTION,
            operators="backbone",
            scores=(
                Score("val_map", "AP"),
                Score("val_map_50", "AP50"),
                Score("val_map_small", "AP small"),
                Score("val_map_medium", "AP medium"),
                Score("val_map_large", "AP large"),
            ),
            timed="backbone, pyramid and heads",
            own={},
        ),
    )
}


def kind_of(data: str, recipe: str | None = None) -> Kind:
    """The kind of a study, told by its data as in training.

    Args:
        data: As in training.
        recipe: Where one is named.

    Raises:
        InputError: If there are no such data, or no study is made of the kind.
    """
    found = kinds.kind_of(data, recipe)
    if found.name not in KINDS:
        raise InputError(f"DATA {data} is of {found.name}; a study compares networks of {' and '.join(KINDS)}")
    return KINDS[found.name]
