"""Stage II as a graph of standard ONNX operators, for every map size: gathers, matrix products, one convolution.

Queries are cut into tiles of `TILE` x `TILE` cells; a gather with reflected indices brings the keys and values that a
tile's windows reach, one row of D numbers a cell, and a constant mask leaves each query its window. PyTorch's exporter
sees one opaque operator, so that it need not reason about tiles of symbolic sizes, which takes it minutes a network.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx.numpy_helper import from_array
from onnxscript import opset18 as op
from torch import Tensor, nn

from acmix.nn import ACmix
from acmix.ops.geometry import output_size
from acmix.plain import why_not_plain
from acmix.surgery import FusedACmix

OPSET = 18
# Queries a tile and axis. Larger tiles copy fewer keys but take the softmax of more cells outside of the windows.
TILE = 4
# Channels that ONNX Runtime computes at once, on its widest processors.
_BLOCK = 16
# Logits are raised to this much below the one of their query's own cell: e^-60 is nothing in float32, but not yet a
# number of the slow, denormal kind, through which ONNX Runtime's softmax makes 0 of -inf.
_FLOOR = -60.0

torch.library.define(
    "acmix_export::mix",
    "(Tensor projections, Tensor position, Tensor kernels, Tensor bias, Tensor rate, int heads, int window, "
    "int stride, int dilation) -> Tensor",
)


@torch.library.register_fake("acmix_export::mix")
def _empty_output(
    projections: Tensor,
    position: Tensor,  # noqa: ARG001
    kernels: Tensor,
    bias: Tensor,  # noqa: ARG001
    rate: Tensor,  # noqa: ARG001
    heads: int,  # noqa: ARG001
    window: int,  # noqa: ARG001
    stride: int,
    dilation: int,  # noqa: ARG001
) -> Tensor:
    batch, _, height, width = projections.shape
    return projections.new_empty(batch, len(kernels), output_size(height, stride), output_size(width, stride))


class ExportedACmix(nn.Module):
    """A fused operator as the exporter is to see it; it computes nothing itself.

    The scale D^-1/2 of the logits is in the weights of the queries, and out of the kernels that read them; a
    projection that is more than a convolution is called as it is, and its queries are scaled.

    Args:
        operator: Its weights are copied.
    """

    def __init__(self, operator: ACmix | FusedACmix) -> None:
        super().__init__()
        operator = operator if isinstance(operator, FusedACmix) else FusedACmix(operator)
        heads, size = operator.heads, operator.position_weight.shape[0]
        scale = size**-0.5
        kernels = operator.kernel_weight.detach()
        if operator.fc_weight is not None:
            kernels = torch.einsum("pc,opyx->ocyx", operator.fc_weight, kernels)
        # By head of q, k and v.
        queries = torch.ones(3 * heads, 1).to(kernels)
        queries[:heads] = scale
        kernels = kernels / queries[:, None]
        self.kernel_weight = _constant(_join_groups(kernels, size))
        self.qkv, self.queries = operator.qkv, None
        if why_not_plain(operator.qkv, nn.Conv2d) is None:
            # The convolution path's order: all maps of one place in the heads together.
            weight, bias = operator.qkv.weight.flatten(1), operator.qkv.bias
            weight = (weight.unflatten(0, (-1, size)) * queries[..., None]).transpose(0, 1)
            self.qkv = nn.Conv2d(operator.qkv.in_channels, 3 * heads * size, 1, bias=bias is not None).to(weight)
            self.qkv.weight = _constant(weight.reshape(self.qkv.weight.shape))
            if bias is not None:
                self.qkv.bias = _constant((bias.unflatten(0, (-1, size)) * queries).transpose(0, 1).flatten())
        else:
            self.queries = _constant(queries[..., None, None])
        bias = torch.zeros(heads * size).to(kernels) if operator.bias is None else operator.bias
        self.position_weight, self.rate, self.bias = operator.position_weight, operator.rate_attention, _constant(bias)
        self.numbers = heads, operator.kernel_att, operator.stride[0], operator.dilation[0]

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C_in, H, W)` to `(B, C, ceil(H / s), ceil(W / s))`."""
        weights = self.position_weight, self.kernel_weight, self.bias, self.rate
        projections = self.qkv(x)
        if self.queries is not None:
            maps = projections.unflatten(1, (3 * self.numbers[0], -1)) * self.queries
            projections = maps.transpose(1, 2).flatten(1, 2)
        return torch.ops.acmix_export.mix(projections, *weights, *self.numbers)


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)


def _join_groups(kernels: Tensor, groups: int) -> Tensor:
    """Kernels of fewer, larger groups that compute the same, where this fills blocks: zeros cost less than small ones.

    Args:
        kernels: `(C, 3 N, k, k)`.
        groups: D of them.

    Returns:
        `(C, 3 N j, k, k)`, j groups in one.
    """
    heads = len(kernels) // groups
    joined = _BLOCK // math.gcd(_BLOCK, heads)
    if groups % joined:
        return kernels
    parts = kernels.unflatten(0, (-1, joined, heads))
    whole = kernels.new_zeros(*parts.shape[:3], joined, *parts.shape[3:])
    for place in range(joined):
        whole[:, place, :, place] = parts[:, place]
    return whole.flatten(3, 4).flatten(0, 2)


def _numbers(*values: int) -> Any:
    return op.Constant(value_ints=list(values))


def _array(values: np.ndarray | np.generic) -> Any:
    return op.Constant(value=from_array(np.asarray(values)))


class _Axis:
    """Index tensors of one axis of the map, which has `size` cells and `tiles` tiles.

    Attributes:
        queries: Cell of every query, `(tiles, TILE)`; those beyond the map repeat its last cell.
        keys: Cell of every key, reflected into the map, `(tiles, keys)`.
        tile_of_output: Tile that computes every output, `(ceil(size / stride),)`.
        place_in_tile: Its place there.
        location: linspace(-1, 1, size); one cell lies at -1.
    """

    def __init__(self, shape: Any, axis: int, stride: int, reach: int) -> None:
        one = _numbers(1)
        self.size = op.Slice(shape, _numbers(axis), _numbers(axis + 1))
        outputs = op.Div(op.Add(self.size, _numbers(stride - 1)), _numbers(stride))
        self.tiles = op.Div(op.Add(outputs, _numbers(TILE - 1)), _numbers(TILE))
        last = op.Sub(self.size, one)

        def count(number: Any) -> Any:
            return op.Range(_array(np.array(0)), op.Squeeze(number), _array(np.array(1)))

        first = op.Unsqueeze(op.Mul(count(self.tiles), _numbers(TILE * stride)), one)
        self.queries = op.Min(op.Add(first, _array(stride * np.arange(TILE))), last)
        half = op.Max(last, one)
        keys = op.Add(first, _array(np.arange(key_count(stride, reach)) - reach))
        keys = op.Sub(half, op.Abs(op.Sub(op.Mod(keys, op.Mul(half, _numbers(2))), half)))
        self.keys = op.Min(keys, last)
        every = count(outputs)
        self.tile_of_output, self.place_in_tile = op.Div(every, _numbers(TILE)), op.Mod(every, _numbers(TILE))
        cells, half = (op.Cast(number, to=ir.DataType.FLOAT) for number in (count(self.size), half))
        self.location = op.Sub(op.Div(op.Mul(cells, _array(np.float32(2))), half), _array(np.float32(1)))


def key_count(stride: int, reach: int) -> int:
    """Cells an axis that the windows of a tile reach."""
    return stride * (TILE - 1) + 1 + 2 * reach


def _places(rows: Any, columns: Any, width: Any, count: int) -> Any:
    """Place in the flattened map of every pair of `(tiles, count)` rows and columns, `(all tiles, count^2)`."""
    rows = op.Reshape(op.Mul(rows, width), _numbers(-1, 1, count, 1))
    columns = op.Reshape(columns, _numbers(1, -1, 1, count))
    return op.Reshape(op.Add(rows, columns), _numbers(-1, count**2))


def translation() -> Callable[..., Any]:
    """Make the function that writes the graph of every `acmix_export::mix` of one network.

    Operators on maps of one size share their index tensors. Arguments are values of the graph and numbers: projections
    `(B, D 3 N, H, W)` with queries times D^-1/2, W_p `(D, 2)`, composed kernels with beta as `_join_groups` makes
    them, their bias `(C,)`, alpha `(1,)`, heads N, window k_a, stride s, dilation e.
    """
    geometries: dict[tuple[object, ...], _Geometry] = {}

    def mix(
        projections: Any,
        position: Any,
        kernels: Any,
        bias: Any,
        rate: Any,
        heads: int,
        window: int,
        stride: int,
        dilation: int,
    ) -> Any:
        size, kernel, dtype = kernels.shape[0] // heads, kernels.shape[-1], projections.dtype
        groups = 3 * heads * size // kernels.shape[1]
        shape = op.Shape(projections)
        # Sizes that are written alike are equal.
        key = (*map(str, projections.shape[2:]), window, stride, dilation, dtype)
        if key not in geometries:
            geometries[key] = _Geometry(shape, window, stride, dilation, dtype)
        maps = op.Reshape(projections, _numbers(0, size, 3 * heads, -1))
        attention = _attend(maps, position, rate, geometries[key], heads, size)
        convolution = op.Conv(
            projections,
            kernels,
            bias,
            group=groups,
            kernel_shape=[kernel, kernel],
            pads=[dilation * (kernel // 2)] * 4,
            strides=[stride] * 2,
            dilations=[dilation] * 2,
        )
        return op.Add(op.Reshape(attention, op.Shape(convolution)), convolution)

    return mix


def _attend(maps: Any, position: Any, rate: Any, geometry: "_Geometry", heads: int, size: int) -> Any:
    """alpha times attention, `(B, N, D, H' W')`, of `(B, D, 3 N, H W)`."""
    # (B, 3 N, H W, D): a cell is a row.
    cells = op.Transpose(maps, perm=[0, 2, 3, 1])
    query, key, value = op.Split(cells, num_outputs=3, axis=1)
    key = op.Sub(key, op.MatMul(geometry.locations, op.Transpose(position, perm=[1, 0])))
    key, value = (op.Gather(cells, geometry.keys, axis=2) for cells in (key, value))
    # (B, N, tiles, queries, keys)
    logits = op.MatMul(op.Gather(query, geometry.queries, axis=2), op.Transpose(key, perm=[0, 1, 2, 4, 3]))
    # Half precision sums and masks its weights in float32.
    half = geometry.dtype != ir.DataType.FLOAT
    logits = op.Add(op.Cast(logits, to=ir.DataType.FLOAT) if half else logits, geometry.mask)
    own = op.Gather(op.Reshape(logits, _numbers(0, heads, -1, TILE**2 * geometry.key_cells)), geometry.own, axis=3)
    # Of every query a number: ONNX Runtime is ten times slower at adding one for all.
    floor = op.Add(op.Unsqueeze(own, _numbers(4)), _array(np.full((TILE**2, 1), _FLOOR, np.float32)))
    weights = op.Softmax(op.Max(logits, floor), axis=-1)
    attention = op.MatMul(op.Cast(weights, to=geometry.dtype) if half else weights, value)
    attention = op.Reshape(attention, _numbers(0, heads, -1, size))
    return op.Transpose(op.Gather(op.Mul(attention, rate), geometry.outputs, axis=2), perm=[0, 1, 3, 2])


class _Geometry:
    """Index tensors of a map of one size.

    Attributes:
        queries: Place in the flattened map of every query, `(tiles, TILE^2)`.
        keys: The same of every key, `(tiles, keys^2)`.
        outputs: Place of every output among the queries of all tiles, `(H' W',)`.
        locations: loc of every cell, `(H W, 2)`.
        dtype: Of the maps.
        mask: 0 for keys in a query's window, -inf for others, `(TILE^2, keys^2)`.
        key_cells: keys^2, the cells that the windows of a tile reach.
        own: Place of every query's own cell in the logits of a tile, `(TILE^2,)`.
    """

    def __init__(self, shape: Any, window: int, stride: int, dilation: int, dtype: Any) -> None:
        self.dtype = dtype
        reach = dilation * (window // 2)
        rows, columns = (_Axis(shape, axis, stride, reach) for axis in (2, 3))
        self.queries = _places(rows.queries, columns.queries, columns.size, TILE)
        self.keys = _places(rows.keys, columns.keys, columns.size, key_count(stride, reach))
        self.mask = _array(_mask(window, stride, dilation))
        self.key_cells = key_count(stride, reach) ** 2
        self.own = _array(_own_places(stride, reach))
        tile_rows = op.Mul(rows.tile_of_output, columns.tiles)
        tiles = op.Mul(op.Add(op.Unsqueeze(tile_rows, _numbers(1)), columns.tile_of_output), _numbers(TILE**2))
        within = op.Add(op.Unsqueeze(op.Mul(rows.place_in_tile, _numbers(TILE)), _numbers(1)), columns.place_in_tile)
        self.outputs = op.Reshape(op.Add(tiles, within), _numbers(-1))
        zero = _array(np.zeros((), np.float32))
        across = op.Add(columns.location, op.Mul(op.Unsqueeze(rows.location, _numbers(1)), zero))
        down = op.Add(op.Mul(columns.location, zero), op.Unsqueeze(rows.location, _numbers(1)))
        both = op.Concat(*(op.Reshape(axis, _numbers(-1, 1)) for axis in (across, down)), axis=1)
        self.locations = op.Cast(both, to=dtype)


def _mask(window: int, stride: int, dilation: int) -> np.ndarray:
    reach = dilation * (window // 2)
    queries = stride * np.arange(TILE) + reach
    offset = np.arange(key_count(stride, reach)) - queries[:, None]
    seen = (abs(offset) <= reach) & (offset % dilation == 0)
    both = seen[:, None, :, None] & seen[None, :, None, :]
    return np.where(both, 0, -np.inf).astype(np.float32).reshape(TILE**2, -1)


def _own_places(stride: int, reach: int) -> np.ndarray:
    keys, cells = key_count(stride, reach), stride * np.arange(TILE) + reach
    own = (cells[:, None] * keys + cells).reshape(-1)
    return np.arange(TILE**2) * keys**2 + own
