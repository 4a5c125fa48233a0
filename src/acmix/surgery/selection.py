"""Which layers of a network a person means."""

import difflib
import fnmatch
from collections.abc import Callable, Sequence

from torch import nn

Named = str | Sequence[str] | Callable[[str, nn.Module], bool]


def selection(select: Named | None, names: Sequence[str], what: str) -> Callable[[str, nn.Module], bool]:
    """Whether a layer, by name and module, is meant.

    Args:
        select: None for all, a name or glob ("layer4.*"), several of them, or a predicate of name and module.
        names: Of all layers that may be.
        what: Such layers in words, for the error.

    Raises:
        ValueError: If a name or glob is that of none.
    """
    patterns = [select] if isinstance(select, str) else select if isinstance(select, Sequence) else []
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            near = ", ".join(difflib.get_close_matches(pattern, names, n=3, cutoff=0.5) or names[:3])
            raise ValueError(f"select must name {what} of the network, got {pattern!r}; it has {near or f'no {what}'}")

    def is_selected(name: str, module: nn.Module) -> bool:
        if select is None:
            return True
        if isinstance(select, Sequence):
            return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        return bool(select(name, module))

    return is_selected
