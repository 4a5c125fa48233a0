"""Arguments as a person types them, and messages in those words."""

import inspect
import re
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from acmix.errors import nearest
from acmix.tasks.loop.fields import Setting, settings_of
from acmix.tasks.loop.settings import LoopSettings

# What the field types for the same thing.
_ALSO = {"learning_rate": ("--lr",), "image_size": ("--input-size",), "output": ("--out",)}


@dataclass(frozen=True)
class SettingsOf:
    """Options that are the settings of one of several classes, see `acmix.tasks.loop.fields`.

    What is typed is passed on as text, and only what is typed: which class it is for is known when the data are.

    Attributes:
        classes: Whose settings are options.
        common: Names of those that the help lists first.
        without: Names of those that are no options.
    """

    classes: tuple[type[LoopSettings], ...]
    common: Sequence[str] = ()
    without: Sequence[str] = ()

    @property
    def settings(self) -> dict[str, Setting]:
        """The settings that are options, by name, the common ones first."""
        found: dict[str, Setting] = {}
        for kind in reversed(self.classes):
            found |= settings_of(kind)
        return {name: found[name] for name in dict.fromkeys((*self.common, *found)) if name not in self.without}

    def meanings(self, name: str) -> list[tuple[str, Setting]]:
        """What a setting is, for each kinds of training that have it alike, named where those are not all."""
        found: dict[Setting, list[type[LoopSettings]]] = {}
        for kind in self.classes:
            if name in (own := settings_of(kind)):
                found.setdefault(own[name], []).append(kind)
        return [
            ("" if len(kinds) == len(self.classes) else " and ".join(kind.task for kind in kinds), setting)
            for setting, kinds in found.items()
        ]


def spelled(name: str) -> tuple[str, ...]:
    """An option as it may be typed; the first spelling is the one that errors use."""
    return (f"--{name.replace('_', '-')}", *_ALSO.get(name, ()))


def as_typed(message: str, function: Callable[..., int]) -> str:
    """A message, which may begin with a function's name of an argument or a setting, with that name as it is typed."""
    first, _, rest = message.partition(" ")
    typed = _names(function).get(first)
    return f"{typed} {rest}" if typed else message


def readable(message: str, commands: Sequence[str], function: Callable[..., int] | None) -> str:
    """jsonargparse's message in the words of the command line: no key paths, no Python types.

    Args:
        message: Its message.
        commands: The command that was typed, group first.
        function: Of that command; None where there is none of that name.
    """
    names = {} if function is None else _names(function)

    def positional(name: str) -> str:
        return names.get(name, name.upper())

    message = " ".join(message.split())
    if commands:
        message = message.replace(f"{'.'.join(commands)}.", "")
    rules: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
        (r'^Parser key "(\w+)": ', lambda found: f"{names.get(found[1], spelled(found[1])[0])}: "),
        (r"^unrecognized arguments: (--[\w-]+).*", lambda found: _unknown(found[1], names)),
        (r"^unrecognized arguments: (-\S+).*", r"there is no \1"),
        (r"^unrecognized arguments: (.*)", r"more than the command takes: \1"),
        (r"^argument (--[\w-]+)\S*: expected one argument.*", r"\1 needs a value"),
        (r"^argument (--[\w-]+)\S*: ignored explicit argument (.*)", r"\1 takes no value, got \2"),
        (r": Expected (.*)\. Got value: (.*)$", r" must be \1, got '\2'"),
        (r"(?<=arguments are required: ).*", lambda found: ", ".join(map(positional, found[0].split(", ")))),
        (r'^expected "command" to be one of {(.*)}, but it was not provided', _missing_command),
        (r"^argument COMMAND: invalid choice: '([^']*)' \(choose from (.*)\)", _no_command),
        (r"<class '(\w+)'>", r"\1"),
        (r"a typing\.Literal\[([^]]*)\]", lambda found: f"one of {found[1].replace(chr(39), '')}"),
        (r"\ba int\b", "a whole number"),
        (r"\ba float\b", "a number"),
    )
    for pattern, words in rules:
        message = re.sub(pattern, words, message, flags=re.IGNORECASE)
    return message.removesuffix(".")


def _names(function: Callable[..., int]) -> dict[str, str]:
    """How arguments of a command, and settings that it takes, are typed."""
    names: dict[str, str] = {}
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            names |= {each: spelled(each)[0] for each in typing.get_args(hints[name])[1].settings}
        elif parameter.kind is parameter.KEYWORD_ONLY:
            names[name] = spelled(name)[0]
        else:
            names[name] = name.removesuffix("s").upper() if typing.get_origin(hints[name]) is list else name.upper()
    return names


def _unknown(option: str, names: dict[str, str]) -> str:
    if option in [each for name, typed in names.items() if typed.startswith("-") for each in spelled(name)]:
        return f"{option} stands behind --, where nothing is an option; put ./ before names that begin with -"
    near = nearest(option[2:].replace("-", "_"), names).split(", ")[0]
    return f"there is no {option}" + (f"; the nearest is {names[near]}" if near else "")


def _no_command(found: re.Match[str]) -> str:
    commands = [name.strip(" '") for name in found[2].split(",")]
    near = nearest(found[1], commands)
    return f"there is no command {found[1]!r}; " + (f"the nearest is {near}" if near else f"use {', '.join(commands)}")


def _missing_command(found: re.Match[str]) -> str:
    return f"COMMAND is missing; use {', '.join(name for name in found[1].split(',') if name.strip())}"
