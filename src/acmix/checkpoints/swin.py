"""The parameter names of the published ACmix-Swin and ours, in both directions.

Of an attention with N heads of D channels, C = N D, kernels k x k, P = k^2; everything else has the same name:

| published | ours |
|---|---|
| fc.weight (P, 3 N, 1, 1), fc.bias (P,) | convolution.fc_weight (P, 3 N), convolution.fc_bias (P,) |
| dep_conv.weight (C, P, k, k) | convolution.dep_weight (C, P, k, k) |
| rate1 (1,), rate2 (1,) | rate_attention (1,), rate_convolution (1,) |
| layers.L.downsample, at the end of a stage | layers.L+1.downsample, at the beginning of the next |
| head.weight, head.bias | head.fc.weight, head.fc.bias |
| attn_mask, relative_position_index | none: not learned; ignored when read, not written |
"""

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from acmix.checkpoints.shapes import Shapes, check_keys, check_shapes

# Every attention of a Swin has it, and no layer of a ResNet.
_TABLE = "relative_position_bias_table"
_OURS = {
    "fc.weight": "convolution.fc_weight",
    "fc.bias": "convolution.fc_bias",
    "dep_conv.weight": "convolution.dep_weight",
    "rate1": "rate_attention",
    "rate2": "rate_convolution",
}
_PUBLISHED = {ours: published for published, ours in _OURS.items()}
_BLOCK = re.compile(r"layers\.\d+\.blocks\.\d+\.attn\.$")
_DOWNSAMPLE = re.compile(r"layers\.(\d+)\.(downsample\..+)")
_FIRST = "layers.0.downsample.reduction.weight"
_BUFFERS = ("attn_mask", "relative_position_index")


def our_swins(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename what is published of ACmix-Swin in a state dict; everything else is passed on.

    Raises:
        ValueError: If an attention lacks keys or its shapes contradict each other, or two names become one.
    """
    operators = list(published_attentions(state))
    for prefix in operators:
        check_keys(prefix, state, _OURS, "published attention")
        check_shapes(prefix, state, _shapes(prefix, state, "dep_conv.weight"), "published attention")
    renamed = _rename(state, operators, _OURS, _BUFFERS)
    for root in _roots(operators):
        if root + _FIRST in state:
            renamed = _move(renamed, root, 1)
        renamed = _rename(renamed, [root], {f"head.{kind}": f"head.fc.{kind}" for kind in ("weight", "bias")})
    return {name: tensor.flatten(1) if _is_fc(name, tensor) else tensor for name, tensor in renamed.items()}


def published_swins(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename what is ours of ACmix-Swin in a state dict; everything else is passed on.

    Raises:
        ValueError: If an attention lacks keys or its shapes contradict each other, or two names become one.
    """
    operators = list(our_attentions(state))
    fcs = {prefix + "fc.weight" for prefix in operators}
    for prefix in operators:
        check_keys(prefix, state, _PUBLISHED, "attention")
        shapes = _shapes(prefix, state, "convolution.dep_weight")
        shapes["fc.weight"] = shapes["fc.weight"][:2]
        check_shapes(prefix, state, {_OURS[name]: shape for name, shape in shapes.items()}, "attention")
    renamed = _rename(state, operators, _PUBLISHED)
    for root in _roots(operators):
        if root + _FIRST not in state:
            renamed = _move(renamed, root, -1)
        renamed = _rename(renamed, [root], {f"head.fc.{kind}": f"head.{kind}" for kind in ("weight", "bias")})
    return {name: tensor[..., None, None] if name in fcs else tensor for name, tensor in renamed.items()}


def published_attentions(state: Mapping[str, Tensor]) -> Iterator[str]:
    """Prefixes of the published attentions: what stands before a table of positions and most of what is ACmix's."""
    return _prefixes(state, _OURS)


def our_attentions(state: Mapping[str, Tensor]) -> Iterator[str]:
    """The same of ours."""
    return _prefixes(state, _PUBLISHED)


def _prefixes(state: Mapping[str, Tensor], names: Mapping[str, str]) -> Iterator[str]:
    tables = (key.removesuffix(_TABLE) for key in state if key == _TABLE or key.endswith("." + _TABLE))
    # One alone may be another attention's: a projection that is called fc.
    return (prefix for prefix in tables if 2 * sum(prefix + name in state for name in names) > len(names))


def _shapes(prefix: str, state: Mapping[str, Tensor], kernels: str) -> Shapes:
    """Published shapes, as the kernels and the table of positions say."""
    dep, table = state[prefix + kernels].shape, state[prefix + _TABLE].shape
    if len(dep) != 4 or len(table) != 2:
        raise ValueError(
            f"attention {prefix!r} needs kernels (C, P, k, k) and a table (positions, N), got {prefix}{kernels} "
            f"{tuple(dep)} and {prefix}{_TABLE} {tuple(table)}"
        )
    positions = dep[-1] ** 2
    return {
        "fc.weight": (positions, 3 * table[1], 1, 1),
        "fc.bias": (positions,),
        "dep_conv.weight": (dep[0], positions, dep[-1], dep[-1]),
        "rate1": (1,),
        "rate2": (1,),
    }


def _roots(operators: list[str]) -> list[str]:
    """Prefixes of the networks that attentions are of."""
    found = (_BLOCK.search(prefix) for prefix in operators)
    return list(dict.fromkeys(match.string[: match.start()] for match in found if match))


def _rename(
    state: Mapping[str, Tensor], prefixes: list[str], names: Mapping[str, str], dropped: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    changed = {prefix + old: prefix + new for prefix in prefixes for old, new in names.items()}
    # The mask is the block's, one level above its attention.
    gone = {prefix + name for prefix in prefixes for name in dropped}
    gone |= {prefix.removesuffix("attn.") + name for prefix in prefixes for name in dropped}
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in gone:
            continue
        new = changed.get(name, name)
        if new in renamed or (new != name and new in state):
            raise ValueError(f"{new} is there under its published and under our name; leave one out")
        renamed[new] = tensor
    return renamed


def _move(state: Mapping[str, Tensor], root: str, by: int) -> dict[str, Tensor]:
    """The downsampling of every stage moved to another."""

    def moved(name: str) -> str:
        match = _DOWNSAMPLE.fullmatch(name.removeprefix(root)) if name.startswith(root) else None
        return f"{root}layers.{int(match[1]) + by}.{match[2]}" if match else name

    return {moved(name): tensor for name, tensor in state.items()}


def _is_fc(name: str, tensor: Tensor) -> bool:
    return name.endswith(_OURS["fc.weight"]) and tensor.ndim == 4
