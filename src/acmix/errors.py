"""The one exception that means "the input is wrong", as opposed to "acmix is wrong"."""


class InputError(ValueError):
    """Something a person gave (a path, a name, a file) cannot be used.

    The message is complete in one line: what was given, which rule it breaks, what to do. The command line prints it
    and exits with code 2.
    """
