"""Names in timm's registry, ours included."""

import re

import timm

from acmix.errors import InputError, meant

# How Python names an argument that a network has not, and what settings call what they make of it.
_UNKNOWN = re.compile(r"unexpected keyword argument '(\w+)'")
_SETTINGS = {"block_args": "quiet_shifts", "drop_path_rate": "drop_path"}


def check_name(name: str) -> None:
    """Check that timm's registry has a network.

    Raises:
        InputError: If it has not; names the nearest ones.
    """
    if not timm.is_model(name):
        raise InputError(f"unknown model {name!r}; {meant(name, timm.list_models(), timm.list_models('acmix_*'))}")


def unknown_argument(error: Exception) -> str | None:
    """The argument that a network has not, if that is what an error says, as settings call it."""
    found = _UNKNOWN.search(str(error))
    return None if found is None else _SETTINGS.get(found[1], found[1])
