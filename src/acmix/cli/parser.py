"""Typed functions become commands.

A command is a function. Its parameters become arguments: those before `*` are positional (a list takes one or more, one
with a default may be left out), `False` becomes a flag, the rest are options; the docstring's Args are the help.
jsonargparse checks the types.
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

import acmix


def build_parser(commands: Mapping[str, Any], groups: Mapping[str, str]) -> ArgumentParser:
    """Make the parser of a program.

    Args:
        commands: Functions by name, and by the name of a group those in it.
        groups: What each group is for.
    """
    parser = ArgumentParser(
        prog="acmix",
        description=acmix.__doc__.splitlines()[0] if acmix.__doc__ else None,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"acmix {acmix.__version__}")
    _add_commands(parser, "acmix", commands, groups)
    return parser


def _add_commands(parser: ArgumentParser, program: str, commands: Mapping[str, Any], groups: Mapping[str, str]) -> None:
    subcommands = parser.add_subcommands(
        dest="command", metavar="COMMAND", description=f"Each has its own help: {program} COMMAND --help"
    )
    for name, content in commands.items():
        group = isinstance(content, dict)
        summary = groups[name] if group else (inspect.getdoc(content) or "").splitlines()[0]
        command = ArgumentParser(description=summary, exit_on_error=False, allow_abbrev=False)
        if not group:
            _add_parameters(command, content)
        # jsonargparse wants a group in its place before it gets its commands.
        subcommands.add_subcommand(name, command, help=summary)
        command.prog = f"{program} {name}"
        if group:
            _add_commands(command, command.prog, content, groups)


def _kind(hint: Any) -> Any:
    """What makes a value of an argument, None left out of the types it may have."""
    kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
    kind = kinds[0] if isinstance(hint, types.UnionType) else hint
    # jsonargparse reads arguments that are paths as YAML, which file names are not.
    return _path if kind is Path else kind


def _path(text: str) -> Path:
    return Path(text)


def _add_parameters(parser: ArgumentParser, function: Callable[..., int]) -> None:
    helps = dict(re.findall(r"^    (\w+): (.*)$", inspect.getdoc(function) or "", re.MULTILINE))
    hints = typing.get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        option, hint, text = f"--{name.replace('_', '-')}", hints[name], helps[name]
        if parameter.default is inspect.Parameter.empty:
            many = typing.get_origin(hint) is list
            kind = _kind(typing.get_args(hint)[0] if many else hint)
            shape: dict[str, Any] = {"nargs": "+", "type": kind} if many else {"type": kind}
            parser.add_argument(
                name, help=text, metavar=name.removesuffix("s").upper() if many else name.upper(), **shape
            )
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            parser.add_argument(name, nargs="?", type=_kind(hint), default=None, help=text, metavar=name.upper())
        elif typing.get_origin(hint) is types.UnionType and list[str] in typing.get_args(hint):
            parser.add_argument(option, action="append", type=str, default=argparse.SUPPRESS, help=text)
        elif parameter.default is False:
            parser.add_argument(option, action="store_true", help=text)
        elif parameter.default is None:
            parser.add_argument(option, type=_kind(hint), default=argparse.SUPPRESS, help=text)
        else:
            parser.add_argument(option, type=_kind(hint), default=parameter.default, help=text)


def readable(message: str, commands: Sequence[str]) -> str:
    """jsonargparse's message in the words of the command line: no key paths, no Python types."""
    message = re.sub(
        r'^Parser key "([\w.]+)": ', lambda found: f"--{found[1].replace('_', '-')}: ", " ".join(message.split())
    )
    message = re.sub(r"<class '(\w+)'>", r"\1", message).removesuffix(".")
    message = re.sub(
        r"a typing\.Literal\[([^]]*)\]", lambda found: f"one of {found[1].replace(chr(39), '')}", message
    ).replace("a int", "a whole number")
    return message.replace(f"{'.'.join(commands)}.", "") if commands else message
