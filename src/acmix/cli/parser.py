"""Typed functions become commands.

A command is a function. Its parameters become arguments: those before `*` are positional (a list takes one or more, one
with a default may be left out), `False` becomes a flag, the rest are options; the docstring's Args are the help.
jsonargparse checks the types. `**options: Annotated[Any, SettingsOf(...)]` are settings of a training, as text.
"""

import argparse
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

import acmix.records
from acmix.cli.completion import SHELLS, PrintCompletion, remember
from acmix.cli.formatting import HelpFormatter
from acmix.cli.wording import SettingsOf, spelled
from acmix.tasks.loop.fields import Setting

_PARSING: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False, "formatter_class": HelpFormatter}

# What argparse takes for a value, though it begins as options do: also -1,0 and -1e-3.
_VALUE = re.compile(r"-\.?\d")


def build_parser(
    commands: Mapping[str, Any], groups: Mapping[str, str], named: Sequence[str] | None = None
) -> ArgumentParser:
    """Make the parser of a program.

    Args:
        commands: Functions by name, and by the name of a group those in it.
        groups: What each group is for.
        named: The command that is to be parsed, group first: the arguments of others, which take long, are left out.
    """
    parser = ArgumentParser(
        prog="acmix",
        description=acmix.__doc__.splitlines()[0] if acmix.__doc__ else None,
        **_PARSING,
    )
    parser.add_argument("--version", action="version", version=f"acmix {acmix.__version__}")
    parser.add_argument(
        "--completion",
        action=PrintCompletion,
        choices=SHELLS,
        default=argparse.SUPPRESS,
        help="Print what completes this command in a shell, for ~/.local/share/bash-completion/completions/acmix say.",
    )
    _add_commands(parser, "acmix", commands, groups, named)
    return parser


def _add_commands(
    parser: ArgumentParser,
    program: str,
    commands: Mapping[str, Any],
    groups: Mapping[str, str],
    named: Sequence[str] | None,
) -> None:
    subcommands = parser.add_subcommands(
        dest="command", metavar="COMMAND", description=f"Each has its own help: {program} COMMAND --help"
    )
    for name, content in commands.items():
        group = isinstance(content, dict)
        summary = groups[name] if group else (inspect.getdoc(content) or "").splitlines()[0]
        command = ArgumentParser(description=summary, **_PARSING)
        command._negative_number_matcher = _VALUE
        wanted = named is None or list(named[:1]) == [name]
        if wanted and not group:
            _add_parameters(command, content)
        # jsonargparse wants a group in its place before it gets its commands.
        subcommands.add_subcommand(name, command, help=summary)
        command.prog = f"{program} {name}"
        if wanted and group:
            _add_commands(command, command.prog, content, groups, named and named[1:])


def _kind(hint: Any) -> Any:
    """What makes a value of an argument, None left out of the types it may have."""
    kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
    kind = kinds[0] if isinstance(hint, types.UnionType) else hint
    # jsonargparse reads arguments that are paths as YAML, which file names are not.
    return _path if kind is Path else kind


def _path(text: str) -> Path:
    return Path(text)


def _add_parameters(parser: ArgumentParser, function: Callable[..., int]) -> None:
    helps, hints = acmix.records.described(function), typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            _add_settings(parser, typing.get_args(hints[name])[1])
        elif parameter.kind is parameter.KEYWORD_ONLY:
            _add_option(parser, name, hints[name], helps[name], parameter.default)
        else:
            _add_positional(parser, name, hints[name], helps[name], required=parameter.default is parameter.empty)


def _add_positional(parser: ArgumentParser, name: str, hint: Any, text: str, *, required: bool) -> None:
    options: dict[str, Any] = {"type": _kind(hint), "metavar": name.upper()}
    if typing.get_origin(hint) is list:
        options = {"type": _kind(typing.get_args(hint)[0]), "metavar": name.removesuffix("s").upper(), "nargs": "+"}
    elif not required:
        options |= {"nargs": "?", "default": None}
    remember(parser.add_argument(name, help=text, **options), hint)


def _add_option(parser: ArgumentParser, name: str, hint: Any, text: str, default: Any) -> None:
    option = spelled(name)
    if typing.get_origin(hint) is types.UnionType and list[str] in typing.get_args(hint):
        parser.add_argument(*option, action="append", type=str, default=argparse.SUPPRESS, help=text)
    elif default is False:
        parser.add_argument(*option, action="store_true", help=text)
    else:
        default = argparse.SUPPRESS if default is None else default
        remember(parser.add_argument(*option, type=_kind(hint), default=default, help=text), hint)


def _add_settings(parser: ArgumentParser, options: SettingsOf) -> None:
    # A list of all options would fill a screen before it says what the command does.
    parser.usage = "%(prog)s DATA [options]"
    common = parser.add_argument_group("settings", "What decides a run's result; recipes are sets of them.")
    others = parser.add_argument_group("more settings")
    for name, setting in options.settings.items():
        _add_setting(common if name in options.common else others, setting, options.meanings(name))


def _add_setting(group: Any, setting: Setting, meanings: Sequence[tuple[str, Setting]]) -> None:
    # Where all kinds that have it mean the same, the recipes say whose it is.
    texts = [f"{each.help.removesuffix('.')} ({each.in_words})." for _, each in meanings]
    if len(texts) > 1:
        texts = [f"Of {tasks}: {text}" for (tasks, _), text in zip(meanings, texts, strict=True)]
    text = " ".join(texts)
    fixed = {"default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
    if setting.kinds == (bool,):
        group.add_argument(*spelled(setting.name), action=argparse.BooleanOptionalAction, **fixed)
    else:
        remember(group.add_argument(*spelled(setting.name), type=str, **fixed), setting.hint)
