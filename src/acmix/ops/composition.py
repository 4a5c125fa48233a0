"""Weights of the convolution path as backends compute with them."""

import torch
from torch import Tensor

from acmix.ops.contract import Convolution, Grid, Projection
from acmix.ops.geometry import composes_kernels, output_size, window_offsets
from acmix.ops.precision import widen_to, without_autocast
from acmix.ops.tiling import is_channels_last


def compose(features: Tensor, heads: int, convolution: Convolution) -> tuple[Tensor, Tensor | None]:
    """The kernel of the grouped convolution with its rate in it, and the weights that mix maps before it.

    Args:
        features: Kernels are returned in their dtype, or in float32 where that is wider.
        heads: N.
        convolution: fc is `(P, 3 N)`, or None where dep is composed already.

    Returns:
        Kernel `(D, N, 3 N, k, k)` and None where one composed convolution is cheaper (DESIGN.md, identity E3), else
        kernel `(D, N, P, k, k)` and `(P, 3 N)`; contiguous.
    """
    dep, fc, rate = widen_to(features, *convolution)
    if rate is not None:
        dep = dep * rate
    if fc is None or not composes_kernels(heads, *dep.shape[1:3]):
        return dep.unflatten(0, (-1, heads)).contiguous(), None if fc is None else fc.contiguous()
    # (3 N, P) @ (C, P, k k): the kernel of every output channel composed.
    composed = fc.t() @ dep.flatten(2)
    return composed.reshape(-1, heads, 3 * heads, *dep.shape[2:]), None


def compose_all(projection: Projection, heads: int, convolution: Convolution) -> tuple[Tensor, Tensor | None]:
    """The convolution path as one dense convolution of the input (DESIGN.md, identity E4), in the weights' dtype.

    Args:
        projection: Of the input to 3 N maps of D channels.
        heads: N.
        convolution: Of these maps.

    Returns:
        Kernel `(C, C_in, k, k)`, its rate in it, with neighbouring channels of the input next to each other in memory;
        and kernel `(C, 1, k, k)` of a map of ones, what the projection's bias becomes, or None without one.
    """
    dep, fc, rate = convolution
    taps = dep.flatten(2).transpose(1, 2)
    if fc is not None:
        taps = taps @ (fc if rate is None else fc * rate)
    elif rate is not None:
        taps = taps * rate
    # Every group has a product of its own: (D, N k k, 3 N) by (D, 3 N, C_in).
    taps = taps.reshape(-1, heads * taps.shape[1], taps.shape[2])

    def of_kernel(weight: Tensor) -> Tensor:
        composed = taps @ weight.reshape(3 * heads, len(taps), -1).transpose(0, 1)
        return composed.reshape(heads * len(taps), *dep.shape[2:], -1).permute(0, 3, 1, 2)

    return of_kernel(projection.weight), None if projection.bias is None else of_kernel(projection.bias)


def constant_map(projections: Tensor, bias: Tensor, convolution: Convolution, grid: Grid) -> Tensor:
    """What the convolution path makes of a bias of fc: that of the kernels which a cell's taps on the map see.

    Args:
        projections: `(B, 3 N, D, H, W)`; of the result's dtype.
        bias: `(P,)`.
        convolution: Its dep and its rate count.
        grid: Of the path.

    Returns:
        `(1, C, H', W')`, with neighbouring channels next to each other in memory where the projections have them so.
    """
    with without_autocast(projections.device):
        dep, constants, rate = widen_to(projections, convolution.dep, bias, convolution.rate)
        # (C, k k), and of every tap whether it lies on the map, (k k, H' W').
        taps = dep.flatten(2).transpose(1, 2) @ constants
        if rate is not None:
            taps = taps * rate
        rows, columns = (_taps_on_map(size, grid, dep) for size in projections.shape[-2:])
        seen = (rows[:, None, :, None] * columns[:, None]).flatten(2).flatten(0, 1)
        constant = (seen.t() @ taps.t()).t() if is_channels_last(projections) else taps @ seen
    return constant.to(projections.dtype).unflatten(1, (rows.shape[1], columns.shape[1]))[None]


def _taps_on_map(size: int, grid: Grid, kernels: Tensor) -> Tensor:
    """1 for every tap of an axis that lies on the map, and 0, `(k, size')`."""
    outputs = grid.stride * torch.arange(output_size(size, grid.stride), device=kernels.device)
    places = outputs + window_offsets(kernels.shape[-1], grid.dilation, kernels.device)[:, None]
    return ((places >= 0) & (places < size)).to(kernels.dtype)
