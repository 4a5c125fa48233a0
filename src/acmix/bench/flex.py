"""The attention path through PyTorch's FlexAttention: the logarithm of a key's multiplicity is added to its score."""

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from acmix.ops.geometry import output_size, position_map, reflect, window_offsets


class WindowAttention(nn.Module):
    """Attention over reflected windows of maps of one size, with positions; the kernel is compiled at the first call.

    Args:
        height: H.
        width: W.
        window: Window size, odd.
        stride: Stride of the queries.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, height: int, width: int, window: int, stride: int) -> None:
        super().__init__()
        self.height, self.width, self.stride = height, width, stride
        self.register_buffer("rows", _log_multiplicity(height, window, stride))
        self.register_buffer("columns", _log_multiplicity(width, window, stride))
        self.mask: BlockMask | None = None
        self.attend = torch.compile(flex_attention, dynamic=False)

    def forward(self, projections: Tensor, position_weight: Tensor) -> Tensor:
        """Attend, `(B, 3 N, D, H, W)` and W_p `(D, 2)` to `(B, N, D, H', W')`."""
        query, key, value = projections.chunk(3, 1)
        query = query[..., :: self.stride, :: self.stride]
        key = key - position_map(position_weight, self.height, self.width).to(key.dtype)
        width, output_width = self.width, query.shape[-1]
        rows, columns = self.rows, self.columns

        def log_weight(at: Tensor, seen: Tensor) -> Tensor:
            return rows[at // output_width, seen // width] + columns[at % output_width, seen % width]

        def score(value: Tensor, _b: Tensor, _h: Tensor, at: Tensor, seen: Tensor) -> Tensor:
            return value + log_weight(at, seen)

        def is_seen(_b: Tensor, _h: Tensor, at: Tensor, seen: Tensor) -> Tensor:
            return log_weight(at, seen) > -torch.inf

        sizes = query.shape[-2] * output_width, self.height * width
        if self.mask is None:
            self.mask = create_block_mask(is_seen, None, None, *sizes, device=str(query.device))
        sequences = (maps.flatten(-2).transpose(-1, -2).contiguous() for maps in (query, key, value))
        attended = self.attend(*sequences, score_mod=score, block_mask=self.mask)
        return attended.transpose(-1, -2).reshape(query.shape)


def _log_multiplicity(size: int, window: int, stride: int) -> Tensor:
    """Logarithm of how often the window of every query along an axis sees every cell, `(queries, size)`."""
    queries = stride * torch.arange(output_size(size, stride))
    cells = reflect(queries[:, None] + window_offsets(window, 1), size)
    return (cells[:, :, None] == torch.arange(size)).sum(1).log()
