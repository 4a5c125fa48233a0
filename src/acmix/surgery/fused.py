"""The operator for inference, and affine maps behind layers in the weights of those."""

import torch
from torch import Tensor, nn

from acmix.nn import ACmix, OperatorLayer
from acmix.ops.contract import Convolution, Weights
from acmix.ops.geometry import composes_kernels
from acmix.plain import why_not_plain
from acmix.surgery.identity import copy_network

# Values are scaled by what stands behind attention, and the kernels that read them by the inverse. More than this
# between two channels would leave the range of float16, in which a network may compute later.
_LARGEST_RATIO = 1e3


class FusedACmix(OperatorLayer):
    r"""The operator for inference, with weights computed once: `fuse` makes it.

    The convolution path is one grouped convolution with a composed kernel times beta (fc is kept where two steps are
    cheaper, for more than 4 heads). A batch norm behind it, scale s and shift t a channel, is folded: s multiplies the
    values that attention averages and the rows of the composed kernel, whose columns for values are divided by it:

    .. math:: s (\alpha \, att(q, k, v) + \beta \, conv(q, k, v)) + t = \alpha \, att(q, k, s v) + conv_s(q, k, s v) + t

    A ReLU before it (`rectified_input`) or behind it (`rectified`) is computed with it; kernels apply the bias and both
    where they read and write anyway.

    Args:
        operator: Its weights are copied.

    Shape:
        `(B, C_in, H, W)` to `(B, C, ceil(H / s), ceil(W / s))`, or both without B.

    Raises:
        ValueError: If the composed kernel leaves the range of the weights' dtype.
    """

    def __init__(self, operator: ACmix) -> None:
        super().__init__()
        self.in_channels, self.out_channels = operator.in_channels, operator.out_channels
        self.heads, self.kernel_att, self.kernel_conv = operator.heads, operator.kernel_att, operator.kernel_conv
        self.stride, self.dilation, self.backend = operator.stride, operator.dilation, operator.backend
        self.qkv = copy_network(operator.qkv)
        kernels = operator.rate_convolution.detach().double() * operator.dep_weight.detach().double()
        fc = operator.fc_weight.detach()
        if composes_kernels(operator.heads, kernels.shape[1], operator.kernel_conv):
            kernels, fc = torch.einsum("pc,opyx->ocyx", fc.double(), kernels), None
        self.position_weight = _constant(operator.position_weight)
        self.fc_weight = None if fc is None else _constant(fc)
        # Not "kernels": AOTInductor has a variable of that name.
        self.kernel_weight = _constant(_rounded(kernels, operator.dep_weight.dtype, (-2, -1)))
        self.rate_attention = _constant(operator.rate_attention)
        self.bias = None if operator.bias is None else _constant(operator.bias)
        self.requires_grad_(False)

    def mixing_weights(self) -> Weights:
        """Of both paths; the composed kernel holds its rate."""
        return Weights(self.position_weight, self.rate_attention, Convolution(self.kernel_weight, self.fc_weight))


def fold_affine(layer: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Follow a layer with `scale * output + shift`, in its weights.

    Args:
        layer: A plain `nn.Conv2d`, or a `FusedACmix`.
        scale: Shape `(C,)`, float64.
        shift: The same.

    Raises:
        ValueError: If that loses digits; the message is the reason, which follows "cannot be folded: ". The layer is
            unchanged.
    """
    if scale.shape != (layer.out_channels,):
        raise ValueError(f"it has {len(scale)} channels, the layer before it {layer.out_channels}")
    if isinstance(layer, FusedACmix):
        _fold_into_operator(layer, scale, shift)
    elif isinstance(layer, nn.Conv2d):
        weight = _rounded(layer.weight.double() * scale[:, None, None, None], layer.weight.dtype, (1, 2, 3))
        layer.bias = _constant(_shifted(layer.bias, scale, shift, weight.dtype))
        layer.weight = _constant(weight)


def _fold_into_operator(operator: FusedACmix, scale: Tensor, shift: Tensor) -> None:
    if operator.rectified:
        raise ValueError("the layer before it rectifies its output")
    reason = why_not_plain(operator.qkv, nn.Conv2d)
    if reason is not None:
        raise ValueError(f"the projection before it {reason}")
    if operator.fc_weight is not None:
        raise ValueError(f"with {operator.heads} heads the convolution path has no place for a scale a channel")
    heads, size, dtype = operator.heads, operator.position_weight.shape[0], operator.kernel_weight.dtype
    # Channel n D + d of the values is map 2 N + n of group d; channel d N + m of the output is row m of it.
    rows, values = scale.unflatten(0, (size, heads)), scale.unflatten(0, (heads, size)).t()
    of_values = rows[:, :, None] / values[:, None]
    # Nothing is left of a row that is 0, whatever it reads.
    of_values = torch.where(rows[:, :, None] == 0, 0, of_values)
    if not of_values.abs().max() <= _LARGEST_RATIO:
        raise ValueError(f"its scales differ more than {_LARGEST_RATIO:g} times between channels that share values")
    columns = torch.cat([rows[:, :, None].expand(-1, -1, 2 * heads), of_values], 2).flatten(0, 1)
    kernels = _rounded(operator.kernel_weight.double() * columns[..., None, None], dtype, (-2, -1))
    projected = torch.cat([scale.new_ones(2 * len(scale)), scale])
    weight, bias = operator.qkv.weight, operator.qkv.bias
    new_weight = _rounded(weight.double() * projected[:, None, None, None], weight.dtype, (1, 2, 3))
    new_bias = None if bias is None else _shifted(bias, projected, torch.zeros_like(projected), bias.dtype)
    operator.bias = _constant(_shifted(operator.bias, scale, shift, dtype))
    operator.kernel_weight, operator.qkv.weight = _constant(kernels), _constant(new_weight)
    operator.qkv.bias = None if new_bias is None else _constant(new_bias)


def _shifted(bias: Tensor | None, scale: Tensor, shift: Tensor, dtype: torch.dtype) -> Tensor:
    """`scale * bias + shift`, far enough within the range of the dtype for what is added to it."""
    exact = shift if bias is None else scale * bias.double() + shift
    if not (exact.abs() <= torch.finfo(dtype).max / 2).all():
        raise ValueError(f"a bias leaves the range of {dtype}")
    return exact.to(dtype)


def _rounded(exact: Tensor, dtype: torch.dtype, axes: tuple[int, ...]) -> Tensor:
    """Weights in their dtype, right to a rounding of the largest along the axes."""
    rounded = exact.to(dtype)
    error, size = (rounded.double() - exact).abs(), exact.abs().amax(axes, keepdim=True)
    if not rounded.is_meta and not (error <= torch.finfo(dtype).eps * size).all():
        raise ValueError(f"weights leave the range of {dtype}")
    return rounded


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(memory_format=torch.contiguous_format), requires_grad=False)
