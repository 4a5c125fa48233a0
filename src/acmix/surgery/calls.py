"""Who is called in a trace of torch.fx, how often, and who reads what they return."""

from collections import Counter

from torch import fx, nn
from torch.utils import _pytree as pytree

from acmix.plain import why_not_plain
from acmix.surgery.identity import names_of_modules

# What returns its input in evaluation mode; by name, as timm takes seconds to load.
_DROPS = {
    "torch.nn.modules.dropout.Dropout",
    "torch.nn.modules.dropout.Dropout2d",
    "timm.layers.drop.DropPath",
    "torchvision.ops.stochastic_depth.StochasticDepth",
}


def is_identity(module: nn.Module) -> bool:
    """Whether a module returns its input: plain identities do, and what drops something in training alone."""
    kind = type(module)
    drops = f"{kind.__module__}.{kind.__qualname__}" in _DROPS and not module.training
    return why_not_plain(module, kind if drops else nn.Identity) is None


class Calls:
    """The calls of modules in one trace.

    Args:
        root: Whose names the graph has.
        network: What was traced; its forward pass may have left values on its modules.
        graph: The trace.

    Attributes:
        graph: The trace.
        nodes: Of every module that is called its calls.
        modules: Of every call its module.
    """

    def __init__(self, root: nn.Module, network: nn.Module, graph: fx.Graph) -> None:
        named = {name: module for module, name in names_of_modules(root).items()}
        self.graph = graph
        self.modules = {node: named[str(node.target)] for node in graph.find_nodes(op="call_module")}
        self.nodes: dict[nn.Module, list[fx.Node]] = {}
        for node, module in self.modules.items():
            self.nodes.setdefault(module, []).append(node)
        self._inside: Counter[nn.Module] = Counter()
        for module in self.nodes:
            self._inside.update(set(module.modules()) - {module})
        values = pytree.tree_leaves([[*vars(module).values()] for module in network.modules()])
        # What the forward pass has left on modules for others to read.
        self._stored = {value.node for value in values if isinstance(value, fx.Proxy)}

    def why_not_once(self, module: nn.Module) -> str | None:
        """Why a module is not called once, and its parts by it alone, or None; one may not be called at all."""
        count = len(self.nodes.get(module, []))
        if module in self._inside:
            return "is part of a module that is not looked into"
        if count > 1:
            return f"is called {count} times"
        if any(part in self.nodes or self._inside[part] > 1 for part in set(module.modules()) - {module}):
            return "has a part that others call"
        return None

    def source(self, node: fx.Node) -> fx.Node | None:
        """What a call reads, if that is one value: past identities, which return it."""
        if len(node.args) != 1 or node.kwargs or not isinstance(node.args[0], fx.Node):
            return None
        return self.made(node.args[0])

    def made(self, node: fx.Node) -> fx.Node | None:
        """Where a value was made, past identities."""
        return self.source(node) if self.is_identity(node) else node

    def readers(self, node: fx.Node) -> list[fx.Node | None]:
        """Who reads a value, past identities; None stands for somebody who may read it after the forward pass."""
        found: list[fx.Node | None] = [None] if self.is_stored(node) else []
        for reader in node.users:
            found += self.readers(reader) if self.is_identity(reader) else [reader]
        return found

    def next(self, node: fx.Node) -> fx.Node:
        """What is computed after a call, but for identities."""
        node = node.next
        while self.is_identity(node):
            node = node.next
        return node

    def is_stored(self, node: fx.Node) -> bool:
        """Whether the forward pass has left a value on a module."""
        return node in self._stored

    def is_identity(self, node: fx.Node) -> bool:
        """Whether a call returns what it reads."""
        module = self.modules.get(node)
        return module is not None and is_identity(module)
