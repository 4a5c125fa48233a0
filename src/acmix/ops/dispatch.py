"""Which backend computes: one predicate, `why_not`, serves the choice of "auto" and the text of an error."""

import torch
from torch import Tensor

from acmix.ops import validation
from acmix.ops.contract import NO_ENDS, Backend, Ends, Features, Grid, Projection, Weights, features_of
from acmix.ops.cpu import Compiled, warn_if_missing
from acmix.ops.portable import Portable
from acmix.ops.precision import autocast_dtype
from acmix.ops.reference import Reference
from acmix.ops.tracing import is_exporting, unrecorded
from acmix.ops.triton import Triton

_COMPILED, _PORTABLE = Compiled(), Portable()
# In the order in which "auto" prefers them.
_AUTOMATIC: dict[str, Backend] = {"cpu": _COMPILED, "triton": Triton(), "portable": _PORTABLE}
_REGISTERED: dict[str, Backend] = {**_AUTOMATIC, "reference": Reference()}
# All names, whether they can run here or not.
BACKENDS = tuple(_REGISTERED)
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
    asked = None if features is None else features_of(features)
    return _REGISTERED[backend].why_not(asked, _USUAL._replace(window=window, stride=stride, dilation=dilation))


def select(name: str, features: Features, grid: Grid) -> Backend:
    """The backend that computes for `features`: the one asked for, or the first of "auto" that can.

    Raises:
        ValueError: If the name is unknown or the backend asked for cannot; it is never replaced by another.
    """
    if name == "auto":
        for backend in _AUTOMATIC.values():
            if backend.why_not(features, grid) is None:
                # A warning would break a graph that is being traced.
                if backend is _PORTABLE and features.device.type == "cpu" and not torch.compiler.is_compiling():
                    warn_if_missing()
                return backend
        raise AssertionError("portable takes everything")
    check_backend(name)
    reason = _REGISTERED[name].why_not(features, grid)
    if reason is not None:
        raise ValueError(f"backend {name!r} cannot run this: {reason}; use backend='auto' to take one that can")
    return _REGISTERED[name]


def mix(projections: Tensor, weights: Weights, grid: Grid, backend: str) -> Tensor:
    """`acmix.ops.mix` of projections that are checked."""
    return _able_to_mix(projections, weights, grid, backend, is_exporting()).mix(projections, weights, grid)


@unrecorded
def _able_to_mix(projections: Tensor, weights: Weights, grid: Grid, backend: str, exported: bool) -> Backend:
    """The backend for arguments that are checked here."""
    validation.check_grid(grid)
    validation.check_weights(projections, projections.shape, weights)
    features = Features(projections.device, projections.dtype, tuple(projections.shape), exported)
    return select(backend, features, grid)


def project_and_mix(
    x: Tensor, projection: Projection, weights: Weights, grid: Grid, backend: str, ends: Ends = NO_ENDS
) -> Tensor:
    """`acmix.ops.project_and_mix`, and what stands on both sides."""
    refusal = None
    try:
        if backend in ("auto", "cpu") and _COMPILED.checks(x, projection, weights, grid):
            return _COMPILED.project_and_mix_between(ends, x, projection, weights, grid)
    except Exception as error:
        # What is wrong with the arguments is said below, in words for people.
        refusal = error
    first = projection if ends.head is None else ends.head
    able = _able_to_project(x, first, projection, weights, grid, backend, is_exporting())
    if refusal is not None:
        raise refusal
    return able.project_and_mix_between(ends, x, projection, weights, grid)


@unrecorded
def _able_to_project(
    x: Tensor,
    first: Projection,
    projection: Projection,
    weights: Weights,
    grid: Grid,
    backend: str,
    exported: bool,
) -> Backend:
    """The backend for arguments that are checked here; `first` is of x, which others may be of, too."""
    validation.check_grid(grid)
    validation.check_projection(x, first, projection, grid)
    batch, _, height, width = x.shape
    maps = 3 * grid.heads
    shape = (batch, maps, projection.weight.shape[0] // maps, height, width)
    validation.check_weights(x, shape, weights)
    return select(backend, Features(x.device, autocast_dtype(x), shape, exported), grid)
