"""Which settings a run is trained with: a recipe's or those of a run that goes on, and what a person changes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from acmix.tasks.loop import recipes, run
from acmix.tasks.loop.settings import LoopSettings

_Settings = TypeVar("_Settings", bound=LoopSettings)


def choose(
    kind: type[_Settings],
    default: Mapping[str, Any],
    recipe: str | None,
    changes: Mapping[str, Any],
    *,
    base: Path | None = None,
) -> _Settings:
    """The settings of a training as a person asks for it.

    Args:
        kind: The settings class.
        default: Settings by name where nothing else decides, and `recipe`, the recipe that is taken then.
        recipe: See `acmix.tasks.loop.recipes.load`; None is that of the run that goes on, or the default.
        changes: Settings that win.
        base: The folder of a run that goes on, if any.

    Raises:
        InputError: If there is no such recipe, it is of another kind, a setting has the wrong name or type, or the
            run's record is damaged.
    """
    own = {name: value for name, value in default.items() if name != "recipe"}
    if base is not None and recipe is None:
        # That there is no such run is said where it is opened.
        saved = run.read_config(base)["settings"] if (base / run.CONFIG).is_file() else own
        return recipes.resolve(saved, changes, kind)
    return recipes.resolve(own | recipes.load(recipe or default["recipe"], kind), changes, kind)
