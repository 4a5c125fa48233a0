"""Which settings a detector is trained with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acmix.tasks.detection.settings import Settings
from acmix.tasks.loop import choice


def choose(data: str, recipe: str | None, changes: Mapping[str, Any], *, base: Path | None = None) -> Settings:
    """The settings of a training, see `acmix.tasks.loop.choice.choose`."""
    del data
    default = {"model": "retinanet", "recipe": "detection_small"}
    return choice.choose(Settings, default, recipe, changes, base=base)
