"""Adaptive pooling as products with two matrices, which exporters write for every size."""

import torch
from torch import Tensor, nn


class AdaptiveAverage(nn.Module):
    """`nn.AdaptiveAvgPool2d` for maps of any size: PyTorch's exporters write it for the size that they were shown.

    Args:
        rows: Of the output.
        columns: Of the output.
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, x: Tensor) -> Tensor:
        """`(..., H, W)` to `(..., rows, columns)`."""
        return _means(x, x.shape[-2], self.rows) @ x @ _means(x, x.shape[-1], self.columns).mT


def _means(x: Tensor, cells: int, count: int) -> Tensor:
    """What each of `count` outputs takes of an axis of cells, `(count, cells)`: neighbours may share a cell."""
    output, cell = torch.arange(count, device=x.device)[:, None], torch.arange(cells, device=x.device)
    begin, end = output * cells // count, ((output + 1) * cells + count - 1) // count
    return ((cell >= begin) & (cell < end)).to(x.dtype) / (end - begin).to(x.dtype)


def let_pool_at_every_size(network: nn.Module) -> None:
    """Put `AdaptiveAverage` in the place of every pooling module to several cells, whatever its name."""
    for parent in [*network.modules()]:
        for name, module in parent.named_children():
            if type(module) is nn.AdaptiveAvgPool2d and (size := _size(module)) not in (None, (1, 1)):
                parent.add_module(name, AdaptiveAverage(*size))


def _size(pooling: nn.AdaptiveAvgPool2d) -> tuple[int, int] | None:
    """Rows and columns; None where a side stays as it is."""
    size = pooling.output_size
    rows, columns = size if isinstance(size, tuple | list) else (size, size)
    return None if rows is None or columns is None else (rows, columns)
