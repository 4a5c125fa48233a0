"""Options that are settings of a training, which `acmix.tasks` describes, and what they come to."""

from collections.abc import Mapping, Sequence
from typing import Any

from acmix.errors import InputError

# Settings that are options; every other one is given with --set.
OPTIONS = (
    "model",
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "optimizer",
    "warmup_epochs",
    "label_smoothing",
    "image_size",
    "precision",
    "seed",
    "val_fraction",
    "deterministic",
)


def changes(given: Mapping[str, Any], assignments: Sequence[str] | None) -> dict[str, Any]:
    """What a person changes of a recipe.

    Args:
        given: Values by option; None stands for an option that was not given.
        assignments: Those of --set, name=value.

    Raises:
        InputError: If an assignment has no equals sign, a wrong name or type, or repeats a setting.
    """
    from acmix.tasks.classification.settings import Settings
    from acmix.tasks.loop import recipes

    changed = {name: value for name, value in given.items() if value is not None}
    for assignment in assignments or ():
        name, value = recipes.parse_assignment(assignment, Settings)
        if name in changed:
            raise InputError(f"{name} is given twice; leave one out")
        changed[name] = value
    return changed
