"""What the compiled kernels' operators take, made of the weights and the grid that a backend takes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from acmix.ops.contract import Convolution, Ends, Grid, Projection, Weights
from acmix.ops.geometry import composes_kernels


class Parameters(NamedTuple):
    """What `acmix::mix` takes besides projections, and `acmix::project_and_mix` besides what projects.

    `composed` says that fc and dep are computed with as one kernel. Without position and rate there is no attention.
    """

    position: Tensor | None
    rate: Tensor | None
    fc: Tensor | None
    dep: Tensor
    rate_convolution: Tensor | None
    composed: bool
    window: int
    stride: int


class Sides(NamedTuple):
    """What `acmix::infer` takes after the arguments of `acmix::project_and_mix`: what stands on both sides of those.

    Weights of 1x1 convolutions are `(outputs, inputs, 1, 1)`, absent ones None. `head` comes before the stages, `tail`
    after them, `downsample` on the shortcut.
    """

    rectified_input: bool
    bias: Tensor | None
    rectified: bool
    head: Tensor | None
    head_bias: Tensor | None
    tail: Tensor | None
    tail_bias: Tensor | None
    shortcut: Tensor | None
    downsample: Tensor | None
    downsample_bias: Tensor | None
    rectified_sum: bool


def split_inference(arguments: Sequence[Any]) -> tuple[Sequence[Any], Sides]:
    """The arguments of `acmix::infer`, or their shapes: those of `acmix::project_and_mix`, and the others."""
    before = len(arguments) - len(Sides._fields)
    return arguments[:before], Sides(*arguments[before:])


def parameters_of(weights: Weights | None, convolution: Convolution, grid: Grid) -> Parameters:
    """In whatever dtype they are; fc and dep become one kernel where that is cheaper."""
    position, rate = (None, None) if weights is None else weights[:2]
    dep, fc, rate_convolution = convolution
    composed = composes_kernels(grid.heads, *dep.shape[1:3])
    window = 0 if weights is None else grid.window
    return Parameters(position, rate, fc, dep, rate_convolution, composed, window, grid.stride)


def stages_of(x: Tensor, projection: Projection, weights: Weights, grid: Grid) -> tuple[Any, ...]:
    """Arguments of all stages."""
    return x, *projection, *parameters_of(weights, weights.convolution, grid), grid.heads


def sides_of(ends: Ends) -> Sides:
    """Arguments of what stands on both sides of the stages."""
    head, head_bias = ends.head or (None, None)
    (tail, tail_bias), shortcut, beside, rectified_sum = ends.tail or ((None, None), None, None, False)
    downsample, downsample_bias = beside or (None, None)
    return Sides(
        rectified_input=ends.rectified_input,
        bias=ends.bias,
        rectified=ends.rectified,
        head=head,
        head_bias=head_bias,
        tail=tail,
        tail_bias=tail_bias,
        shortcut=None if shortcut is None else shortcut.contiguous(memory_format=torch.channels_last),
        downsample=downsample,
        downsample_bias=downsample_bias,
        rectified_sum=rectified_sum,
    )
