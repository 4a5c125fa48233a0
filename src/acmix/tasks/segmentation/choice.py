"""Which settings a segmenter is trained with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acmix.tasks.loop import choice
from acmix.tasks.segmentation.settings import Settings

# How names of networks begin that take quiet_shifts.
_QUIET = "acmix_resnet"


def choose(data: str, recipe: str | None, changes: Mapping[str, Any], *, base: Path | None = None) -> Settings:  # noqa: ARG001
    """The settings of a training, see `acmix.tasks.loop.choice.choose`; they are the same whatever the data."""
    default = {"model": "semantic_fpn", "recipe": "segmentation_small"}
    # A recipe's shifts are those of its own backbone: other networks than ACmix-ResNets have none.
    if not str(changes.get("backbone", _QUIET)).startswith(_QUIET):
        changes = {"quiet_shifts": False, **changes}
    return choice.choose(Settings, default, recipe, changes, base=base)
