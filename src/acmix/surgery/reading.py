"""What a network does with its layers, read off traces of torch.fx: who calls them, and who else reads what."""

import builtins
import inspect
import itertools
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import iadd, is_
from typing import Any, NamedTuple, NoReturn, get_args

from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from acmix.errors import first_line
from acmix.plain import who_sees_all
from acmix.surgery.activations import End, Side, find_ends
from acmix.surgery.calls import Calls, is_identity
from acmix.surgery.identity import copy_network, has_hooks

# Each may be given or left out, which is twice the traces.
_MOST_OPTIONAL_ARGUMENTS = 3
# What a layer keeps when weights change.
_KEPT = {*nn.Conv2d.__constants__, "training"}


@dataclass
class Reading:
    """What all traces of a network say of its layers and the norms behind them.

    Attributes:
        behind: What a norm reads, and a layer is read by, in any trace: a module where it is called once, reads its one
            argument from that layer, or is read by that norm alone; else the reason, in words.
        read: Layers, norms and ReLUs that the network uses otherwise than by calling them, and what it reads of them.
        ends: Where a ReLU stands in any trace; see `find_ends`.
        beside: Of an operator, and of each of its sides, the ReLU there in any trace, or None.
    """

    behind: dict[nn.Module, dict[nn.Module | str, None]] = field(default_factory=dict)
    read: dict[nn.Module, str] = field(default_factory=dict)
    ends: dict[nn.Module, dict[End | str | None, None]] = field(default_factory=dict)
    beside: dict[tuple[nn.Module, Side], dict[nn.Module | None, None]] = field(default_factory=dict)

    def layer_before(self, norm: nn.Module) -> nn.Module | str:
        """The layer whose output a norm alone reads, or why there is none, a sentence's end after the norm's name."""
        (before, *others) = self.behind.get(norm, {"is not called": None})
        if others or isinstance(before, str):
            return before if isinstance(before, str) else "follows one layer or another"
        after = self.behind[before]
        if after.keys() == {norm}:
            return before
        return next(
            (f"follows a layer that {reason}" for reason in after if isinstance(reason, str)), "shares its layer"
        )

    def end_of(self, relu: nn.Module) -> End | str | None:
        """Where a ReLU stands, why no operator may take it in, or None if it stands beside none."""
        (end, *others) = self.ends.get(relu, {None: None})
        if others:
            return "stands elsewhere when the network is called otherwise"
        if isinstance(end, End) and self.beside[end.operator, end.side].keys() != {relu}:
            return "is left out when the network is called otherwise"
        return end


class UntraceableError(Exception):
    """A network that torch.fx cannot trace; the message says why."""


def read_network(
    network: nn.Module,
    layers: Collection[nn.Module],
    norms: Collection[nn.Module],
    operators: Collection[nn.Module] = (),
    relus: Mapping[nn.Module, nn.Module] | None = None,
) -> Reading:
    """Read off `traces` what a network does with its layers, norms and ReLUs.

    Args:
        network: In evaluation mode.
        layers: Modules of it that a norm could be folded into.
        norms: Its norms.
        operators: Those of the layers that may take a ReLU in.
        relus: Its ReLUs; see `find_ends`.

    Raises:
        UntraceableError: If a trace does not say what the network computes.
    """
    reading = Reading()
    for calls, originals, reads, _ in traces(network, {*layers, *norms, *(relus or {})}):
        reading.read |= reads
        copies = {original: module for module, original in originals.items()}
        for module, found in _relations(calls, [copies[m] for m in layers], [copies[m] for m in norms]):
            value = originals[found] if isinstance(found, nn.Module) else found
            # A dictionary, since sets have no order and the reasons one.
            reading.behind.setdefault(originals[module], {})[value] = None
        copied_relus = {copies[relu]: copies[called] for relu, called in (relus or {}).items()}
        taken: dict[tuple[nn.Module, Side], nn.Module] = {}
        for relu, end in find_ends(calls, [copies[m] for m in operators], [copies[m] for m in norms], copied_relus):
            if isinstance(end, End):
                neighbour = None if end.neighbour is None else originals[end.neighbour]
                end = end._replace(operator=originals[end.operator], neighbour=neighbour)
                taken[end[:2]] = originals[relu]
            reading.ends.setdefault(originals[relu], {})[end] = None
        for operator in operators:
            for side in get_args(Side) if copies[operator] in calls.nodes else ():
                reading.beside.setdefault((operator, side), {})[taken.get((operator, side))] = None
    return reading


class Traced(NamedTuple):
    """One trace of a copy of a network.

    Attributes:
        calls: Of the copy's modules.
        originals: Of those the network's.
        reads: Modules of the network that it uses otherwise than by calling them, and what it reads of them.
        written: Modules of the network whose attributes are others then.
    """

    calls: Calls
    originals: dict[nn.Module, nn.Module]
    reads: dict[nn.Module, str]
    written: set[nn.Module]


def traces(network: nn.Module, watched: Collection[nn.Module], typed: bool = False) -> Iterator[Traced]:
    """Trace a network, once for each choice of its optional arguments.

    Copies are traced, so that the network and what its forward writes stay as they are. A module with hooks is not
    looked into, since a hook may read any layer in it. A branch on whether a value is a tensor is taken as for one.

    Args:
        network: In evaluation mode.
        watched: Modules of it that are not looked into.
        typed: Whether asking for the type of one of those is a read, too.

    Raises:
        UntraceableError: If a trace does not say what the network computes.
    """
    reason = who_sees_all()
    if reason is not None:
        raise UntraceableError(f"it {reason}")
    for names in choices_of_arguments(network):
        copied = copy_network(network)
        originals = dict(zip(copied.modules(), network.modules(), strict=True))
        trace = _Trace(copied, {module for module in originals if originals[module] in watched}, typed)
        before = _held(copied)
        graph = trace.run(names)
        written = {originals[module] for module, held in _held(copied).items() if not _same(held, before[module])}
        reads = {originals[module]: attribute for module, attribute in trace.reads.items()}
        yield Traced(Calls(trace.root, copied, graph), originals, reads, written)


def _held(network: nn.Module) -> dict[nn.Module, tuple[list[Any], Any]]:
    """What every module holds: values, and where."""
    return {module: pytree.tree_flatten(dict(vars(module))) for module in network.modules()}


def _same(held: tuple[list[Any], Any], other: tuple[list[Any], Any]) -> bool:
    return held[1] == other[1] and all(map(is_, held[0], other[0]))


def choices_of_arguments(network: nn.Module) -> list[list[str]]:
    """Names of the arguments in each way to call the network: the necessary ones and any of the optional."""
    try:
        parameters = inspect.signature(network.forward).parameters.values()
    except ValueError as error:
        raise UntraceableError(str(error)) from error
    kinds = {parameter.kind for parameter in parameters}
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY}:
        raise UntraceableError("its forward does not name all of its arguments")
    necessary = [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]
    optional = [parameter.name for parameter in parameters if parameter.name not in necessary]
    if len(optional) > _MOST_OPTIONAL_ARGUMENTS:
        raise UntraceableError(f"its forward has {len(optional)} optional arguments")
    counts = range(len(optional) + 1)
    return [[*necessary, *some] for count in counts for some in itertools.combinations(optional, count)]


class _Trace(fx.Tracer):
    """Traces a network whose layers are leaves, and notes what else is read of them.

    Attributes:
        reads: Layers of which the network reads an attribute, or a tensor by another way.
    """

    proxy_buffer_attributes = True

    def __init__(self, network: nn.Module, watched: Collection[nn.Module], typed: bool) -> None:
        super().__init__()
        self.network, self.watched, self.typed = network, watched, typed
        self.reads: dict[nn.Module, str] = {}

    def run(self, names: Collection[str]) -> fx.Graph:
        """Call the network with these arguments.

        Raises:
            UntraceableError: If that is not possible.
        """
        for module in self.watched:
            _tell_of_reads(module, self.reads)
        tensors = _TensorsUsed()
        try:
            with self._types_as_called(), tensors:
                graph = self.trace(_Call(self.network, self, names))
        # Any code of the network may run into a proxy in any way.
        except Exception as error:
            raise UntraceableError(_in_words(error)) from error
        used = tensors.seen | {id(_attribute(self.root, node.target)) for node in graph.find_nodes(op="get_attr")}
        for module in self.watched:
            for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
                if id(tensor) in used:
                    self.reads[module] = name
        return graph

    @contextmanager
    def _types_as_called(self) -> Iterator[None]:
        """Let `isinstance` see a tensor in a proxy of one: a trace may not take another branch than the network."""
        genuine: Any = builtins.isinstance
        typed = {id(module): module for module in self.watched} if self.typed else {}

        def isinstance_of(value: Any, kinds: Any) -> bool:
            module = typed.get(id(value))
            if _called_by_torch() or (module is None and type(value) is not _Value):
                return genuine(value, kinds)
            if module is not None:
                self.reads[module] = "its type"
                return genuine(value, kinds)
            if value.node.op not in ("placeholder", "call_module"):
                raise fx.proxy.TraceError("it asks for the type of what it computes")
            return issubclass(Tensor, kinds)

        builtins.isinstance = isinstance_of  # type: ignore[assignment]
        try:
            yield
        finally:
            builtins.isinstance = genuine

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaf = m in self.watched or isinstance(m, nn.modules.conv._ConvNd) or has_hooks(m)
        return leaf or is_identity(m) or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:  # noqa: ARG002  fx's signature
        raise fx.proxy.TraceError("it decides by what it computes")

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:  # noqa: ARG002  fx's signature
        raise fx.proxy.TraceError("it goes through the parts of what it computes, one by one")


class _Call(nn.Module):
    """A call of a network: its own hooks and a forward of its own are part of it."""

    def __init__(self, network: nn.Module, tracer: fx.Tracer, names: Collection[str]) -> None:
        super().__init__()
        self.network, self.tracer, self.names = network, tracer, names

    def forward(self) -> Any:
        return self.network(**{name: self.tracer.create_proxy("placeholder", name, (), {}) for name in self.names})


class _Value(fx.Proxy):
    """A proxy with the attributes of a tensor and no others: `hasattr` is to say what it will say."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        # As a proxy has it, it would be a sum of its own.
        return self.tracer.create_proxy("call_function", iadd, (self, other), {})

    def __setitem__(self, *_: Any) -> NoReturn:
        raise fx.proxy.TraceError("it writes into a part of what it is given or computes")

    def __len__(self) -> int:
        raise fx.proxy.TraceError("it counts the parts of what it computes")

    def __getattr__(self, k: str) -> Any:
        if not hasattr(Tensor, k):
            raise AttributeError(f"a tensor has no attribute {k}")
        return super().__getattr__(k)


def _in_words(error: Exception) -> str:
    """Why a trace ended; what Python or PyTorch says of a proxy tells a person nothing."""
    reason = first_line(error)
    told = _Value.__name__ not in reason and "Proxy" not in reason
    return reason if told else "it does with what it computes what a trace cannot follow"


def _called_by_torch() -> bool:
    """Whether the caller's caller is a module within PyTorch."""
    name: str = sys._getframe(2).f_globals.get("__name__", "")
    return name.startswith(("torch.", __name__))


class _TensorsUsed(TorchFunctionMode):
    """Notes every tensor that a function of PyTorch is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.update(map(id, pytree.tree_leaves((args, kwargs))))
        return func(*args, **(kwargs or {}))


def _tell_of_reads(module: nn.Module, reads: dict[nn.Module, str]) -> None:
    """Note what the network reads of a layer: a fold changes it, or takes it away."""
    kind = type(module)
    kept = _KEPT if kind is nn.Conv2d else ()

    def read(self: nn.Module, name: str) -> Any:
        if not name.startswith("_") and name not in kept and not _called_by_torch():
            reads[self] = name
        return kind.__getattribute__(self, name)

    module.__class__ = type(kind.__name__, (kind,), {"__getattribute__": read})


def _attribute(root: nn.Module, target: Any) -> Any:
    value: Any = root
    for name in str(target).split("."):
        value = getattr(value, name)
    return value


def _relations(
    calls: Calls, layers: Collection[nn.Module], norms: Collection[nn.Module]
) -> Iterator[tuple[nn.Module, nn.Module | str]]:
    """Of every layer and norm that is called, which norm and layer it belongs to, or why to none."""
    for module in (*layers, *norms):
        nodes = calls.nodes.get(module, [])
        reason = calls.why_not_once(module)
        if reason is not None:
            yield module, reason
        elif nodes and module in norms:
            yield module, _source(nodes[0], calls, layers)
        elif nodes:
            yield module, _reader(nodes[0], calls, norms)


def _source(node: fx.Node, calls: Calls, layers: Collection[nn.Module]) -> nn.Module | str:
    if len(node.args) != 1 or node.kwargs:
        return "is called with keywords"
    before = calls.modules.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None
    return before if before is not None and before in layers else "follows neither a convolution nor ACmix"


def _reader(node: fx.Node, calls: Calls, norms: Collection[nn.Module]) -> nn.Module | str:
    (reader, *others) = node.users or (None,)
    after = calls.modules.get(reader) if reader is not None else None
    if others or calls.is_stored(node) or after not in norms or after is None:
        return "others read, too"
    return after
