"""Which settings a classifier is trained with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acmix.data.bundled import BUNDLED
from acmix.tasks.classification.settings import Settings
from acmix.tasks.loop import recipes, run


def choose(data: str, recipe: str | None, changes: Mapping[str, Any], *, base: Path | None = None) -> Settings:
    """The settings of a training as a person asks for it.

    Args:
        data: As in training; it chooses the network where nothing else does.
        recipe: See `acmix.tasks.loop.recipes.load`; None is those of the run that goes on, or small.
        changes: Settings that win.
        base: The folder of a run that goes on, if any.

    Raises:
        InputError: If there is no such recipe, a setting has the wrong name or type, or the run's record is damaged.
    """
    default = {"model": "acmix_resnet14_small" if data in BUNDLED else "acmix_resnet26"}
    if base is not None and recipe is None:
        saved = run.read_json(base / run.CONFIG).get("settings") if (base / run.CONFIG).is_file() else None
        return recipes.resolve(saved if isinstance(saved, dict) else default, changes, Settings)
    return recipes.resolve(default | recipes.load(recipe or "small", Settings), changes, Settings)
