"""The parameter names of the published ACmix code and ours, in both directions.

An operator is found by its keys, under any prefix and with none: a bare operator, a network, a part of one. Sizes: C
channels out, C_in channels in, D = C / N a head, P = k^2 kernels of k x k.

| published | ours |
|---|---|
| conv1, conv2, conv3 `.weight` (C, C_in, 1, 1), `.bias` (C,) | qkv.weight (3 C, C_in, 1, 1), qkv.bias (3 C,) |
| conv_p.weight (D, 2, 1, 1) | position_weight (D, 2) |
| conv_p.bias (D,) | none: it cancels in the softmax; ignored when read, zeros when written |
| fc.weight (P, 3 N, 1, 1) | fc_weight (P, 3 N) |
| dep_conv.weight (C, P, k, k) | dep_weight (C, P, k, k) |
| rate1 (1,), rate2 (1,) | rate_attention (1,), rate_convolution (1,) |
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from acmix.checkpoints import swin
from acmix.checkpoints.names import check_state_dict, without_wrappers
from acmix.checkpoints.shapes import Shapes, check_keys, check_shapes

_PROJECTIONS = ("conv1", "conv2", "conv3")
_CANCELLED = "conv_p.bias"
_PUBLISHED_NAMES = (
    *(f"{projection}.{kind}" for projection in _PROJECTIONS for kind in ("weight", "bias")),
    *("conv_p.weight", "fc.weight", "dep_conv.weight", "rate1", "rate2"),
)
_OUR_NAMES = (
    *("qkv.weight", "qkv.bias", "position_weight", "fc_weight", "dep_weight"),
    *("rate_attention", "rate_convolution"),
)
# Names that hardly another module has; a network's own conv1 and fc must not be taken for an operator's.
_PUBLISHED_MARKS = ("conv_p.weight", _CANCELLED, "dep_conv.weight", "rate1", "rate2")
_OUR_MARKS = _OUR_NAMES[2:]


def from_published(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename every published operator in a state dict to our names; anything else is passed on unchanged.

    Args:
        state_dict: Weights of an operator or of a network, under any prefix. Names that PyTorch's wrappers put in
            between (`module.` before all of them, `_orig_mod.`, ...) are taken out. Not modified.

    Returns:
        A new state dict for `ACmix` or a network of it.

    Raises:
        TypeError: If it is no mapping of names.
        ValueError: If a published operator lacks keys or its shapes contradict each other, or two names become one.
    """
    state = swin.our_swins(_without_wrappers(state_dict))
    operators = {prefix: _our_operator(prefix, state) for prefix in _prefixes(state, _PUBLISHED_MARKS)}
    return _replace(state, operators, (*_PUBLISHED_NAMES, _CANCELLED))


def to_published(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename every operator under our names to the published ones; anything else is passed on unchanged.

    Args:
        state_dict: Weights of an `ACmix` or of a network of it. Not modified.

    Returns:
        A new state dict; `conv_p.bias`, which has no effect, is zero.

    Raises:
        TypeError: If it is no mapping of names.
        ValueError: If an operator lacks keys or its shapes contradict each other.
    """
    state = swin.published_swins(_without_wrappers(state_dict))
    operators = {prefix: _published_operator(prefix, state) for prefix in _prefixes(state, _OUR_MARKS)}
    return _replace(state, operators, _OUR_NAMES)


def _replace(
    state: Mapping[str, Tensor], operators: Mapping[str, Mapping[str, Tensor]], names: Iterable[str]
) -> dict[str, Tensor]:
    """The state with every operator, known by its prefix and the names of its keys, in its new form."""
    owner = {prefix + name: prefix for prefix in operators for name in names}
    made = {name for operator in operators.values() for name in operator}
    if twice := [name for name in state if name in made and name not in owner]:
        raise ValueError(f"{twice[0]} is there under its published and under our name; leave one out")
    result: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key in owner:
            result.update(operators[owner[key]])
        else:
            result[key] = tensor
    return result


def _our_operator(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    check_keys(prefix, state, _PUBLISHED_NAMES, "published operator")
    sizes = _sizes(prefix, state, "dep_conv.weight", "conv_p.weight", "conv1.weight", "published operator")
    expected = _published_shapes(*sizes)
    if prefix + _CANCELLED in state:
        expected[_CANCELLED] = (sizes[2],)
    check_shapes(prefix, state, expected, "published operator")

    def joined(kind: str) -> Tensor:
        return torch.cat([state[f"{prefix}{projection}.{kind}"] for projection in _PROJECTIONS])

    return {
        prefix + "qkv.weight": joined("weight"),
        prefix + "qkv.bias": joined("bias"),
        prefix + "position_weight": state[prefix + "conv_p.weight"].flatten(1),
        prefix + "fc_weight": state[prefix + "fc.weight"].flatten(1),
        prefix + "dep_weight": state[prefix + "dep_conv.weight"],
        prefix + "rate_attention": state[prefix + "rate1"],
        prefix + "rate_convolution": state[prefix + "rate2"],
    }


def _published_operator(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    check_keys(prefix, state, _OUR_NAMES, "operator")
    sizes = _sizes(prefix, state, "dep_weight", "position_weight", "qkv.weight", "operator")
    check_shapes(prefix, state, _our_shapes(*sizes), "operator")
    result: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        for projection, part in zip(_PROJECTIONS, state[f"{prefix}qkv.{kind}"].chunk(3), strict=True):
            # safetensors refuses tensors that share their memory.
            result[f"{prefix}{projection}.{kind}"] = part.clone()
    position = state[prefix + "position_weight"]
    return {
        **result,
        prefix + "conv_p.weight": position[..., None, None],
        prefix + _CANCELLED: position.new_zeros(position.shape[0]),
        prefix + "fc.weight": state[prefix + "fc_weight"][..., None, None],
        prefix + "dep_conv.weight": state[prefix + "dep_weight"],
        prefix + "rate1": state[prefix + "rate_attention"],
        prefix + "rate2": state[prefix + "rate_convolution"],
    }


def _published_shapes(channels_in: int, channels: int, head_size: int, kernel: int) -> Shapes:
    positions = kernel**2
    projections: Shapes = {f"{name}.weight": (channels, channels_in, 1, 1) for name in _PROJECTIONS}
    return {
        **projections,
        **{f"{name}.bias": (channels,) for name in _PROJECTIONS},
        "conv_p.weight": (head_size, 2, 1, 1),
        "fc.weight": (positions, 3 * (channels // head_size), 1, 1),
        "dep_conv.weight": (channels, positions, kernel, kernel),
        "rate1": (1,),
        "rate2": (1,),
    }


def _our_shapes(channels_in: int, channels: int, head_size: int, kernel: int) -> Shapes:
    positions = kernel**2
    return {
        "qkv.weight": (3 * channels, channels_in, 1, 1),
        "qkv.bias": (3 * channels,),
        "position_weight": (head_size, 2),
        "fc_weight": (positions, 3 * (channels // head_size)),
        "dep_weight": (channels, positions, kernel, kernel),
        "rate_attention": (1,),
        "rate_convolution": (1,),
    }


def _sizes(
    prefix: str, state: Mapping[str, Tensor], kernels: str, position: str, projection: str, kind: str
) -> tuple[int, int, int, int]:
    """C_in, C, D and k, each read from the one tensor that says it."""
    shapes = {name: tuple(state[prefix + name].shape) for name in (kernels, position, projection)}
    if len(shapes[kernels]) != 4 or len(shapes[position]) < 2 or len(shapes[projection]) != 4:
        found = ", ".join(f"{prefix}{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"{kind} {prefix!r} needs kernels (C, P, k, k), (D, 2, ...) and (C, C_in, 1, 1), got {found}")
    channels, head_size = shapes[kernels][0], shapes[position][0]
    if head_size == 0 or channels % head_size:
        raise ValueError(
            f"{kind} {prefix!r} needs C divisible by D, got {prefix}{kernels} {shapes[kernels]} "
            f"and {prefix}{position} {shapes[position]}"
        )
    return shapes[projection][1], channels, head_size, shapes[kernels][-1]


def _prefixes(state: Mapping[str, Tensor], marks: tuple[str, ...]) -> list[str]:
    """Prefixes of the operators in their order: what stands before most of the marks.

    Some alone are other layers: a network's own `dep_conv`, the rates of an operator that no published code has.
    """
    found = Counter(
        key.removesuffix(mark) for key in state for mark in marks if key == mark or key.endswith("." + mark)
    )
    return [prefix for prefix, count in found.items() if 2 * count > len(marks)]


def _without_wrappers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    check_state_dict(state_dict)
    return {plain: state_dict[name] for name, plain in without_wrappers(state_dict).items()}
