"""What backends share about dtypes: widening of half precision, and working outside autocast. A leaf."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def widen(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in float32, or in their own dtype where that is wider."""
    return tuple(tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors)


def widen_to(features: Tensor, *parameters: Tensor | None) -> list[Any]:
    """Parameters in the dtype that kernels accumulate in, that of the features or float32 where wider; None stays."""
    wide = torch.float64 if features.dtype == torch.float64 else torch.float32
    return [given if given is None or given.dtype == wide else given.to(wide) for given in parameters]


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which operations on `device` keep the dtype of their arguments."""
    # The meta device knows no autocast, not even one that is off.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype that a convolution of the tensor computes in: its own, or that of autocast."""
    dtype = tensor.dtype
    if not torch._C._is_any_autocast_enabled() or dtype == torch.float64:
        return dtype
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if device != "meta" and torch.is_autocast_enabled(device) else dtype
