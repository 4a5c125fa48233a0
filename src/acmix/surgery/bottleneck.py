"""The residual bottleneck for inference, with its last convolution, shortcut and ReLU in the operator's pass."""

from collections.abc import Sequence
from typing import TypeGuard

from torch import Tensor, nn

from acmix.ops.contract import Projection, Tail
from acmix.plain import why_not_plain
from acmix.surgery.fused import FusedACmix


def is_pointwise(module: nn.Module, stride: tuple[int, int] = (1, 1)) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a plain 1x1 convolution with this stride, without padding and groups."""
    if not isinstance(module, nn.Conv2d) or why_not_plain(module, nn.Conv2d) is not None:
        return False
    return (module.kernel_size, module.stride, module.padding, module.groups) == ((1, 1), stride, (0, 0), 1)


class FusedBottleneck(nn.Module):
    r"""A residual bottleneck around an operator, for inference: `fuse` makes it.

    .. math:: relu(last(operator(first(before(x)))) + downsample(shortcut(x)))

    Kernels compute the convolutions `first`, `last` and `downsample`, the sum and the ReLU with the operator. What is
    more than its type says, by a hook on it for instance, is called as a module.

    Args:
        before: What stands before the operator, in order. If a 1x1 convolution is the last, that is `first`.
        operator: The operator.
        last: A 1x1 convolution of its output.
        shortcut: What stands on the shortcut, in order. If a 1x1 convolution is the last, that is `downsample`.

    Shape:
        `(B, C_in, H, W)` to `(B, C', ceil(H / s), ceil(W / s))`, or both without B.
    """

    def __init__(
        self, before: Sequence[nn.Module], operator: FusedACmix, last: nn.Conv2d, shortcut: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        self.before, self.first = _apart(before, (1, 1))
        self.operator, self.last = operator, last
        self.shortcut, self.downsample = _apart(shortcut, operator.stride)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        before, shortcut = self.before(x), self.shortcut(x)
        first, operator, last, downsample = self.first, self.operator, self.last, self.downsample
        if why_not_plain(operator, FusedACmix) is not None or not is_pointwise(last):
            return (last(operator(first(before))) + downsample(shortcut)).relu()
        head = beside = None
        if is_pointwise(first):
            head = Projection(first.weight, first.bias)
        else:
            before = first(before)
        if is_pointwise(downsample, operator.stride):
            beside = Projection(downsample.weight, downsample.bias)
        else:
            shortcut = downsample(shortcut)
        tail = Tail(Projection(last.weight, last.bias), shortcut, beside, rectified=True)
        return operator.forward_between(head, tail, before)


def _apart(modules: Sequence[nn.Module], stride: tuple[int, int]) -> tuple[nn.Sequential, nn.Module]:
    """Modules in a row, and the 1x1 convolution with this stride that is their last, or an identity."""
    if modules and is_pointwise(modules[-1], stride):
        return nn.Sequential(*modules[:-1]), modules[-1]
    return nn.Sequential(*modules), nn.Identity()
