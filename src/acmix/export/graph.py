"""Stage II, and stage I with it where that is cheaper, as a graph of standard ONNX operators for every map size."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import opset18 as op

from acmix.export.windows import TILE, Cells, Grid, array, cells_of_map, numbers

# Logits are raised to this much below the one of their query's own cell: e^-60 is nothing in float32, but not yet a
# number of the slow, denormal kind, through which ONNX Runtime's softmax makes 0 of -inf.
_FLOOR = -60.0
# Numbers that a gather brings at once, at least: fewer cost as much, and OpenVINO takes them one by one.
_RUN = 32


def translation() -> Callable[..., Any]:
    """Make the function that writes the graph of every `acmix_export::mix` of one network.

    Operators on maps of one size share their index tensors. Arguments are values of the graph and numbers, as
    `stage2.ExportedACmix` makes them.
    """
    known: dict[tuple[object, ...], Cells] = {}

    def mix(
        maps: Any,
        projection: Any,
        query_bias: Any,
        border: Any,
        position: Any,
        kernels: Any,
        bias: Any,
        rate: Any,
        heads: int,
        window: int,
        stride: int,
        dilation: int,
    ) -> Any:
        size, grid, sizes = position.shape[0], Grid(window, stride, dilation), maps.shape[2:]
        run = 1 if projection is None or size >= _RUN else min(_RUN // size, TILE)
        # Sizes that are written alike are equal.
        key = (*map(str, sizes), grid, run, maps.dtype)
        if key not in known:
            known[key] = cells_of_map(op.Shape(maps), list(sizes), grid, run, maps.dtype)
        cells = known[key]
        if projection is None:
            query, key, value = _split(maps, cells, heads, size)
        else:
            query, key, value = _project(maps, projection, query_bias, cells, heads, size)
        key = op.Sub(key, op.MatMul(cells.locations, op.Transpose(position, perm=[1, 0])))
        attention = _attend(query, key, value, cells, heads, size, maps.dtype)
        if rate is not None:
            attention = op.Mul(attention, rate)
        # (B, N, H' W', D) to channels n D + d.
        attention = op.Transpose(attention, perm=[0, 1, 3, 2])
        convolution = _convolve(maps, maps.shape[1], kernels, bias, grid)
        output = op.Add(op.Reshape(attention, op.Shape(convolution)), convolution)
        return output if border is None else op.Add(output, _convolve(_ones(maps), 1, border, None, grid))

    return mix


def _split(maps: Any, cells: Cells, heads: int, size: int) -> tuple[Any, Any, Any]:
    """Queries of all tiles and keys and values of all cells, `(B, N, .., D)`, of `(B, D * 3 N, H, W)`."""
    rows = op.Transpose(op.Reshape(maps, numbers(0, size, 3 * heads, -1)), perm=[0, 2, 3, 1])
    query, key, value = op.Split(rows, num_outputs=3, axis=1)
    return query if cells.queries is None else op.Gather(query, cells.queries, axis=2), key, value


def _project(maps: Any, projection: Any, query_bias: Any, cells: Cells, heads: int, size: int) -> tuple[Any, Any, Any]:
    """The same of the operator's input, `(B, C_in, H, W)`: its cells are wide rows, which are quick to gather."""
    inputs = maps.shape[1]
    weights = op.Split(projection, num_outputs=3, axis=0)
    rows = op.Transpose(maps, perm=[0, 2, 3, 1])
    every = op.Reshape(rows, numbers(0, 1, -1, inputs))
    of_keys = every
    if cells.columns is not None:
        of_keys = op.Reshape(op.Gather(rows, cells.columns, axis=2), numbers(0, 1, -1, inputs))
    of_queries = every if cells.queries is None else op.Gather(every, cells.queries, axis=2)
    sources = of_queries, of_keys, of_keys
    query, key, value = (op.MatMul(source, weight) for source, weight in zip(sources, weights, strict=True))
    if query_bias is not None:
        # Several cells at once: ONNX Runtime adds short rows slowly.
        count = 1 if cells.keys is None else TILE
        query = op.Reshape(query, numbers(0, heads, -1, count * size))
        query = op.Add(query, op.Tile(query_bias, numbers(1, 1, count)))
    return query, key, value


def _attend(query: Any, key: Any, value: Any, cells: Cells, heads: int, size: int, dtype: Any) -> Any:
    """Attention, `(B, N, H' W', D)`."""
    queries, keys = cells.mask.shape

    def gather(rows: Any, places: Any, run: int, count: int | None = None) -> Any:
        if places is not None:
            rows = op.Gather(op.Reshape(rows, numbers(0, heads, -1, run * size)), places, axis=2)
        # (B, N, cells, D) or (B, N, tiles, cells of a tile, D)
        return op.Reshape(rows, numbers(0, heads, -1, *(() if count is None else (count,)), size))

    query = gather(query, None, 1, queries)
    key, value = (gather(rows, cells.keys, cells.run, keys) for rows in (key, value))
    logits: Any = op.MatMul(query, op.Transpose(key, perm=[0, 1, 2, 4, 3]))
    # Half precision sums and masks its weights in float32.
    half = dtype != ir.DataType.FLOAT
    logits = op.Add(op.Cast(logits, to=ir.DataType.FLOAT) if half else logits, array(cells.mask))
    own = op.Gather(op.Reshape(logits, numbers(0, heads, -1, queries * keys)), array(cells.own), axis=3)
    # Of every query a number: ONNX Runtime is ten times slower at adding one for all.
    floor: Any = op.Add(op.Unsqueeze(own, numbers(4)), array(np.full((queries, 1), _FLOOR, np.float32)))
    weights: Any = op.Softmax(op.Max(logits, floor), axis=-1)
    attention = op.MatMul(op.Cast(weights, to=dtype) if half else weights, value)
    return gather(attention, cells.outputs, cells.run_of_outputs)


def _convolve(maps: Any, inputs: int, kernels: Any, bias: Any, grid: Grid) -> Any:
    """A convolution whose groups follow from its kernels."""
    kernel = kernels.shape[-1]
    return op.Conv(
        maps,
        kernels,
        bias,
        group=inputs // kernels.shape[1],
        kernel_shape=[kernel, kernel],
        pads=[grid.dilation * (kernel // 2)] * 4,
        strides=[grid.stride] * 2,
        dilations=[grid.dilation] * 2,
    )


def _ones(maps: Any) -> Any:
    """A map of ones for every image, of the size of the maps.

    One for all images would do, but OpenVINO 2026.4.1 fuses its convolution with the addition as if both had one batch.
    """
    one, shape = array(np.ones((1, 1, 1, 1), maps.dtype.numpy())), op.Shape(maps)
    # Slices: the quantiser of ONNX Runtime 1.23 knows no part of a Shape.
    batch, sizes = op.Slice(shape, numbers(0), numbers(1)), op.Slice(shape, numbers(2), numbers(4))
    return op.Expand(one, op.Concat(batch, numbers(1), sizes, axis=0))
