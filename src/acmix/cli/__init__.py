"""The `acmix` command: typed functions become subcommands (`acmix.cli.commands`)."""

import sys
from collections.abc import Sequence

from acmix.cli.stopping import at_once_in_imports, stopped

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; Ctrl-C ends it with one line from here on.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        The exit code: 0 done, 1 done in part, 2 bad usage or input, 75 stopped by a scheduler and to be continued
        with --resume, 130 stopped with Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with at_once_in_imports(arguments):
            from acmix.cli.commands import run

            return run(arguments)
    except KeyboardInterrupt as error:
        sys.stderr.write(stopped(arguments, str(error)))
        return 130
