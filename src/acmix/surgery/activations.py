"""ReLUs on both sides of an operator, read off a trace: which of them it may take in."""

from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import Literal, NamedTuple

from torch import fx, nn

from acmix.surgery.calls import Calls

Side = Literal["before", "behind"]


class End(NamedTuple):
    """Where a ReLU stands.

    Attributes:
        operator: Beside which.
        side: Before it, which alone reads what the ReLU returns; or behind it, and reads alone what it returns.
        neighbour: Behind the operator what reads its output, a norm or what is called for the ReLU. Before it the norm
            that ends with the ReLU, or what makes what the ReLU, and nobody else, reads; None where that is no module.
        next: Whether nothing is computed between the ReLU and the operator.
    """

    operator: nn.Module
    side: Side
    neighbour: nn.Module | None
    next: bool = True


def find_ends(
    calls: Calls, operators: Collection[nn.Module], norms: Collection[nn.Module], relus: Mapping[nn.Module, nn.Module]
) -> Iterator[tuple[nn.Module, End | str | None]]:
    """Of every ReLU that is called where it stands, why no operator may take it in, or None if it is beside none.

    Args:
        calls: Of a trace.
        operators: Modules.
        norms: Modules.
        relus: Of every ReLU the module that is called: itself, or a norm of which it is the last part.
    """
    # Norms without a ReLU of their own.
    bare = [norm for norm in norms if norm not in relus.values()]
    for relu, called in relus.items():
        nodes = calls.nodes.get(called, [])
        between = [] if called in norms else bare
        found = [*(_behind(calls, node, operators, between) for node in nodes)]
        found += [_before(calls, node, operators, called if called in norms else None) for node in nodes]
        beside = [end for end in found if end is not None]
        if beside:
            end = next((end for end in beside if isinstance(end, End)), beside[0])
            yield relu, calls.why_not_once(called) or end
        elif nodes:
            yield relu, None


def _behind(
    calls: Calls, node: fx.Node, operators: Collection[nn.Module], norms: Collection[nn.Module]
) -> End | str | None:
    path = [node]
    while calls.modules.get(path[0]) not in operators:
        source = calls.source(path[0])
        known = source is not None and calls.modules.get(source)
        # One norm at most.
        if source is None or not (known in operators or (known in norms and path == [node])):
            return None
        path.insert(0, source)
    if any(calls.readers(one) != [other] for one, other in pairwise(path)):
        return "follows what others read, too"
    operator, after, *_ = (calls.modules[one] for one in path)
    return _checked(calls, End(operator, "behind", after))


def _before(calls: Calls, node: fx.Node, operators: Collection[nn.Module], norm: nn.Module | None) -> End | str | None:
    readers = calls.readers(node)
    operator = next((calls.modules[one] for one in readers if one and calls.modules.get(one) in operators), None)
    if operator is None:
        return None
    if len(readers) > 1 or any(one is None or calls.source(one) != node for one in readers):
        return "is read by others, too"
    source = calls.source(node)
    alone = source is not None and calls.readers(source) == [node]
    neighbour = norm or (calls.modules.get(source) if source is not None and alone else None)
    return _checked(calls, End(operator, "before", neighbour, calls.next(node) in readers))


def _checked(calls: Calls, end: End) -> End | str:
    reason = calls.why_not_once(end.operator)
    return end if reason is None else f"stands beside an operator that {reason}"
