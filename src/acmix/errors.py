"""Exceptions whose message is for the person who runs acmix, as opposed to "acmix is wrong"."""

import difflib
import re
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

# Control characters, line separators, the surrogates that stand for what no encoding has, and what XML forbids.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")

# Numbers that a person may give are no larger, those of seeds: what is computed of them fits into 64 bits.
LARGEST = 2**32 - 1


def printable(name: object) -> str:
    r"""The text of a name that any terminal, file and page can show on one line.

    A file name is bytes. Python decodes those that are not UTF-8 to lone surrogates, which no file or page can hold;
    here they become `\xe9`. Control characters become escapes too, all else stays as it is.
    """
    return _UNPRINTABLE.sub(_escaped, str(name))


def counted(number: int, noun: str) -> str:
    """A number and what it counts: "1 run", "2,000 runs", "3 classes"."""
    plural = "es" if noun.endswith(("s", "x", "tch", "nch")) else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def few(names: Sequence[str]) -> str:
    """The first five names, comma-separated, and "..." where there are more."""
    return ", ".join(map(printable, names[:5])) + (", ..." if len(names) > 5 else "")


def first_line(error: BaseException) -> str:
    """The first line of what an error of others says, or its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def in_one_line(error: BaseException, most: int = 200) -> str:
    """All that an error of others says, in so many letters at most, or its type where it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    # os.fsdecode puts the byte 0xE9 into U+DCE9.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else found[0].encode("unicode_escape").decode()


def nearest(name: str, known: Iterable[str]) -> str:
    """The known names most like a misspelt one, or that it abbreviates, comma-separated; empty where there is none."""
    known = list(known)
    short = [each for each in known if name and name == "".join(word[:1] for word in re.split("[_-]", each))]
    return ", ".join(dict.fromkeys([*short, *difflib.get_close_matches(name, known, n=3, cutoff=0.5)]))


def meant(name: str, known: Iterable[str], some: Iterable[str] = ()) -> str:
    """What a name that is not known may stand for, in words: the nearest or, where none is near, what there is.

    Args:
        name: As it was given.
        known: All that there are.
        some: Those that are told where none is near; all by default.
    """
    known = list(known)
    near = nearest(name, known)
    return f"the nearest are {near}" if near else f"there are {', '.join(some or known)}"


class _OneLineError(Exception):
    """The message in one line that can be printed, whatever names and causes it cites."""

    def __init__(self, message: object) -> None:
        super().__init__(printable(" ".join(str(message).splitlines())))


class InputError(_OneLineError, ValueError):
    """Something a person gave (a path, a name, a file) cannot be used.

    The message is complete in one line: what was given, which rule it breaks, what to do. The command line prints it
    and exits with code 2.
    """


class TrainingError(_OneLineError, RuntimeError):
    """Training had to stop: memory, a disk, a process or the numbers gave out.

    The message says what happened, what is kept and what to do. The command line prints it and exits with code 1.
    """


class PreemptedError(TrainingError):
    """A scheduler asked the process to stop, and its state is saved: the same command with `--resume` continues.

    The command line exits with code 75, which says "temporary failure, try again".
    """


def check_least(least: int, **numbers: Any) -> None:
    """Check whole numbers that a person gave.

    Args:
        least: Of each.
        **numbers: By the names of their arguments; one that was left out, None, is fine.

    Raises:
        InputError: If one is less, or no whole number.
    """
    for name, number in numbers.items():
        if number is not None and (not isinstance(number, Integral) or number < least):
            kind = "" if isinstance(number, Integral) else "a whole number of "
            raise InputError(f"{name} must be {kind}at least {least}, got {number!r}")


def check_input_size(input_size: object) -> None:
    """Check the size of an image that a person gave.

    Raises:
        InputError: If it is not `(C, H, W)`, whole numbers of at least 1.
    """
    sizes: tuple[Any, ...] = tuple(input_size) if isinstance(input_size, Sequence) else ()
    if len(sizes) != 3 or not all(isinstance(size, Integral) for size in sizes) or min(sizes) < 1:
        raise InputError(f"input_size must be three positive sizes (C, H, W), got {input_size}")
