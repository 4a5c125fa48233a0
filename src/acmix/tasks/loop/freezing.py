"""Parts of a network that stay as they are: the first stages, or what patterns name."""

from collections.abc import Container, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any, cast

from timm.models import group_parameters
from torch import nn

from acmix.errors import InputError, counted, nearest

# Parts that a sentence names.
_NAMED = 6


def freeze(network: nn.Module, wanted: int | str, model: str) -> None:
    """Let parameters have no gradients; what has none is not stepped, decayed or averaged.

    Args:
        network: To be trained.
        wanted: How many stages behind the stem, which is frozen with them: 0 is the stem alone; or names of parameters
            and parts, or patterns of such, separated by commas.
        model: The network's name.

    Raises:
        InputError: If there are fewer stages, a pattern matches nothing, or nothing would be left to learn.
    """
    names = _of_stages(network, wanted, model) if isinstance(wanted, int) else _matching(network, wanted, model)
    for name, parameter in network.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError(f"freeze leaves nothing of {model!r} to learn, got {wanted}")


def _of_stages(network: nn.Module, stages: int, model: str) -> set[str]:
    if not hasattr(network, "group_matcher"):
        raise InputError(f"freeze must be names of parts: {model!r} does not tell its stages, got {stages}")
    # timm counts the stem as 0 and the head as the last.
    groups: dict[str, int] = cast("Any", group_parameters)(
        network, cast("Any", network).group_matcher(coarse=True), reverse=True
    )
    if stages > (most := max(groups.values()) - 1):
        raise InputError(f"freeze must be 0 to {most}, the stages of {model!r}, got {stages}")
    return {name for name, group in groups.items() if group <= stages}


def _matching(network: nn.Module, patterns: str, model: str) -> set[str]:
    names = {name: [*_lineage(name)] for name, _ in network.named_parameters()}
    found: set[str] = set()
    wanted = patterns.replace(",", " ").split()
    if not wanted:
        raise InputError(f"freeze must name at least one part, got {patterns!r}; leave it out to freeze nothing")
    for pattern in wanted:
        matched = {name for name, parts in names.items() if any(fnmatchcase(part, pattern) for part in parts)}
        if not matched:
            near = nearest(pattern, {part for parts in names.values() for part in parts})
            raise InputError(
                f"freeze names {pattern!r}, which no parameter of {model!r} matches"
                + (f"; near are {near}" * bool(near))
            )
        found |= matched
    return found


def _lineage(name: str) -> Iterator[str]:
    """A parameter's name, and those of the parts that it lies in."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def train(network: nn.Module) -> None:
    """Put a network into training mode, parts without a parameter that learns into evaluation mode.

    So their norms keep their statistics, and nothing of them is dropped.
    """
    network.train()
    for part in network.modules():
        own = [parameter.requires_grad for parameter in part.parameters()]
        if own and not any(own):
            part.eval()


def described(network: nn.Module) -> str | None:
    """What is frozen, in words; None where nothing is."""
    parameters = dict(network.named_parameters())
    frozen = {name: each for name, each in parameters.items() if not each.requires_grad}
    if not frozen:
        return None
    numbers, total = (sum(each.numel() for each in some.values()) for some in (frozen, parameters))
    parts = _whole_parts(parameters, frozen)
    listed = ", ".join(parts[:_NAMED]) + (f" and {len(parts) - _NAMED} more" if len(parts) > _NAMED else "")
    return f"{numbers:,} of {total:,} parameters in {counted(len(frozen), 'tensor')}: {listed}"


def _whole_parts(names: Iterable[str], frozen: Container[str]) -> list[str]:
    """The largest parts that are frozen as a whole, and single parameters of the others, in their order."""
    names = list(names)
    learning = {part for name in names if name not in frozen for part in _lineage(name)}
    largest = ([part for part in _lineage(name) if part not in learning][-1] for name in names if name in frozen)
    return list(dict.fromkeys(largest))
