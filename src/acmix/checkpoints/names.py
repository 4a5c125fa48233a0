"""Names of tensors as wrappers and trainers change them, and back."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from torch import nn

# What PyTorch puts between a network and its parts: compilation, sharding (in its old form, too), checkpointing.
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module"}
# DataParallel, DistributedDataParallel, averages.
_PARALLEL = "module."


def check_state_dict(state_dict: object) -> None:
    """Raise TypeError for what is no mapping of names: a network, a path, pairs."""
    if isinstance(state_dict, Mapping) and all(isinstance(name, str) for name in state_dict):
        return
    hint = "; give its .state_dict()" if isinstance(state_dict, nn.Module) else ""
    hint = "; acmix.checkpoints.load_state_dict reads a file" if isinstance(state_dict, str | Path) else hint
    raise TypeError(f"state_dict must be a mapping of names to tensors, got {type(state_dict).__name__}{hint}")


def without_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Names as they are without PyTorch's wrappers, by the names as they were.

    `_orig_mod`, `_fsdp_wrapped_module` and `_checkpoint_wrapped_module` are taken out wherever they stand, `module.`
    from the beginning if all names have it.

    Raises:
        ValueError: If two names become one.
    """
    plain = {name: ".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in names}
    while plain and all(name.startswith(_PARALLEL) for name in plain.values()):
        plain = {name: short.removeprefix(_PARALLEL) for name, short in plain.items()}
    first: dict[str, str] = {}
    for name, short in plain.items():
        if (other := first.setdefault(short, name)) != name:
            raise ValueError(f"{other} and {name} are both {short} without their wrappers; leave one out")
    return plain


def prefix_of(wanted: Collection[str], names: Iterable[str]) -> str:
    """What stands before the wanted names in most of the names: "" or for instance "model.".

    Nothing decides but how many of the wanted names follow. "" is taken if no prefix has more.

    Raises:
        ValueError: If two prefixes have as many, a student's and a teacher's for instance.
    """
    counts: Counter[str] = Counter()
    for name in names:
        starts = (0, *(at + 1 for at, letter in enumerate(name) if letter == "."))
        counts.update(name[:start] for start in starts if name[start:] in wanted)
    most = max(counts.values(), default=0)
    best = [prefix for prefix, count in counts.items() if count == most]
    if not best or "" in best:
        return ""
    if len(best) > 1:
        raise ValueError(
            f"the weights stand there {len(best)} times, under {', '.join(map(repr, best[:4]))}; keep those of one"
        )
    return best[0]
