"""Where the operator stands in an ACmix-ResNet, as a person says it."""

from acmix.errors import InputError

_MOST = 4


def stages_of(wanted: int | str | None) -> list[int] | None:
    """The argument `acmix_stages` of a network for the setting of that name; None where all stages have the operator.

    Raises:
        InputError: If it is not 0, for none, or stages separated by commas.
    """
    if wanted is None:
        return None
    parts = str(wanted).replace(",", " ").split()
    if parts == ["0"]:
        return []
    known = [str(stage) for stage in range(1, _MOST + 1)]
    if not parts or not set(parts) <= {*known}:
        raise InputError(f"acmix_stages must be stages of {', '.join(known)}, or 0 for none, got {wanted!r}")
    return sorted({int(part) for part in parts})
