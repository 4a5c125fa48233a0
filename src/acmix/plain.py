"""Whether a module is exactly what its type says, so that something else may compute in its stead. A leaf."""

from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import nn
from torch.nn.modules import module as every


def why_not_plain(module: nn.Module, kind: type[nn.Module]) -> str | None:
    """Why calling a module may be more, or other, than `kind.forward` on its own parameters.

    What only the network around it can tell (tied parameters, other readers) is not asked. Every forward pass asks
    this, also under torch.compile, so that it only looks into dictionaries.

    Args:
        module: The module.
        kind: The type that it must be of, not derived from.

    Returns:
        The reason, which follows the module's name in a sentence, or None where it is plain.
    """
    if type(module) is not kind:
        if "parametrizations" in module._modules:
            return "has a parametrization"
        return f"is a {type(module).__name__}, not {kind.__name__} itself"
    if module._forward_hooks or module._forward_pre_hooks:
        return "has forward hooks"
    if module._backward_hooks or module._backward_pre_hooks:
        return "has backward hooks"
    if _is_patched(module.forward, kind.forward) or _is_patched(module._call_impl, nn.Module._call_impl):
        return "has a forward of its own"
    if isinstance(module, nn.Conv2d) and _is_patched(module._conv_forward, nn.Conv2d._conv_forward):
        return "has a forward of its own"
    return who_sees_all()


def who_sees_all() -> str | None:
    """The hooks of all modules that are registered, in the words of `why_not_plain`."""
    if every._global_forward_hooks or every._global_forward_pre_hooks:
        return "is seen by forward hooks of all modules"
    if every._global_backward_hooks or every._global_backward_pre_hooks:
        return "is seen by backward hooks of all modules"
    return None


def _is_patched(method: Callable[..., Any], function: Callable[..., Any]) -> bool:
    # Not `name in vars(module)`: torch.compile would not see that change.
    return type(method) is not MethodType or method.__func__ is not function
