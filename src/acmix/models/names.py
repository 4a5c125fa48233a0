"""Names in timm's registry, ours included."""

import timm

from acmix.errors import InputError, nearest


def check_name(name: str) -> None:
    """Check that timm's registry has a network.

    Raises:
        InputError: If it has not; names the nearest ones.
    """
    if not timm.is_model(name):
        near = nearest(name, timm.list_models()) or ", ".join(timm.list_models("acmix_*"))
        raise InputError(f"unknown model {name!r}; the nearest names are {near}")
