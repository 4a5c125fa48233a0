"""Which settings a classifier is trained with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acmix.data.bundled import BUNDLED
from acmix.tasks.classification.settings import Settings
from acmix.tasks.loop import choice


def choose(data: str, recipe: str | None, changes: Mapping[str, Any], *, base: Path | None = None) -> Settings:
    """The settings of a training, see `acmix.tasks.loop.choice.choose`; the network may depend on the data."""
    model = "acmix_resnet14_small" if data in BUNDLED else "acmix_resnet26"
    return choice.choose(Settings, {"model": model, "recipe": "small"}, recipe, changes, base=base)
