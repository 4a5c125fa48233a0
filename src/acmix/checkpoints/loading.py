"""State dicts into networks: all that belongs together or nothing, and what was left out is said."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from acmix.checkpoints.names import check_state_dict, prefix_of, without_wrappers
from acmix.checkpoints.published import from_published

# How many batches a norm has seen: of no effect but for a norm without a momentum.
_COUNTER = "num_batches_tracked"
_FLOATING = "floating-point numbers"
_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class LoadedWeights:
    """What `load_weights` did.

    Attributes:
        loaded: Names of the network's tensors that were loaded, as the network has them.
        kept: Names of those that are as they were: counters of batches that the weights lack, heads of another size.
        unused: Names of weights that the network has no place for, without wrappers.
        prefix: What stood before the names of the weights: "", or "model." for instance.
    """

    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    unused: tuple[str, ...]
    prefix: str

    def __str__(self) -> str:
        """Everything that was left out in one line."""
        count = len(self.loaded) + len(self.kept)
        parts = [
            f"{len(self.loaded)} of {count} tensors loaded{f', from under {self.prefix!r}' if self.prefix else ''}"
        ]
        parts += [f"left as they were: {shorten(self.kept)}"] if self.kept else []
        parts += [f"not used: {shorten(self.unused)}"] if self.unused else []
        return "; ".join(parts)


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor], *, heads: Sequence[str] = ()) -> LoadedWeights:
    """Load weights under our or the published names into a network; all of them or, on a mismatch, none.

    Names may be as wrappers and trainers change them: `_orig_mod`, `_fsdp_wrapped_module` and
    `_checkpoint_wrapped_module` anywhere, and before all names of the network whatever stands there: `module.`,
    `model.`, `net.`, ... in one another. What stands before is found by the network's own names alone; weights that
    hold the network twice are refused. With such a prefix, weights beside it (a loss's, a metric's, an average's count)
    are not used.

    Args:
        model: An `ACmix` or a network, changed in place.
        state_dict: Exactly the model's weights in floating point, apart from `num_batches_tracked`, which may lack or
            be too many; see `from_published` for the names. Not modified.
        heads: Names of modules, a classifier's for instance, that may stay as they are: each does whose weights lack
            or have another shape.

    Returns:
        What was loaded, left as it was, and not used.

    Raises:
        TypeError: If `state_dict` is no mapping of names.
        ValueError: If a key is missing or unexpected, a shape differs, two names or prefixes contradict each other, or
            a tensor cannot be copied as it is (integers for floating point, quantised, sparse, without data, not finite
            in the network's dtype), naming them.
    """
    check_state_dict(state_dict)
    names, own = _tensors(model)
    if unusable := [f"{name} {fault}" for name, tensor in state_dict.items() if (fault := _unusable(tensor))]:
        raise ValueError(f"state_dict must hold plain tensors; {shorten(unusable)}")
    renamed = from_published(state_dict)
    prefix = prefix_of(own, renamed)
    given = {name.removeprefix(prefix): tensor for name, tensor in renamed.items() if name.startswith(prefix)}
    kept = _kept(own, given, heads)
    taken = [name for name in own if name in given and name not in kept]
    faults = _faults(own, given, taken, kept) | {
        "unexpected": [name for name in given if name not in own and _part(name, heads) is None],
    }
    if any(faults.values()):
        listed = "; ".join(f"{fault}: {shorten(items)}" for fault, items in faults.items() if items)
        under = f" under {prefix!r}" if prefix else ""
        raise ValueError(f"state_dict must hold exactly the weights of {type(model).__name__}{under}; {listed}")
    weights = OrderedDict((names[name], given[name]) for name in taken)
    # Some modules (torchvision's MNASNet) ask for the version of weights, which files hardly hold: what has exactly a
    # network's names and shapes is of its own.
    weights._metadata = getattr(model.state_dict(keep_vars=True), "_metadata", None)  # type: ignore[attr-defined]
    model.load_state_dict(weights, strict=False)
    return LoadedWeights(
        loaded=tuple(names[name] for name in taken),
        kept=tuple(names[name] for name in kept),
        unused=tuple(name for name in renamed if not name.startswith(prefix) or name.removeprefix(prefix) not in own),
        prefix=prefix,
    )


def shorten(items: Sequence[str]) -> str:
    """The first of many names, and how many more there are."""
    rest = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _tensors(model: nn.Module) -> tuple[dict[str, str], dict[str, Tensor]]:
    """A network's own names, and its tensors, by the names without wrappers."""
    actual = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if isinstance(tensor, Tensor)}
    # Copying to what has no memory does nothing, without a word.
    if empty := [name for name, tensor in actual.items() if tensor.is_meta or is_lazy(tensor)]:
        raise ValueError(
            f"{type(model).__name__} must have tensors to load into, it has no data for {shorten(empty)}; "
            "call to_empty on it, or a lazy network once"
        )
    names = {plain: name for name, plain in without_wrappers(actual).items()}
    return names, {plain: actual[name] for plain, name in names.items()}


def _unusable(tensor: object) -> str | None:
    """Why a tensor cannot be copied into any network."""
    if not isinstance(tensor, Tensor):
        return f"is no tensor but {type(tensor).__name__}"
    if tensor.is_meta or is_lazy(tensor):
        return "has no data"
    if tensor.is_quantized or tensor.layout is not torch.strided:
        return f"is {'quantised' if tensor.is_quantized else 'sparse'}"
    return None


def _part(name: str, heads: Sequence[str]) -> str | None:
    """The part of a network that may stay as it is, to which a tensor belongs: a head, or a counter by itself."""
    if _counts(name):
        return name
    return next((head for head in heads if name.startswith(f"{head}.")), None)


def _kept(own: Mapping[str, Tensor], given: Mapping[str, Tensor], heads: Sequence[str]) -> list[str]:
    """What stays as it is: heads and counters of which the weights lack a tensor or have one of another shape."""
    parts = {
        _part(name, heads)
        for name, tensor in own.items()
        # An average of counts is no count.
        if name not in given or given[name].shape != tensor.shape or (_counts(name) and given[name].is_floating_point())
    }
    return [name for name in own if (part := _part(name, heads)) is not None and part in parts]


def _counts(name: str) -> bool:
    return name.rpartition(".")[2] == _COUNTER


def _faults(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], taken: Sequence[str], kept: Sequence[str]
) -> dict[str, list[str]]:
    """What forbids to load the tensors taken and to keep those kept, by kind."""
    # A tensor of two names may be there under one of them.
    there = {id(own[name]) for name in (*taken, *kept)}
    return {
        "missing": [name for name, tensor in own.items() if id(tensor) not in there],
        "wrong shape": [
            f"{name} must be {tuple(own[name].shape)}, got {tuple(given[name].shape)}"
            for name in taken
            if own[name].shape != given[name].shape
        ],
        "unusable": [f"{name} {fault}" for name in taken if (fault := _misfit(own[name], given[name]))],
        "contradictory": _contradictions({name: own[name] for name in taken}, given),
    }


def _contradictions(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Tensors of the network that have two names, and two values in the weights."""
    first: dict[int, str] = {}
    return [
        f"{other} and {name} are one tensor in the network and two in the weights"
        for name, tensor in own.items()
        if (other := first.setdefault(id(tensor), name)) != name
        and not torch.equal(given[other].to(tensor.dtype), given[name].to(tensor.dtype))
    ]


def _misfit(own: Tensor, given: Tensor) -> str | None:
    """Why values of a tensor cannot stand in another's place."""
    if _kind(own) != _kind(given):
        return f"must hold {_kind(own)}, got {given.dtype}"
    if _kind(own) != _FLOATING:
        return None
    finite = given.to(own.dtype).isfinite()
    if not isinstance(own, nn.Parameter) and own.shape == given.shape:
        # Masks, for instance, that hold minus infinity by design.
        finite |= ~own.isfinite().to(finite.device)
    return None if finite.all() else f"holds NaN or infinity in {own.dtype}"


def _kind(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex numbers"
    # Numbers of eight bits are of no use without a scale.
    if tensor.is_floating_point():
        return _FLOATING if tensor.dtype.itemsize > 1 else str(tensor.dtype)
    return "integers"
