"""The `acmix` command: typed functions become subcommands (`acmix.cli.main`)."""

from acmix.cli.main import main

__all__ = ["main"]
