"""Networks as objects: whole copies, modules that others take the place of, who holds a tensor."""

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from types import MethodType
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils import _pytree as pytree

_Module = TypeVar("_Module", bound=nn.Module)


def copy_network(network: _Module) -> _Module:
    """A deep copy that computes the same without the original.

    A hook that is a method of one of the network's modules, or a functools.partial of one, belongs to the copied module
    then. Any other hook is the same function or object in both: what it holds (a closure, a recorder) is not copied.
    Tensors that hooks left on modules, of old-style weight norm say, are copied without their history.
    """
    modules = set(network.modules())
    # deepcopy takes what the memo holds in place of a copy.
    memo: dict[int, Any] = {}
    for module in modules:
        memo.update({id(hook): hook for hook in hooks(module) if not modules & set(modules_of(hook))})
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(network, memo)


def become(module: nn.Module, other: nn.Module) -> None:
    """Make a module what another is, in place: its hooks stay, and so do all names and references of it."""
    kept = {name: value for name, value in vars(module).items() if name.endswith("_hooks")}
    vars(module).clear()
    vars(module).update(vars(other) | kept)
    module.__class__ = type(other)


def exchange(network: nn.Module, others: Mapping[nn.Module, nn.Module]) -> None:
    """Put modules in the place of some of a network, wherever its modules hold those: under any name, in any list."""

    def other(module: nn.Module) -> nn.Module:
        return others.get(module, module)

    for module in [*network.modules()]:
        for name, value in vars(module).items():
            held = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, nn.Module)]
            if not others.keys().isdisjoint(held):
                vars(module)[name] = pytree.tree_map_only(nn.Module, other, value)


def hooks(module: nn.Module) -> Iterator[Callable[..., Any]]:
    """What is called before or after a module's forward and backward passes."""
    for name in ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"):
        yield from getattr(module, name).values()


def has_hooks(module: nn.Module) -> bool:
    """Whether anything is called before or after its forward and backward passes."""
    return next(hooks(module), None) is not None


def modules_of(hook: Any) -> Iterator[nn.Module]:
    """The modules that a hook is bound to: its own, or those of a functools.partial."""
    if isinstance(hook, nn.Module):
        yield hook
    elif isinstance(hook, MethodType):
        yield from modules_of(hook.__self__)
    elif isinstance(hook, functools.partial):
        for value in (hook.func, *hook.args, *hook.keywords.values()):
            yield from modules_of(value)


def names_of_modules(network: nn.Module) -> dict[nn.Module, str]:
    """Every module and its dotted name, the first where it has several."""
    return {module: name for name, module in network.named_modules()}


def tied(network: nn.Module) -> dict[nn.Module, str]:
    """The modules that share a parameter or a buffer with another, and the name of that."""
    owners: dict[int, list[nn.Module]] = {}
    names = names_of_modules(network)
    for module in names:
        for tensor in {*module.parameters(recurse=False), *module.buffers(recurse=False)}:
            owners.setdefault(id(tensor), []).append(module)
    sharing = [modules for modules in owners.values() if len(modules) > 1]
    return {module: names[other] for modules in sharing for module in modules for other in modules if other != module}
