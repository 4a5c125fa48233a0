"""Adaptive pooling as products with two matrices, which exporters write for every size."""

from typing import Any

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
    """Let pooling modules to several cells compute as `AdaptiveAverage`: hooks on them and their names stay."""
    for module in network.modules():
        if type(module) is nn.AdaptiveAvgPool2d and "forward" not in vars(module):
            size: Any = module.output_size
            rows, columns = (size, size) if isinstance(size, int) else size
            # A single cell is a mean of every size, and a side of None stays as it is.
            if None not in (rows, columns) and (rows, columns) != (1, 1):
                vars(module)["forward"] = AdaptiveAverage(rows, columns).forward
