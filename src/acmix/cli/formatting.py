"""Help in the words of people: no types of Python, and a default only where there is something to know."""

import argparse

from jsonargparse import DefaultHelpFormatter


class HelpFormatter(DefaultHelpFormatter):
    """Says of an argument what it is by default."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if isinstance(action, argparse._VersionAction):
            return "Show the version and exit."
        # What a sentence says of a default, it says better.
        if action.default in (None, False, argparse.SUPPRESS) or "default: " in text:
            return text
        return f"{text.removesuffix('.')} (default: %(default)s)."
