"""Which backend computes: one predicate, `why_not`, serves the choice of "auto" and the text of an error."""

from types import ModuleType

from torch import Tensor

from acmix.ops import cpu, portable, reference, triton

# In the order in which "auto" prefers them. A backend is a module with why_not, local_attention, shift_conv and mix.
_AUTOMATIC: dict[str, ModuleType] = {"cpu": cpu, "triton": triton, "portable": portable}
_REGISTERED: dict[str, ModuleType] = {**_AUTOMATIC, "reference": reference}


def check_backend(name: str) -> None:
    """Raise ValueError unless `name` is "auto" or a registered backend."""
    if name != "auto" and name not in _REGISTERED:
        raise ValueError(f"backend must be one of {', '.join(('auto', *_REGISTERED))}; got {name!r}")


def backends() -> tuple[str, ...]:
    """Names of the backends that can run on this machine, fastest first."""
    return tuple(name for name, module in _REGISTERED.items() if module.why_not(None, 7, 1, 1) is None)


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
    reason: str | None = _REGISTERED[backend].why_not(features, window, stride, dilation)
    return reason


def select(backend: str, features: Tensor, window: int, stride: int, dilation: int) -> ModuleType:
    """The module that computes for `features`: the one asked for, or the first of "auto" that can.

    Raises:
        ValueError: If the name is unknown or the backend asked for cannot; it is never replaced by another.
    """
    check_backend(backend)
    if backend == "auto":
        for module in _AUTOMATIC.values():
            if module.why_not(features, window, stride, dilation) is None:
                return module
        raise AssertionError("portable takes everything")
    reason = _REGISTERED[backend].why_not(features, window, stride, dilation)
    if reason is not None:
        raise ValueError(f"backend {backend!r} cannot run this: {reason}; use backend='auto' to take one that can")
    return _REGISTERED[backend]
