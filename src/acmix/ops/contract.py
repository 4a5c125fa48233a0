"""What a backend is: the stages of the operator as functions of one set of weights and one grid, and why it cannot.

`acmix.ops` makes weights and grid, `validation` checks them, and a backend takes them whole.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from acmix.ops.tracing import is_exporting, is_transformed, plain_shape


class Grid(NamedTuple):
    """Which cells see which.

    Attributes:
        heads: N.
        window: Cells an axis of the attention window; of the kernel where the convolution path alone computes.
        stride: Distance of the queries in cells, s.
        dilation: Distance of window cells and of kernel cells, e.
    """

    heads: int
    window: int
    stride: int
    dilation: int


class Projection(NamedTuple):
    """Of stage I: `weight` `(3 N D, C_in, 1, 1)`, `bias` `(3 N D,)` or None."""

    weight: Tensor
    bias: Tensor | None


class Convolution(NamedTuple):
    """Of the convolution path.

    Attributes:
        dep: Grouped convolution, `(D * N, P, k, k)`.
        fc: Mixing of the maps before it, `(P, 3 N)`; None is the identity.
        rate: beta, one element; None is 1.
    """

    dep: Tensor
    fc: Tensor | None = None
    rate: Tensor | None = None


class Weights(NamedTuple):
    """Of both paths.

    Attributes:
        position: W_p, `(D, 2)`.
        rate: Of attention, alpha, one element.
        convolution: Of the other path.
    """

    position: Tensor
    rate: Tensor
    convolution: Convolution


class Tail(NamedTuple):
    """What follows the operator in a residual block.

    Attributes:
        projection: A 1x1 convolution, `(C', C, 1, 1)` and `(C',)` or None.
        shortcut: Added to its output, `(B, C', H', W')`, or of what `downsample` makes that; or None.
        downsample: A 1x1 convolution of the shortcut that has the operator's stride, or None.
        rectified: Whether the sum passes a ReLU at last.
    """

    projection: Projection
    shortcut: Tensor | None = None
    downsample: Projection | None = None
    rectified: bool = False


class Ends(NamedTuple):
    """What stands on both sides of the stages.

    Attributes:
        rectified_input: Whether the input passes a ReLU first.
        bias: Added to the output, `(C,)`, or None.
        rectified: Whether the output passes a ReLU at last.
        head: A 1x1 convolution of the input, `(C_in, C_x, 1, 1)` and `(C_in,)` or None, before that ReLU; or None.
        tail: What follows the output, or None.
    """

    rectified_input: bool = False
    bias: Tensor | None = None
    rectified: bool = False
    head: Projection | None = None
    tail: Tail | None = None


NO_ENDS = Ends()


class Features(NamedTuple):
    """What a backend looks at before it says that it can: maps that there may not be yet.

    Attributes:
        device: Where they lie.
        dtype: Theirs.
        shape: `(B, maps, D, H, W)`.
        exported: Whether a graph of standard operators is made, for every size of map.
    """

    device: torch.device
    dtype: torch.dtype
    shape: tuple[int, ...]
    exported: bool = False


def features_of(maps: Tensor) -> Features:
    """Of maps that there are."""
    return Features(maps.device, maps.dtype, plain_shape(maps), is_exporting())


def begin(x: Tensor, ends: Ends) -> Tensor:
    """What stands before the stages, of an input that others hold."""
    if ends.head is not None:
        x = functional.conv2d(x, *ends.head)
    return x.relu() if ends.rectified_input else x


def finish(output: Tensor, ends: Ends, grid: Grid) -> Tensor:
    """Bias and ReLU of an output that nothing else holds yet, so that they cost no map, and what follows."""
    # What is differentiated may not be written, and a batch of biases does not fit into it.
    kept = is_transformed() or is_exporting()
    if ends.bias is not None:
        addend = ends.bias.to(output.dtype)[:, None, None]
        output = output + addend if kept else output.add_(addend)
    if ends.rectified:
        output = output.relu() if kept else output.relu_()
    return output if ends.tail is None else follow(output, ends.tail, grid)


def follow(output: Tensor, tail: Tail, grid: Grid) -> Tensor:
    """What follows the operator, of its output; into the shortcut, which is others', nothing is written."""
    kept = is_transformed() or is_exporting()
    output = functional.conv2d(output, *tail.projection)
    shortcut = added(tail, grid)
    if shortcut is not None:
        # What is wider than the output, or of another dtype, makes the sum so.
        fits = not kept and (shortcut.shape, shortcut.dtype) == (output.shape, output.dtype)
        output = output.add_(shortcut) if fits else output + shortcut
    if not tail.rectified:
        return output
    return output.relu() if kept else output.relu_()


def added(tail: Tail, grid: Grid) -> Tensor | None:
    """What is added in the end."""
    if tail.shortcut is None or tail.downsample is None:
        return tail.shortcut
    return functional.conv2d(tail.shortcut, *tail.downsample, stride=grid.stride)


class Backend(ABC):
    """A way to compute the operator; all of its functions are those of `acmix.ops`, of checked arguments."""

    @abstractmethod
    def why_not(self, features: Features | None, grid: Grid) -> str | None:
        """Why it cannot compute, a sentence for people, or None; without features why it cannot on this machine."""

    @abstractmethod
    def local_attention(self, query: Tensor, key: Tensor, value: Tensor, position: Tensor | None, grid: Grid) -> Tensor:
        """The attention path, `(B, N, D, H', W')`."""

    @abstractmethod
    def shift_conv(self, projections: Tensor, convolution: Convolution, grid: Grid) -> Tensor:
        """The convolution path, `(B, D * N, H', W')`."""

    @abstractmethod
    def mix(self, projections: Tensor, weights: Weights, grid: Grid) -> Tensor:
        """Both paths and their sum, `(B, N * D, H', W')`."""

    def project_and_mix(self, x: Tensor, projection: Projection, weights: Weights, grid: Grid) -> Tensor:
        """All three stages; a backend that does not do better projects by a convolution."""
        projections = functional.conv2d(x, *projection).unflatten(1, (3 * grid.heads, -1))
        return self.mix(projections, weights, grid)

    def project_and_mix_between(
        self, ends: Ends, x: Tensor, projection: Projection, weights: Weights, grid: Grid
    ) -> Tensor:
        """All three stages and what stands on both sides; a backend that does not do better takes a pass for each."""
        return finish(self.project_and_mix(begin(x, ends), projection, weights, grid), ends, grid)
