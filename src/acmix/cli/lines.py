"""Lines on stderr that are no result: those of every command begin alike."""

import sys


def error(program: str, message: object) -> None:
    """Say what could not be done; the exit code is not 0.

    Args:
        program: What was typed, `acmix data check` for instance.
        message: Becomes one line.
    """
    sys.stderr.write(f"{program}: error: {_joined(message)}\n")


def warning(program: str, message: object) -> None:
    """Say what a person should know of what was done."""
    sys.stderr.write(warning_line(program, message))


def warning_line(program: str, message: object) -> str:
    """The line of `warning`."""
    return f"{program}: warning: {_joined(message)}\n"


def _joined(message: object) -> str:
    return " ".join(str(message).split())
