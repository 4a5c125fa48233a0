"""Commands that a person copies into a shell: whatever names they hold, they are read as what is meant."""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from acmix.errors import printable

__all__ = ["command", "quoted"]


def command(name: str, *operands: str | Path, **options: str | Path | float | None) -> str:
    """A command of acmix as it is typed.

    Args:
        name: Of the command, its group first: "train", "study show".
        *operands: What stands without an option's name.
        **options: By the names of their arguments. True is the option alone, False its value, None is left out.
    """
    words = ["acmix", *name.split(), *map(_path, operands)]
    for option, value in options.items():
        if value is not None:
            words.append(f"--{option.replace('_', '-')}")
            if value is not True:
                words.append(_path(value) if isinstance(value, str | Path) else str(value).lower())
    return quoted(words)


def quoted(words: Iterable[str]) -> str:
    r"""Words as a shell takes them apart again, in one line that any terminal shows.

    What cannot be shown, such as a byte that is not UTF-8, is written as bash, zsh and ksh read it: `$'caf\xe9'`.
    """
    return " ".join(shlex.quote(word) if printable(word) == word else _in_bytes(word) for word in words)


def _path(name: str | Path) -> str:
    """A name that is not taken for an option."""
    return f"./{name}" if str(name).startswith("-") else str(name)


def _in_bytes(word: str) -> str:
    shown = (chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in os.fsencode(word))
    return f"$'{''.join(shown)}'"
