"""The operator with fewer channels: what structured pruning needs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from acmix.nn import ACmix
from acmix.ops.composition import compose_all
from acmix.ops.contract import Convolution, Projection


def keep_inputs(operator: ACmix, kept: Sequence[int]) -> None:
    """Leave input channels out, in place: exactly as if they were 0.

    Args:
        operator: Its projections read fewer channels then.
        kept: The channels that stay, increasing.
    """
    _replace(operator.qkv, "weight", operator.qkv.weight[:, kept])
    operator.in_channels = operator.qkv.in_channels = len(kept)


def keep_outputs(operator: ACmix, kept: Sequence[int]) -> None:
    r"""Leave output channels out, in place, as many of every head: the heads stay.

    Attention averages the values of the channels kept with logits of as many channels of queries and keys, scaled as
    before. Channel n D + d of attention and channel d N + m of the convolution path read projections of different
    channels, so that no smaller operator computes the same: queries and keys are those that the convolution path reads
    for most of the channels kept, and its kernels are fitted to the ones that it had by least squares, as convolutions
    of the input (DESIGN.md, identity E4). Train afterwards.

    Args:
        operator: Changed in place; parameters that are not trained stay so. Optimisers must be made again.
        kept: The channels that stay, increasing: n D + d for every head n and the same d.

    Raises:
        ValueError: If it holds other channels of one head than of another, or none; nothing is changed.
    """
    heads, head_size = operator.heads, operator.out_channels // operator.heads
    dims = [channel for channel in kept if channel < head_size]
    if not dims or list(kept) != [head * head_size + dim for head in range(heads) for dim in dims]:
        raise ValueError(
            f"the same channels of each of the {heads} heads, {head_size} channels each, must be kept, got {[*kept]}"
        )
    # Of N neighbouring channels of the convolution path the middle one tells what they read.
    groups = [kept[dim * heads + heads // 2] // heads for dim in range(len(dims))]
    qkv, fc = operator.qkv, operator.fc_weight.detach().double()
    biases = [] if qkv.bias is None else [qkv.bias[:, None]]
    # A bias is the weight of one more channel of the input, of ones.
    projection = torch.cat([qkv.weight.flatten(1), *biases], 1).detach().double()
    query, key, value = projection.reshape(3, heads, head_size, -1)
    scale = (len(dims) / head_size) ** 0.5
    narrowed = torch.stack([query[:, groups] * scale, key[:, groups], value[:, dims]]).flatten(0, 1)
    kernels = Convolution(operator.dep_weight.detach().double(), fc)
    wanted, _ = compose_all(Projection(projection, None), heads, kernels)
    fitted = _fit(fc @ narrowed.transpose(0, 1), wanted[kept].unflatten(0, (-1, heads)).flatten(3))
    inputs, flat = qkv.in_channels, narrowed.flatten(0, 1)
    _replace(qkv, "weight", flat[:, :inputs, None, None])
    if qkv.bias is not None:
        _replace(qkv, "bias", flat[:, inputs])
    _replace(operator, "position_weight", operator.position_weight[groups])
    _replace(operator, "dep_weight", fitted.reshape(len(kept), *operator.dep_weight.shape[1:]))
    if operator.bias is not None:
        _replace(operator, "bias", operator.bias[kept])
    operator.out_channels, qkv.out_channels = len(kept), 3 * len(kept)


def _fit(read: Tensor, wanted: Tensor) -> Tensor:
    """Kernels `(D, N, P, k k)` of maps, projections `(D, P, C_in)`, that are the kernels `(D, N, C_in, k k)`."""
    return torch.linalg.pinv(read).mT[:, None] @ wanted


def _replace(module: nn.Module, name: str, value: Tensor) -> None:
    old: nn.Parameter = getattr(module, name)
    new = value.detach().to(old.dtype).clone(memory_format=torch.contiguous_format)
    setattr(module, name, nn.Parameter(new, requires_grad=old.requires_grad))
