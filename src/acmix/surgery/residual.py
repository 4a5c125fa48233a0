"""Residual bottlenecks around an operator, each read off a trace of itself, and made one module."""

import operator as functions
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from acmix.plain import why_not_plain
from acmix.surgery.bottleneck import FusedBottleneck, is_pointwise
from acmix.surgery.calls import Calls, is_identity
from acmix.surgery.fused import FusedACmix
from acmix.surgery.identity import become, has_hooks
from acmix.surgery.norms import kind_of_norm
from acmix.surgery.reading import UntraceableError, choices_of_arguments, traces

_SUMS = (functions.add, functions.iadd, torch.add, "add", "add_")
_SUMS_IN_PLACE = (functions.iadd, "add_")
# Kinds of modules that return what nobody else holds.
_ANEW = (nn.Conv2d, FusedACmix, nn.ReLU, nn.AvgPool2d, nn.MaxPool2d)


class Bottleneck(NamedTuple):
    """What a block computes: relu(last(operator(before(x))) + shortcut(x)).

    Attributes:
        before: What stands before the operator, in order.
        operator: The operator.
        last: The convolution of its output.
        shortcut: What stands on the shortcut, in order.
        rectified_input: Whether a ReLU stands between that and the operator.
        rectified: Whether one stands between the operator and the last convolution.
        relus: Those, and the one at last.
    """

    before: list[nn.Module]
    operator: FusedACmix
    last: nn.Conv2d
    shortcut: list[nn.Module]
    rectified_input: bool
    rectified: bool
    relus: set[nn.Module]


def join_bottlenecks(
    network: nn.Module,
    names: Mapping[nn.Module, str],
    obstacles: Mapping[nn.Module, str],
    features: Collection[nn.Module],
) -> dict[nn.Module, Bottleneck | str]:
    """Make one module of every block in which a 1x1 convolution follows an operator, in place.

    Args:
        network: In evaluation mode, its operators fused.
        names: Of its modules.
        obstacles: Modules that stay as they are, and why.
        features: Modules whose outputs others may ask for.

    Returns:
        Of every such block what it computes, or why it stays.
    """
    found: dict[nn.Module, Bottleneck | str] = {}
    for block in filter(_may_be_one, names):
        read = _read(block)
        if isinstance(read, Bottleneck):
            read = _why_not_apart(block, read, names, obstacles, features) or read
        if read is not None:
            found[block] = read
    found |= _why_not_alone(network, {block for block, read in found.items() if isinstance(read, Bottleneck)})
    for block, read in found.items():
        if isinstance(read, Bottleneck):
            read.operator.rectified_input |= read.rectified_input
            read.operator.rectified |= read.rectified
            become(block, FusedBottleneck(read.before, read.operator, read.last, read.shortcut).eval())
    return found


def _may_be_one(block: nn.Module) -> bool:
    if isinstance(block, FusedBottleneck) or not _computes(block) or _is_chain(block):
        return False
    parts = [*_parts(block)]
    return any(isinstance(part, FusedACmix) for part in parts) and any(is_pointwise(part) for part in parts)


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """What a block calls, or may: its modules, and those in rows and lists of them."""
    for child in module.children():
        yield from [child] if _computes(child) and not _is_chain(child) else _parts(child)


def _computes(module: nn.Module) -> bool:
    return type(module).forward is not nn.Module.forward


def _is_chain(module: nn.Module) -> bool:
    return type(module).forward is nn.Sequential.forward and why_not_plain(module, type(module)) is None


def _read(block: nn.Module) -> Bottleneck | str | None:
    """What a block computes, why it is no bottleneck, or None where no 1x1 convolution follows an operator."""
    watched = {part for part in block.modules() if part is not block and not (_is_chain(part) or is_identity(part))}
    try:
        (names, *others), (trace, *_) = choices_of_arguments(block), traces(block, watched)
    except UntraceableError as error:
        return f"cannot be looked into: {error}"
    modules = {node: trace.originals[copy] for node, copy in trace.calls.modules.items()}
    rows = _Rows(trace.calls, modules)
    last = next(
        (node for node in modules if is_pointwise(modules[node]) and rows.operator_before(node) is not None), None
    )
    if last is None:
        return None
    if any(map(has_hooks, {*block.modules()} - {block})):
        return "holds a module with hooks"
    if len(names) != 1 or others:
        return "takes more than its input"
    return "keeps what it computes" if trace.written else rows.bottleneck(last)


class _Rows:
    """Modules that are called in rows in the trace of a block.

    Args:
        calls: The trace, of a copy.
        modules: Of every call the block's module.
    """

    def __init__(self, calls: Calls, modules: Mapping[fx.Node, nn.Module]) -> None:
        self._calls, self._modules = calls, modules

    def operator_before(self, last: fx.Node) -> fx.Node | None:
        """The call of the operator whose output a convolution reads, through a ReLU or not."""
        source = self._calls.source(last)
        if source is not None and self._is_relu(source):
            source = self._calls.source(source)
        return source if source is not None and isinstance(self._modules.get(source), FusedACmix) else None

    def bottleneck(self, last: fx.Node) -> Bottleneck | str:
        """What the block computes, of which this is the last convolution, or why that is something else."""
        (output,), (x,) = (self._calls.graph.find_nodes(op=op) for op in ("output", "placeholder"))
        relu = self._made(output.args[0])
        total = self._calls.source(relu) if relu is not None and self._is_relu(relu) else None
        summands = [] if total is None else self._summands(total)
        if relu is None or total is None or last not in summands:
            return "has more behind its last convolution than a shortcut and a ReLU"
        row, shortcut = self._row(last), self._row(summands[1 - summands.index(last)])
        if row is None or shortcut is None:
            return "has more than modules in rows before its last convolution or on its shortcut"
        ways = [x, *row, total, relu, output], [x, *shortcut, total]
        readers: dict[fx.Node, set[fx.Node]] = {output: set()}
        for way in ways:
            for node, reader in pairwise(way):
                readers.setdefault(node, set()).add(reader)
        others = [node for node in self._calls.graph.nodes if not self._calls.is_identity(node)]
        if any({*self._calls.readers(node)} != readers.get(node) for node in others) or len(readers[x]) != 2:
            return "computes more than its output"
        writes = total.target in _SUMS_IN_PLACE and summands[0] is not last
        if writes or not all(node is total or _makes_anew(self._modules[node]) for node in readers[x]):
            return "may change its input"
        return self._put_together(row, shortcut, self._modules[relu])

    def _put_together(self, row: list[fx.Node], shortcut: list[fx.Node], relu: nn.Module) -> Bottleneck:
        before: list[Any] = [self._modules[node] for node in row]
        last, relus, rectified = before.pop(), {relu}, False
        if self._is_relu(row[-2]):
            relus.add(before.pop())
            rectified = True
        layer = before.pop()
        # One in place may write into what the module before it keeps.
        ahead = before[-1] if before and self._is_relu(row[len(before) - 1]) else None
        rectified_input = ahead is not None and (not ahead.inplace or _makes_anew(*before[-2:-1]))
        if rectified_input:
            relus.add(before.pop())
        beside = [self._modules[node] for node in shortcut]
        return Bottleneck(before, layer, last, beside, rectified_input, rectified, relus)

    def _row(self, node: fx.Node | None) -> list[fx.Node] | None:
        """The calls of modules that make a value of the block's input, in order, or None if something else does."""
        row: list[fx.Node] = []
        while node is not None and node.op != "placeholder":
            if node not in self._modules:
                return None
            row.insert(0, node)
            node = self._calls.source(node)
        return None if node is None else row

    def _summands(self, total: fx.Node) -> list[fx.Node | None]:
        is_sum = total.op != "call_module" and total.target in _SUMS
        return [*map(self._made, total.args)] if is_sum and len(total.args) == 2 and not total.kwargs else []

    def _made(self, value: Any) -> fx.Node | None:
        return self._calls.made(value) if isinstance(value, fx.Node) else None

    def _is_relu(self, node: fx.Node) -> bool:
        module = self._modules.get(node)
        return module is not None and why_not_plain(module, nn.ReLU) is None


def _makes_anew(module: nn.Module) -> bool:
    """Whether a module returns what nobody else holds, and writes into nothing."""
    kind = kind_of_norm(module) or next((kind for kind in _ANEW if isinstance(module, kind)), None)
    return kind is not None and why_not_plain(module, kind) is None and not getattr(module, "inplace", False)


def _why_not_apart(
    block: nn.Module,
    read: Bottleneck,
    names: Mapping[nn.Module, str],
    obstacles: Mapping[nn.Module, str],
    features: Collection[nn.Module],
) -> str | None:
    """Why others could tell a block's parts from one module, or None."""
    layer = read.operator
    reasons = [
        (block, obstacles.get(block)),
        (layer, obstacles.get(layer) or why_not_plain(layer, FusedACmix)),
        (layer.qkv, obstacles.get(layer.qkv) or why_not_plain(layer.qkv, nn.Conv2d)),
        *((part, obstacles.get(part)) for part in (read.last, *read.relus)),
    ]
    for part, reason in reasons:
        if reason is not None:
            return reason if part is block else f"holds {names[part]}, which {reason}"
    if why_not_plain(block, type(block)) is not None:
        return why_not_plain(block, type(block))
    return "holds a feature of the network" if ({*block.modules()} - {block}) & {*features} else None


def _why_not_alone(network: nn.Module, blocks: Collection[nn.Module]) -> dict[nn.Module, str]:
    """Of the blocks that a network does more with than to call them once on one value, what that is."""
    reasons: dict[nn.Module, str] = {}
    if not blocks or network in blocks:
        return reasons
    try:
        for calls, originals, reads, written in traces(network, blocks, typed=True):
            for copy, block in originals.items():
                if block not in blocks:
                    continue
                reason = calls.why_not_once(copy)
                if any(len(node.args) != 1 or node.kwargs for node in calls.nodes.get(copy, [])):
                    reason = "is called with keywords"
                if block in reads:
                    reason = f"is read by the network: {reads[block]}"
                if block in written:
                    reason = "is changed by the network"
                if reason is not None:
                    reasons[block] = reason
    except UntraceableError as error:
        return dict.fromkeys(blocks, f"is part of a network: torch.fx cannot trace it: {error}")
    return reasons
