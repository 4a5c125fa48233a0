"""Between the cells of a layer's map and the pixels of the network's input.

A map of n cells over an axis of `size` pixels divides it evenly: cell i stands for the pixels from i size / n to
(i + 1) size / n, a whole number of them wherever the strides before the layer divide the size. Elsewhere, with strides
of product s and n = ceil(size / s), that is less than one cell, s pixels, off: n s - size < s.
"""

import torch
from torch import Tensor


def cell_at(pixel: int, size: int, cells: int) -> int:
    """The cell that the centre of a pixel lies in, along one axis.

    Args:
        pixel: In `[0, size)`.
        size: Pixels of the axis.
        cells: Cells of the axis.

    Raises:
        ValueError: If the pixel lies outside.
    """
    if not 0 <= pixel < size:
        raise ValueError(f"pixel must lie in [0, {size}), got {pixel}")
    return (2 * pixel + 1) * cells // (2 * size)


def cell_span(cell: int, size: int, cells: int) -> tuple[float, float]:
    """Where the pixels of a cell begin and end along one axis, in pixels from the border of the image.

    Args:
        cell: In `[0, cells)`.
        size: Pixels of the axis.
        cells: Cells of the axis.

    Raises:
        ValueError: If the cell lies outside.
    """
    if not 0 <= cell < cells:
        raise ValueError(f"cell must lie in [0, {cells}), got {cell}")
    return cell * size / cells, (cell + 1) * size / cells


def spread(maps: Tensor, height: int, width: int) -> Tensor:
    """Spread the weight of every cell evenly over the pixels that it stands for; sums are kept.

    A pixel that two cells share has a part of each, by the lengths that it shares with them.

    Args:
        maps: Shape `(..., H, W)`, in cells.
        height: Pixels of the image.
        width: Pixels of the image.

    Returns:
        Shape `(..., height, width)`.
    """
    rows, columns = (
        _shares(size, cells).to(maps) for size, cells in zip((height, width), maps.shape[-2:], strict=True)
    )
    return rows @ maps @ columns.T


def _shares(size: int, cells: int) -> Tensor:
    """The share of every cell that lies on every pixel of one axis, `(size, cells)`; columns sum to 1."""
    # In units of 1 / (size cells) every border is a whole number, so that nothing is lost to rounding.
    pixel, cell = cells * torch.arange(size)[:, None], size * torch.arange(cells)
    overlap = torch.minimum(pixel + cells, cell + size) - torch.maximum(pixel, cell)
    return overlap.clamp(min=0).double() / size
