"""Which settings a segmenter is trained with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acmix.tasks.loop import choice
from acmix.tasks.segmentation.settings import Settings


def choose(data: str, recipe: str | None, changes: Mapping[str, Any], *, base: Path | None = None) -> Settings:  # noqa: ARG001
    """The settings of a training, see `acmix.tasks.loop.choice.choose`; they are the same whatever the data."""
    default = {"model": "semantic_fpn", "recipe": "segmentation_small"}
    return choice.choose(Settings, default, recipe, changes, base=base)
