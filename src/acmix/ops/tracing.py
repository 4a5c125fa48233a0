"""What differs while PyTorch traces, in every version since 2.11. A leaf: imports torch alone."""

from typing import cast

import torch
from torch.autograd import forward_ad


def is_exporting() -> bool:
    """Whether a graph is made by `torch.export`, not by `torch.compile`."""
    # PyTorch 2.11 says so in every graph of torch.compile, too, when it is asked by its function.
    return torch.compiler._is_exporting_flag


def at_least_one(size: int) -> int:
    """max(size, 1), also of a size that one graph serves every value of."""
    # PyTorch 2.11 compiles only the one, and only the other leaves an exported size free.
    return max(size, 1) if torch.compiler.is_dynamo_compiling() else cast(int, torch.sym_max(size, 1))


def is_transformed() -> bool:
    """Whether a transform of `torch.func` or forward differentiation is under way."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
