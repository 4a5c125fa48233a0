"""The definition of Stage II, written to be read beside the equations; the specification of every other backend.

Half precision is computed in float32 and rounded once, at the end. Memory is O(B C H W window^2): for tests and
explanation, not for networks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from acmix.ops.contract import Backend, Convolution, Features, Grid, Weights
from acmix.ops.geometry import output_size, position_map, reflect, window_offsets
from acmix.ops.precision import widen, widen_to, without_autocast


def _window_indices(size: int, window: int, stride: int, dilation: int, device: torch.device) -> Tensor:
    """Cell of every window position along one axis, `(ceil(size / stride), window)`."""
    queries = stride * torch.arange(output_size(size, stride), device=device)
    return reflect(queries[:, None] + window_offsets(window, dilation, device), size)


def unfold_window(feature: Tensor, window: int, stride: int, dilation: int) -> Tensor:
    """Gather the reflected window of every query: `(..., H, W)` to `(..., H', W', window, window)`."""
    height, width = feature.shape[-2:]
    rows = _window_indices(height, window, stride, dilation, feature.device)
    columns = _window_indices(width, window, stride, dilation, feature.device)
    return feature[..., rows[:, None, :, None], columns[None, :, None, :]]


def attention_weights(
    query: Tensor, key: Tensor, position: Tensor | None, window: int, stride: int, dilation: int
) -> Tensor:
    """Softmax weights of every window cell, `(B, N, H', W', window, window)`; they sum to 1 over the last two axes.

    logit = D^-1/2 q_i . (k_j + pe_i - pe_j) (paper eq. 12), j over the reflected window of i.
    """
    query = query[..., ::stride, ::stride]
    keys = unfold_window(key, window, stride, dilation)
    if position is not None:
        at_query = position[..., ::stride, ::stride, None, None]
        keys = keys + at_query - unfold_window(position, window, stride, dilation)
    logits = torch.einsum("bndyx,bndyxuv->bnyxuv", query, keys) * query.shape[2] ** -0.5
    return logits.flatten(-2).softmax(-1).unflatten(-1, (window, window))


def attend(
    query: Tensor, key: Tensor, value: Tensor, position: Tensor | None, window: int, stride: int, dilation: int
) -> Tensor:
    """The attention path in the dtype of its inputs, `(B, N, D, H', W')`; position is pe, `(D, H, W)`, or None."""
    weights = attention_weights(query, key, position, window, stride, dilation)
    return torch.einsum("bnyxuv,bndyxuv->bndyx", weights, unfold_window(value, window, stride, dilation))


def convolve(projections: Tensor, fc_weight: Tensor | None, dep_weight: Tensor, stride: int, dilation: int) -> Tensor:
    """The convolution path in the dtype of its inputs, `(B, D * N, H', W')`; projections are `(B, 3 N, D, H, W)`."""
    mixed = projections.transpose(1, 2)
    if fc_weight is not None:
        mixed = torch.einsum("pc,bdcyx->bdpyx", fc_weight, mixed)
    padding = dilation * (dep_weight.shape[-1] // 2)
    return F.conv2d(
        mixed.flatten(1, 2), dep_weight, stride=stride, padding=padding, dilation=dilation, groups=projections.shape[2]
    )


class Reference(Backend):
    """The definition."""

    def why_not(self, features: Features | None, grid: Grid) -> str | None:  # noqa: ARG002
        """None: it takes everything."""
        return None

    def local_attention(self, query: Tensor, key: Tensor, value: Tensor, position: Tensor | None, grid: Grid) -> Tensor:
        """The attention path."""
        with without_autocast(query.device):
            return _attend(*widen(query, key, value), position=position, grid=grid).to(query.dtype)

    def shift_conv(self, projections: Tensor, convolution: Convolution, grid: Grid) -> Tensor:
        """The convolution path in two steps, fc then grouped convolution."""
        with without_autocast(projections.device):
            (wide,) = widen(projections)
            return _convolve(wide, convolution, grid).to(projections.dtype)

    def mix(self, projections: Tensor, weights: Weights, grid: Grid) -> Tensor:
        """Both paths and their sum."""
        with without_autocast(projections.device):
            (wide,) = widen(projections)
            (alpha,) = widen_to(wide, weights.rate)
            attention = _attend(*wide.chunk(3, 1), position=weights.position, grid=grid).flatten(1, 2)
            return (alpha * attention + _convolve(wide, weights.convolution, grid)).to(projections.dtype)


def _convolve(projections: Tensor, convolution: Convolution, grid: Grid) -> Tensor:
    dep, fc, beta = widen_to(projections, *convolution)
    output = convolve(projections, fc, dep, grid.stride, grid.dilation)
    return output if beta is None else beta * output


def _attend(query: Tensor, key: Tensor, value: Tensor, *, position: Tensor | None, grid: Grid) -> Tensor:
    positions = None if position is None else position_map(position, *query.shape[-2:]).to(query.dtype)
    return attend(query, key, value, positions, grid.window, grid.stride, grid.dilation)
