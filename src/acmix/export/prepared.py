"""Operators with their weights as the graph has them, for runtimes that compute nothing of weights beforehand."""

import torch
from torch import Tensor, nn

from acmix.nn import OperatorLayer
from acmix.ops import traced
from acmix.ops.contract import Ends, Grid, Projection, finish
from acmix.plain import why_not_plain
from acmix.surgery.identity import become


class PreparedACmix(nn.Module):
    """A fused operator in plain PyTorch operations on weights in the order that they want.

    Args:
        operator: Its projection is a plain convolution; its weights are copied.
    """

    def __init__(self, operator: OperatorLayer) -> None:
        super().__init__()
        weights, projection = operator.mixing_weights(), operator.qkv
        self.grid = Grid(operator.heads, operator.kernel_att, operator.stride[0], operator.dilation[0])
        with torch.no_grad():
            prepared = traced.prepare(Projection(projection.weight, projection.bias), weights, self.grid)
        # Not "kernels": AOTInductor has a variable of that name.
        self.weight, self.kernel_weight = _constant(prepared.weight), _constant(prepared.kernels)
        self.projection_bias = None if prepared.bias is None else _constant(prepared.bias)
        self.position, self.rate = _constant(weights.position), _constant(weights.rate)
        self.ends = Ends(operator.rectified_input, None, operator.rectified)
        self.bias = None if operator.bias is None else _constant(operator.bias)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name that nn.Conv2d takes it by
        """`(B, C_in, H, W)` to `(B, C, ceil(H / s), ceil(W / s))`, or both without B."""
        prepared = traced.Prepared(self.weight, self.projection_bias, self.kernel_weight)
        images = input if input.ndim == 4 else input[None]
        images = images.relu() if self.ends.rectified_input else images
        output = traced.compute(images, prepared, self.position, self.rate, self.grid)
        output = finish(output, self.ends._replace(bias=self.bias), self.grid)
        return output if input.ndim == 4 else output[0]


def prepare(fused: nn.Module) -> nn.Module:
    """Let the operators of a network that compute as their type does be `PreparedACmix`, in place."""
    for module in [*fused.modules()]:
        if isinstance(module, OperatorLayer) and _is_plain(module):
            become(module, PreparedACmix(module))
    return fused.eval()


def _is_plain(operator: OperatorLayer) -> bool:
    own = type(operator).forward is OperatorLayer.forward and "forward" not in vars(operator)
    return own and why_not_plain(operator.qkv, nn.Conv2d) is None


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(), requires_grad=False)
