"""Exceptions whose message is for the person who runs acmix, as opposed to "acmix is wrong"."""


class InputError(ValueError):
    """Something a person gave (a path, a name, a file) cannot be used.

    The message is complete in one line: what was given, which rule it breaks, what to do. The command line prints it
    and exits with code 2.
    """


class TrainingError(RuntimeError):
    """Training had to stop: memory, a disk, a process or the numbers gave out.

    The message says what happened, what is kept and what to do. The command line prints it and exits with code 1.
    """


class PreemptedError(TrainingError):
    """A scheduler asked the process to stop, and its state is saved: the same command with `--resume` continues.

    The command line exits with code 75, which says "temporary failure, try again".
    """
