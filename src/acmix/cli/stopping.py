"""Ctrl-C at any moment is one line and, where there is something to continue, the whole command; it loads nothing."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from acmix.shell import quoted

# What there is to do now if the command is stopped, see `telling`.
_told: list[Callable[[], str]] = []
_GROUPS = ("bench", "data", "study")
_SHOW_CURSOR = "\x1b[?25h"


@contextmanager
def at_once_in_imports(arguments: Sequence[str]) -> Iterator[None]:
    """Let Ctrl-C within an import end the process at once, with `stopped`; elsewhere it is a KeyboardInterrupt.

    Libraries take that for a module that is missing, and go on; half a module cannot be imported again.

    Args:
        arguments: As they were typed.
    """
    # Whoever calls may be imported itself; between lies contextlib.
    caller = sys._getframe(2)

    def stop(number: int, frame: FrameType | None) -> None:
        del number
        while frame is not None and frame is not caller:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
                sys.stderr.write(cursor + stopped(arguments, _told[-1]() if _told else ""))
                sys.stderr.flush()
                os._exit(130)
            frame = frame.f_back
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def telling(what: Callable[[], str]) -> Iterator[None]:
    """Let Ctrl-C say what is kept and what goes on, see `stopped`, unless it has said so itself.

    Args:
        what: Asked when it is stopped.

    Raises:
        KeyboardInterrupt: With what there is to do.
    """
    _told.append(what)
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(str(error) or what()) from error
    finally:
        _told.pop()


def stopped(arguments: Sequence[str], said: str = "") -> str:
    """The line that ends a command that was stopped.

    Args:
        arguments: As they were typed.
        said: What was stopped, and what continues it.
    """
    words = arguments[: 2 if arguments and arguments[0] in _GROUPS else 1]
    program = " ".join(["acmix", *(word for word in words if not word.startswith("-"))])
    return f"\n{program}: {continued(arguments, said or 'stopped')}\n"


def continued(arguments: Sequence[str], said: str) -> str:
    """What was stopped, and the command itself where repeating it goes on.

    Args:
        arguments: As they were typed.
        said: What was stopped, maybe with another command.
    """
    again = [*arguments[:2]] == ["study", "run"] or not {"--resume", "--requeue"}.isdisjoint(arguments)
    command = quoted(["acmix", *arguments])
    return f"{said}; continue with: {command}" if again and "acmix " not in said else said
