"""Which backend computes: one predicate, `why_not`, serves the choice of "auto" and the text of an error."""

from torch import Tensor

from acmix.ops.contract import Backend, Features, Grid
from acmix.ops.cpu import Compiled
from acmix.ops.portable import Portable
from acmix.ops.reference import Reference
from acmix.ops.triton import Triton

# In the order in which "auto" prefers them.
_AUTOMATIC: dict[str, Backend] = {"cpu": Compiled(), "triton": Triton(), "portable": Portable()}
_REGISTERED: dict[str, Backend] = {**_AUTOMATIC, "reference": Reference()}
_USUAL = Grid(heads=1, window=7, stride=1, dilation=1)


def check_backend(name: str) -> None:
    """Raise ValueError unless `name` is "auto" or a registered backend."""
    if name != "auto" and name not in _REGISTERED:
        raise ValueError(f"backend must be one of {', '.join(('auto', *_REGISTERED))}; got {name!r}")


def backends() -> tuple[str, ...]:
    """Names of the backends that can run on this machine, fastest first."""
    return tuple(name for name, backend in _REGISTERED.items() if backend.why_not(None, _USUAL) is None)


def why_not(
    backend: str, features: Tensor | None = None, *, window: int = 7, stride: int = 1, dilation: int = 1
) -> str | None:
    """Why a backend cannot compute, or None if it can.

    Args:
        backend: A registered name, see `backends`.
        features: Maps of shape `(B, ., D, H, W)` to ask about; None asks about the machine alone.
        window: Window size k_a.
        stride: Stride of the queries.
        dilation: Distance between window cells.

    Returns:
        The reason, a sentence for people, or None.

    Raises:
        ValueError: If no backend has that name.
    """
    if backend not in _REGISTERED:
        raise ValueError(f"backend must be one of {', '.join(_REGISTERED)}; got {backend!r}")
    asked = None if features is None else Features(features.device, features.dtype, features.shape)
    return _REGISTERED[backend].why_not(asked, _USUAL._replace(window=window, stride=stride, dilation=dilation))


def select(name: str, features: Features, grid: Grid) -> Backend:
    """The backend that computes for `features`: the one asked for, or the first of "auto" that can.

    Raises:
        ValueError: If the name is unknown or the backend asked for cannot; it is never replaced by another.
    """
    check_backend(name)
    if name == "auto":
        for backend in _AUTOMATIC.values():
            if backend.why_not(features, grid) is None:
                return backend
        raise AssertionError("portable takes everything")
    reason = _REGISTERED[name].why_not(features, grid)
    if reason is not None:
        raise ValueError(f"backend {name!r} cannot run this: {reason}; use backend='auto' to take one that can")
    return _REGISTERED[name]
