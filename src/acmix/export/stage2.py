"""The operator as PyTorch's exporter is to see it: one opaque operator, whose graph `graph.translation` writes.

The exporter need not reason about tiles of symbolic sizes then, which takes it minutes a network.
"""

import math
from fractions import Fraction

import torch
from torch import Tensor, nn

from acmix.nn import ACmix
from acmix.ops.geometry import output_size
from acmix.plain import why_not_plain
from acmix.surgery import FusedACmix

OPSET = 18
# Channels that ONNX Runtime computes at once, on its widest processors.
_BLOCK = 16
# The convolution path is one convolution of the input if that multiplies at most so many times as much: projections in
# the order of attention alone need no transposition.
_DIRECT = 1.25

torch.library.define(
    "acmix_export::mix",
    "(Tensor maps, Tensor? projection, Tensor? query_bias, Tensor? border, Tensor position, Tensor kernels, "
    "Tensor bias, Tensor? rate, int heads, int window, int stride, int dilation) -> Tensor",
)


@torch.library.register_fake("acmix_export::mix")
def _empty_output(
    maps: Tensor,
    projection: Tensor | None,  # noqa: ARG001
    query_bias: Tensor | None,  # noqa: ARG001
    border: Tensor | None,  # noqa: ARG001
    position: Tensor,  # noqa: ARG001
    kernels: Tensor,
    bias: Tensor,  # noqa: ARG001
    rate: Tensor | None,  # noqa: ARG001
    heads: int,  # noqa: ARG001
    window: int,  # noqa: ARG001
    stride: int,
    dilation: int,  # noqa: ARG001
) -> Tensor:
    batch, _, height, width = maps.shape
    return maps.new_empty(batch, len(kernels), output_size(height, stride), output_size(width, stride))


class ExportedACmix(nn.Module):
    """A fused operator as the exporter is to see it; it computes nothing itself.

    The scale D^-1/2 of the logits is in the weights of the queries, and out of the kernels that read them. Where the
    operator is given its input, not projections, alpha is in the weights of the values; the bias of keys cancels in the
    softmax, that of values is added to the output.

    Args:
        operator: Its weights are copied.

    Attributes:
        qkv: Makes the projections `(B, D * 3 N, H, W)`, all maps of one place in the heads together, as the groups of
            the convolution path want them; None where the operator is given its input.
        scales: Of what it makes, if it is more than a convolution.
        kernels: Of the convolution path, `(C, 3 N j, k, k)` for j groups in one, or `(C, C_in, k, k)` of the input.
        projection: Of the input, `(3, N, C_in, D)`.
        query_bias: Its bias for queries, `(N, 1, D)`.
        border: Kernels `(C, 1, k, k)` that make of a map of ones what the convolution path makes of that bias
            (DESIGN.md, identity E4).
        rate: alpha, `(1,)`, of attention on projections.
    """

    def __init__(self, operator: ACmix | FusedACmix) -> None:
        super().__init__()
        operator = operator if isinstance(operator, FusedACmix) else FusedACmix(operator)
        kernels = operator.kernel_weight.detach().double()
        if operator.fc_weight is not None:
            kernels = torch.einsum("pc,opyx->ocyx", operator.fc_weight.double(), kernels)
        self.rectified_input, self.rectified = operator.rectified_input, operator.rectified
        self.numbers = operator.heads, operator.kernel_att, operator.stride[0], operator.dilation[0]
        self.projection: Tensor | None = None
        self.query_bias: Tensor | None = None
        self.border: Tensor | None = None
        self.rate: Tensor | None = None
        self.scales: Tensor | None = None
        self.qkv: nn.Module | None = None
        self.position = _constant(operator.position_weight)
        self.bias = _constant(torch.zeros(len(kernels)).to(self.position) if operator.bias is None else operator.bias)
        if why_not_plain(operator.qkv, nn.Conv2d) is None and _is_direct(operator):
            self._take_input(operator, kernels)
        else:
            self._take_projections(operator, kernels)

    def _take_input(self, operator: FusedACmix, kernels: Tensor) -> None:
        """Let the operator be given its input."""
        like, (size, _), heads = self.position, self.position.shape, operator.heads
        weight = operator.qkv.weight.double().flatten(1).unflatten(0, (3, heads, size))
        by_place = kernels.unflatten(0, (size, heads))
        dense = torch.einsum("domyx,mdc->docyx", by_place, weight.flatten(0, 1)).flatten(0, 1)
        alpha, scales = operator.rate_attention.double(), torch.ones(3, 1, 1, 1).double()
        scales[0], scales[2] = size**-0.5, alpha
        self.kernels = _constant(dense.to(like))
        self.projection = _constant((weight * scales.to(weight)).transpose(2, 3).to(like))
        if operator.qkv.bias is not None:
            bias = operator.qkv.bias.double().unflatten(0, (3, heads, size))
            self.query_bias = _constant((bias[0, :, None] * size**-0.5).to(like))
            border = torch.einsum("domyx,md->doyx", by_place, bias.flatten(0, 1))
            self.border = _constant(border.reshape(-1, 1, *border.shape[2:]).to(like))
            self.bias = _constant((self.bias.double() + alpha * bias[2].flatten()).to(like))

    def _take_projections(self, operator: FusedACmix, kernels: Tensor) -> None:
        """Let the operator be given projections; one that is more than a convolution is called as it is."""
        like, (size, _), heads = self.position, self.position.shape, operator.heads
        # By head of q, k and v.
        scales = torch.ones(3 * heads, 1).to(kernels)
        scales[:heads] = size**-0.5
        self.kernels = _constant(_join_groups((kernels / scales[:, None]).to(like), heads))
        self.rate = _constant(operator.rate_attention)
        if why_not_plain(operator.qkv, nn.Conv2d) is not None:
            self.qkv, self.scales = operator.qkv, _constant(scales[..., None, None].to(like))
            return
        weight, bias = operator.qkv.weight.double().flatten(1), operator.qkv.bias
        weight = (weight.unflatten(0, (-1, size)) * scales[..., None]).transpose(0, 1)
        projection = nn.Conv2d(operator.qkv.in_channels, 3 * heads * size, 1, bias=bias is not None).to(like)
        projection.weight = _constant(weight.reshape(projection.weight.shape).to(like))
        if bias is not None:
            bias = (bias.double().unflatten(0, (-1, size)) * scales).transpose(0, 1)
            projection.bias = _constant(bias.flatten().to(like))
        self.qkv = projection

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name that nn.Conv2d takes it by
        """`(B, C_in, H, W)` to `(B, C, ceil(H / s), ceil(W / s))`."""
        maps = input.relu() if self.rectified_input else input
        maps = maps if self.qkv is None else self.qkv(maps)
        if self.scales is not None:
            maps = (maps.unflatten(1, (3 * self.numbers[0], -1)) * self.scales).transpose(1, 2).flatten(1, 2)
        weights = self.position, self.kernels, self.bias, self.rate
        sources = maps, self.projection, self.query_bias, self.border
        output = torch.ops.acmix_export.mix(*sources, *weights, *self.numbers)
        return output.relu() if self.rectified else output


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)


def _is_direct(operator: FusedACmix) -> bool:
    """Whether the convolution path is better computed of the input, by the multiply-adds an output channel and cell."""
    inputs, taps, every = operator.in_channels, operator.kernel_conv**2, Fraction(1, operator.stride[0] ** 2)
    # Queries of attention are projected where they are.
    direct = every * inputs * taps + (2 + every) * inputs
    joined = _joined_groups(operator.out_channels // operator.heads, operator.heads)
    return direct <= _DIRECT * (3 * inputs + every * 3 * operator.heads * joined * taps)


def _joined_groups(groups: int, heads: int) -> int:
    """Groups that are computed as one, where this fills blocks: zeros cost less than small ones."""
    joined = _BLOCK // math.gcd(_BLOCK, heads)
    return 1 if groups % joined else joined


def _join_groups(kernels: Tensor, heads: int) -> Tensor:
    """Kernels of fewer, larger groups that compute the same.

    Args:
        kernels: `(C, 3 N, k, k)`.
        heads: N.

    Returns:
        `(C, 3 N j, k, k)`, j groups in one.
    """
    joined = _joined_groups(len(kernels) // heads, heads)
    parts = kernels.unflatten(0, (-1, joined, heads))
    whole = kernels.new_zeros(*parts.shape[:3], joined, *parts.shape[3:])
    for place in range(joined):
        whole[:, place, :, place] = parts[:, place]
    return whole.flatten(3, 4).flatten(0, 2)
