"""Which cells the windows of a map reach, as index tensors of an ONNX graph, for every map size.

Queries are cut into tiles of `TILE` x `TILE` cells, with the keys that their windows reach; a small map of known size
is one tile.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from onnx.numpy_helper import from_array
from onnxscript import opset18 as op

# Queries a tile and axis. Larger tiles copy fewer keys but take the softmax of more cells outside of the windows.
TILE = 4
# A map is one tile if it then has at most so many times the logits: nothing is copied.
_WHOLE = 2


class Grid(NamedTuple):
    """What of an operator decides which cells it reads; window k_a, stride s, dilation e."""

    window: int
    stride: int
    dilation: int

    @property
    def reach(self) -> int:
        """Cells that a window reaches beside its own, on each side."""
        return self.dilation * (self.window // 2)

    @property
    def keys(self) -> int:
        """Cells an axis that the windows of a tile reach."""
        return self.stride * (TILE - 1) + 1 + 2 * self.reach


class Cells(NamedTuple):
    """Cells of a map, for attention. What is None takes all cells as they are.

    Attributes:
        mask: Logarithm of how often a query's window has a key, -inf if never, `(queries, keys)`.
        own: Place of every query's own cell in the flattened mask, `(queries,)`.
        locations: loc of every cell that keys are made of, `(H W, 2)` or `(H * columns, 2)`.
        queries: Cell of every query of every tile, `(tiles * queries,)`; those beyond the map repeat its last cells.
        columns: Columns of the map that keys are made of, `(columns,)`: reflected, so that runs of keys are neighbours.
        keys: Place of every run of keys among those of the map, `(tiles * runs,)`, rows reflected.
        run: Keys in a run.
        outputs: Place of every run of outputs among the queries, `(H' W' / run,)`.
        run_of_outputs: Outputs that lie beside each other in a tile.
    """

    mask: np.ndarray
    own: np.ndarray
    locations: Any
    queries: Any = None
    columns: Any = None
    keys: Any = None
    run: int = 1
    outputs: Any = None
    run_of_outputs: int = 1


def cells_of_map(shape: Any, sizes: Sequence[Any], grid: Grid, run: int, dtype: Any) -> Cells:
    """Write the index tensors of maps of one size.

    Args:
        shape: Of the maps, `(4,)`, a value of the graph.
        sizes: H and W, numbers where one graph need not serve every size.
        grid: What windows reach.
        run: Keys of neighbouring columns that are to lie beside each other in memory: 1, 2 or 4.
        dtype: Of locations.
    """
    rows, columns = (_Axis(shape, axis, grid) for axis in (2, 3))
    known = all(isinstance(size, int) for size in sizes)
    if known and _is_one_tile(sizes, grid):
        queries = _places(rows.outputs, columns.outputs, columns.size) if grid.stride > 1 else None
        locations = _locations(rows.location, columns.location, dtype)
        return Cells(_whole_mask(sizes, grid), _whole_own(sizes, grid), locations, queries)
    # A row's columns in runs: those that the tiles before the last step over, and those that the last reaches.
    runs, step = -(-grid.keys // run), TILE * grid.stride // run
    width, first, reflected, across = columns.size, columns.keys, None, columns.location
    if run > 1:
        width = op.Add(op.Mul(op.Sub(columns.tiles, numbers(1)), numbers(step)), numbers(runs))
        first = op.Unsqueeze(op.Mul(_count(columns.tiles), numbers(step)), numbers(1))
        first = op.Add(first, array(np.arange(runs)))
        reflected = columns.reflect(op.Sub(_count(op.Mul(width, numbers(run))), numbers(grid.reach)))
        across = op.Gather(across, reflected)
    run_of_outputs = TILE if known and -(-sizes[1] // grid.stride) % TILE == 0 else 1
    return Cells(
        mask=_tile_mask(grid, runs * run),
        own=_tile_own(grid, runs * run),
        locations=_locations(rows.location, across, dtype),
        queries=_places(rows.queries, columns.queries, columns.size),
        columns=reflected,
        keys=_places(rows.keys, first, width),
        run=run,
        outputs=_outputs(rows, columns, run_of_outputs),
        run_of_outputs=run_of_outputs,
    )


class _Axis:
    """Index tensors of one axis of the map, which has `size` cells and `tiles` tiles.

    Attributes:
        outputs: Cell of every output, `(1, ceil(size / stride))`.
        queries: Cell of every query, `(tiles, TILE)`; those beyond the map repeat its last cell.
        keys: Cell of every key, reflected into the map, `(tiles, keys)`.
        location: linspace(-1, 1, size); one cell lies at -1.
    """

    def __init__(self, shape: Any, axis: int, grid: Grid) -> None:
        one, stride = numbers(1), grid.stride
        self.size = op.Slice(shape, numbers(axis), numbers(axis + 1))
        self.count = op.Div(op.Add(self.size, numbers(stride - 1)), numbers(stride))
        self.tiles = op.Div(op.Add(self.count, numbers(TILE - 1)), numbers(TILE))
        self.outputs = op.Unsqueeze(op.Mul(_count(self.count), numbers(stride)), numbers(0))
        first = op.Unsqueeze(op.Mul(_count(self.tiles), numbers(TILE * stride)), one)
        self.queries = op.Min(op.Add(first, array(stride * np.arange(TILE))), op.Sub(self.size, one))
        self.keys = self.reflect(op.Add(first, array(np.arange(grid.keys) - grid.reach)))
        cells: Any = op.Cast(_count(self.size), to=ir.DataType.FLOAT)
        half: Any = op.Cast(self._half(), to=ir.DataType.FLOAT)
        self.location: Any = op.Sub(op.Div(op.Mul(cells, array(np.float32(2))), half), array(np.float32(1)))

    def _half(self) -> Any:
        return op.Max(op.Sub(self.size, numbers(1)), numbers(1))

    def reflect(self, cells: Any) -> Any:
        """Mirror cells into the map without repeating its edges."""
        half = self._half()
        cells = op.Sub(half, op.Abs(op.Sub(op.Mod(cells, op.Mul(half, numbers(2))), half)))
        return op.Min(cells, op.Sub(self.size, numbers(1)))


def numbers(*values: int) -> Any:
    """A constant of integers."""
    return op.Constant(value_ints=list(values))


def array(values: np.ndarray | np.generic) -> Any:
    """A constant."""
    return op.Constant(value=from_array(np.asarray(values)))


def _count(number: Any) -> Any:
    return op.Range(array(np.array(0)), op.Squeeze(number), array(np.array(1)))


def _places(rows: Any, columns: Any, width: Any) -> Any:
    """Place in the flattened map of every pair of `(tiles, count)` rows and columns, tile by tile."""
    rows = op.Unsqueeze(op.Mul(rows, width), numbers(1, 3))
    return op.Reshape(op.Add(rows, op.Unsqueeze(columns, numbers(0, 2))), numbers(-1))


def _outputs(rows: _Axis, columns: _Axis, run: int) -> Any:
    """Place of every run of outputs among the queries of all tiles."""
    every = _count(rows.count), op.Mul(_count(op.Div(columns.count, numbers(run))), numbers(run))
    (tile_rows, tile_columns), (row, column) = (
        [operator(cells, numbers(TILE)) for cells in every] for operator in (op.Div, op.Mod)
    )

    def pairs(rows: Any, width: Any, columns: Any) -> Any:
        return op.Add(op.Unsqueeze(op.Mul(rows, width), numbers(1)), columns)

    tiles = op.Mul(pairs(tile_rows, columns.tiles, tile_columns), numbers(TILE**2))
    places = op.Add(tiles, pairs(row, numbers(TILE), column))
    return op.Reshape(op.Div(places, numbers(run)), numbers(-1))


def _locations(down: Any, across: Any, dtype: Any) -> Any:
    zero = array(np.zeros((), np.float32))
    down = op.Unsqueeze(down, numbers(1))
    both = op.Add(across, op.Mul(down, zero)), op.Add(op.Mul(across, zero), down)
    return op.Cast(op.Concat(*(op.Reshape(axis, numbers(-1, 1)) for axis in both), axis=1), to=dtype)


def _is_one_tile(sizes: Sequence[int], grid: Grid) -> bool:
    outputs = [-(-size // grid.stride) for size in sizes]
    tiled = [-(-count // TILE) * TILE * grid.keys for count in outputs]
    return math.prod((*outputs, *sizes)) <= _WHOLE * math.prod(tiled)


def _whole_mask(sizes: Sequence[int], grid: Grid) -> np.ndarray:
    """The mask of every output and every cell: windows see reflected cells again."""
    rows, columns = (_times_seen(size, grid) for size in sizes)
    times = rows[:, None, :, None] * columns[None, :, None, :]
    with np.errstate(divide="ignore"):
        return np.log(times.reshape(len(rows) * len(columns), -1)).astype(np.float32)


def _times_seen(size: int, grid: Grid) -> np.ndarray:
    """How often the window of every output of an axis has every cell, `(outputs, size)`."""
    offsets = grid.dilation * (np.arange(grid.window) - grid.window // 2)
    half = max(size - 1, 1)
    cells = np.arange(0, size, grid.stride)[:, None] + offsets
    cells = np.minimum(half - abs(cells % (2 * half) - half), size - 1)
    return (cells[..., None] == np.arange(size)).sum(1)


def _whole_own(sizes: Sequence[int], grid: Grid) -> np.ndarray:
    rows, columns = (np.arange(0, size, grid.stride) for size in sizes)
    return _own(rows, columns, sizes[1], math.prod(sizes))


def _own(rows: np.ndarray, columns: np.ndarray, width: int, keys: int) -> np.ndarray:
    own = (rows[:, None] * width + columns).reshape(-1)
    return own + np.arange(len(own)) * keys


def _tile_mask(grid: Grid, columns: int) -> np.ndarray:
    """The mask of a tile, whose keys have `columns` columns, which may be more than its windows reach."""
    queries = grid.stride * np.arange(TILE)[:, None] + grid.reach

    def seen(count: int) -> np.ndarray:
        offset = np.arange(count) - queries
        return (abs(offset) <= grid.reach) & (offset % grid.dilation == 0)

    both = seen(grid.keys)[:, None, :, None] & seen(columns)[None, :, None, :]
    return np.where(both, 0, -np.inf).astype(np.float32).reshape(TILE**2, -1)


def _tile_own(grid: Grid, columns: int) -> np.ndarray:
    within = grid.stride * np.arange(TILE) + grid.reach
    return _own(within, within, columns, grid.keys * columns)
