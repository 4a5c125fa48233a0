"""What differs while PyTorch traces, in every version since 2.11. A leaf: imports torch alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _disable_current_modes

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_GATHERS = ContextVar("gathers", default=True)


def is_exporting() -> bool:
    """Whether a graph is made by `torch.export` or by TorchScript's trace, not by `torch.compile`."""
    # PyTorch 2.11 says so in every graph of torch.compile, too, when it is asked by its function.
    return torch.compiler._is_exporting_flag or torch.jit.is_tracing()


def is_symbolic(size: Any) -> bool:
    """Whether one graph of `torch.export` must serve every value of `size`."""
    # Strict export has plain integers.
    exporting = torch.compiler._is_exporting_flag
    return exporting and (torch.compiler.is_dynamo_compiling() or isinstance(size, torch.SymInt))


def unrecorded(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A function that a trace does not see: what it makes is a constant there.

    In TorchScript sizes are plain numbers in it, which it may compare. `torch.export` with strict=True records it.
    """

    @wraps(function)
    def call(*arguments: _Arguments.args, **keywords: _Arguments.kwargs) -> _Result:
        if torch.compiler._is_exporting_flag and not torch.compiler.is_dynamo_compiling():
            with _disable_current_modes():
                return function(*arguments, **keywords)
        if not torch.jit.is_tracing():
            return function(*arguments, **keywords)
        state = torch._C._get_tracing_state()
        torch._C._set_tracing_state(None)  # type: ignore[missing-attribute]
        try:
            return function(*arguments, **keywords)
        finally:
            torch._C._set_tracing_state(state)  # type: ignore[missing-attribute]

    return call


@unrecorded
def plain_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape in plain numbers; a trace is right for this shape alone where it depends on one."""
    return tuple(tensor.shape)


def at_least_one(size: Any) -> Any:
    """max(size, 1), also of a size that one graph serves every value of."""
    # TorchScript's traces have sizes that are tensors.
    if isinstance(size, Tensor):
        return size.clamp(min=1)
    # PyTorch 2.11 compiles only the one, and only the other leaves an exported size free.
    return max(size, 1) if torch.compiler.is_dynamo_compiling() else cast(int, torch.sym_max(size, 1))


@contextmanager
def without_gathers() -> Iterator[None]:
    """Let traces hold no gather, which ncnn does not have; they are right for images of one size alone.

    What is traced within, by `torch.jit.trace`, pnnx or who calls them, unfolds its tiles instead.
    """
    token = _GATHERS.set(False)
    try:
        yield
    finally:
        _GATHERS.reset(token)


def has_gathers() -> bool:
    """Whether traces may hold gathers."""
    # PyTorch 2.11 cannot look into a context variable where it compiles.
    return torch.compiler.is_dynamo_compiling() or _GATHERS.get()


def may_be_derived(*tensors: Tensor | None) -> bool:
    """Whether somebody may ask for a derivative by one of the tensors."""
    recorded = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    return recorded or is_transformed()


def is_transformed() -> bool:
    """Whether a transform of `torch.func` or forward differentiation is under way."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
