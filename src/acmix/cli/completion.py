"""`acmix --completion SHELL`: the script by which a shell completes commands, options, what they may be, and files."""

import argparse
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHELLS = ("bash", "zsh", "fish")
# Where an action keeps what its values are.
_HINT = "acmix_hint"


class PrintCompletion(argparse.Action):
    """Print the script and stop."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: Any = None) -> None:  # noqa: ARG002
        """Print it for the shell that was named."""
        import shtab

        for action in _actions(parser):
            _describe(action, shtab.FILE)
        sys.stdout.write(shtab.complete(parser, values) + "\n")
        parser.exit()


def remember(action: Any, hint: Any) -> None:
    """Keep the type of an argument's values with its action, which itself keeps what makes them."""
    vars(action)[_HINT] = hint


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in {id(each): each for each in action._name_parser_map.values()}.values():
                yield from _actions(command)


def _describe(action: argparse.Action, files: Any) -> None:
    """Tell shtab what completes an argument: its choices, or files, as `DATA`, which may be a word, mostly is one."""
    hint = vars(action).get(_HINT)
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = tuple(typing.get_args(kind)[0] if typing.get_origin(kind) is list else kind for kind in kinds)
    words = [str(word) for kind in kinds if typing.get_origin(kind) is typing.Literal for word in typing.get_args(kind)]
    if words:
        action.choices = words
    elif Path in kinds or (hint is str and not action.option_strings):
        vars(action)["complete"] = files
