"""Options that are settings of a training, which `acmix.tasks` describes, and what they come to."""

from collections.abc import Mapping, Sequence
from typing import Any

from acmix.errors import InputError
from acmix.tasks.loop import recipes
from acmix.tasks.loop.fields import check_setting, settings_of
from acmix.tasks.loop.settings import LoopSettings

# Settings that the help lists first.
COMMON = (
    "model",
    "epochs",
    "batch_size",
    "learning_rate",
    "optimizer",
    "weight_decay",
    "warmup_epochs",
    "label_smoothing",
    "image_size",
    "precision",
    "seed",
    "val_fraction",
)


def changes(
    kind: type[LoopSettings], given: Mapping[str, str | bool], assignments: Sequence[str] | None
) -> dict[str, Any]:
    """What a person changes of a recipe.

    Args:
        kind: The settings of what is trained.
        given: What was typed, by option.
        assignments: Those of --set, name=value.

    Raises:
        InputError: If there is no such setting, a value has the wrong type or range, an assignment has no equals sign,
            or a setting is given twice.
    """
    changed: dict[str, Any] = {}
    for name, typed in given.items():
        if name not in settings_of(kind):
            raise InputError(f"{name} is no setting of a training on such data; leave it out")
        # A flag is its value.
        parsed = (
            recipes.parse_setting(kind, name, typed) if isinstance(typed, str) else check_setting(kind, name, typed)
        )
        changed[name] = parsed
    for assignment in assignments or ():
        name, value = recipes.parse_assignment(assignment, kind)
        if name in changed:
            raise InputError(f"{name} is given twice; leave one out")
        changed[name] = value
    return changed
