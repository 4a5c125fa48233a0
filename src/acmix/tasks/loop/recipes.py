"""Recipes: named settings in YAML, shipped with the package or written by the user."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from acmix.errors import InputError, in_one_line, meant
from acmix.records import FIRST_TASK
from acmix.tasks.loop.fields import check_setting, settings_of
from acmix.tasks.loop.settings import LoopSettings

_Settings = TypeVar("_Settings", bound=LoopSettings)
_TASK = "task"
_FOLDER = resources.files("acmix") / "recipes"


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(Path(entry.name).stem for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml"))


def load(recipe: str, kind: type[LoopSettings]) -> dict[str, Any]:
    """Settings by name, of a recipe and of the one it builds on.

    Args:
        recipe: One of `names()`, or the path of a YAML file of settings; the key `base` names the recipe beneath it,
            the key `task` the kind of training, see `task_of`.
        kind: Whose settings they are.

    Raises:
        InputError: If there is no such recipe, it is no YAML mapping or of another kind, or a setting has the wrong
            name, type or range.
    """
    content = _content(recipe, ())
    if (task := content.pop(_TASK, FIRST_TASK)) != kind.task:
        raise InputError(f"recipe {recipe!r} is of {task}; this is {kind.task}")
    try:
        return {name: check_setting(kind, name, value) for name, value in content.items()}
    except InputError as error:
        raise InputError(f"recipe {recipe!r}: {error}") from error


def task_of(recipe: str) -> str:
    """The kind of training that a recipe is of, by its key `task`, or that of the recipe beneath it.

    Raises:
        InputError: If there is no such recipe, or it is no YAML mapping.
    """
    return str(_content(recipe, ()).get(_TASK, FIRST_TASK))


def _content(recipe: str, above: tuple[str, ...]) -> dict[str, Any]:
    """What a recipe and those beneath it say, which nobody has checked."""
    if recipe in above:
        raise InputError(f"recipe {recipe!r} builds on itself: {' -> '.join((*above, recipe))}")
    try:
        content = yaml.safe_load(_text(recipe))
    except yaml.YAMLError as error:
        raise InputError(f"recipe {recipe!r} is not YAML: {in_one_line(error, 400)}") from error
    if not isinstance(content, dict):
        got = "nothing" if content is None else type(content).__name__
        raise InputError(f"recipe {recipe!r} must be a mapping of settings, got {got}")
    base = content.pop("base", None)
    if base is not None and not isinstance(base, str):
        raise InputError(f"recipe {recipe!r}: base must name a recipe, got {base!r}")
    beneath: dict[str, Any] = {} if base is None else _content(base, (*above, recipe))
    own = {str(name): value for name, value in content.items()}
    task = beneath.get(_TASK, FIRST_TASK)
    if base is not None and own.get(_TASK, task) != task:
        raise InputError(f"recipe {recipe!r} is of {own[_TASK]}, its base {base!r} is not")
    return beneath | own


def _text(recipe: str) -> str:
    if recipe in names():
        return (_FOLDER / f"{recipe}.yaml").read_text(encoding="utf-8")
    path = Path(recipe)
    if not path.is_file():
        raise InputError(f"there is no recipe and no file {recipe!r}; {meant(recipe, names())}")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {recipe!r} cannot be read: {error}") from error


def parse_assignment(assignment: str, kind: type[LoopSettings]) -> tuple[str, Any]:
    """Name and value of `name=value`, see `parse_setting`.

    Raises:
        InputError: If it has no equals sign, or the setting has the wrong name, type or range.
    """
    name, equals, text = assignment.partition("=")
    if not equals:
        raise InputError(f"a setting must be written name=value, got {assignment!r}")
    return name, parse_setting(kind, name, text)


def parse_setting(kind: type[LoopSettings], name: str, text: str) -> Any:
    """The value of a setting as a person types it: as YAML writes it; what should be text needs no quotation marks.

    Raises:
        InputError: As `check_setting` does.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    kinds = settings_of(kind)[name].kinds if name in settings_of(kind) else ()
    # Text that YAML takes for something else, and nothing at all where there must be something.
    is_text = type(value) not in kinds and (str in kinds or value is None)
    return check_setting(kind, name, text if is_text else value)


def resolve(recipe: Mapping[str, Any], changes: Mapping[str, Any], kind: type[_Settings]) -> _Settings:
    """Full settings: a recipe's, or those saved with a run, with changes.

    Raises:
        InputError: If a setting has the wrong name, type or range.
    """
    given = {**recipe, **changes}
    return kind(**{name: check_setting(kind, name, value) for name, value in given.items()})


def as_yaml(settings: LoopSettings) -> str:
    """Settings as a recipe."""
    return yaml.safe_dump({_TASK: settings.task} | asdict(settings), sort_keys=False)
