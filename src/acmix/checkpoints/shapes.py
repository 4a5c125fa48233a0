"""What belongs together in a state dict: all keys of an operator, of shapes that agree. A leaf."""

from collections.abc import Iterable, Mapping

from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def check_keys(prefix: str, state: Mapping[str, Tensor], names: Iterable[str], kind: str) -> None:
    """Raise ValueError unless every name is there behind the prefix."""
    missing = [prefix + name for name in names if prefix + name not in state]
    if missing:
        raise ValueError(f"{kind} {prefix!r} must have all of its keys, missing: {', '.join(missing)}")


def check_shapes(prefix: str, state: Mapping[str, Tensor], expected: Shapes, kind: str) -> None:
    """Raise ValueError unless every tensor behind the prefix has its shape."""
    wrong = [
        f"{prefix}{name} must be {shape}, got {tuple(state[prefix + name].shape)}"
        for name, shape in expected.items()
        if tuple(state[prefix + name].shape) != shape
    ]
    if wrong:
        raise ValueError(f"{kind} {prefix!r} has shapes that contradict each other: {'; '.join(wrong)}")
