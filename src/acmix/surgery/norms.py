"""Batch norms in evaluation mode: which modules are some, and the affine maps that they are."""

from typing import Any

from torch import Tensor, nn

# By name, as timm takes seconds to load.
_NORMS = {
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.batchnorm.SyncBatchNorm",
    "torchvision.ops.misc.FrozenBatchNorm2d",
    "timm.layers.norm_act.BatchNormAct2d",
    "timm.layers.norm_act.SyncBatchNormAct",
    "timm.layers.norm_act.FrozenBatchNorm2d",
    "timm.layers.norm_act.FrozenBatchNormAct2d",
}


def kind_of_norm(module: nn.Module) -> type[nn.Module] | None:
    """The batch norm that a module is, or derives from."""
    return next((base for base in type(module).__mro__ if f"{base.__module__}.{base.__qualname__}" in _NORMS), None)


def affine(norm: Any, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm in evaluation mode, each `(C,)` in float64.

    Raises:
        ValueError: If they are not constants or do not suit the layer; the message says why.
    """
    if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.training:
        raise ValueError("it stays in training mode when the network is in evaluation mode")
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("it normalises with the statistics of the batch")
    tensors = [tensor for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias) if tensor is not None]
    own = next(layer.parameters())
    if any(tensor.is_meta for tensor in (*tensors, own)):
        raise ValueError("it has no data, on the meta device")
    if any(tensor.dtype != own.dtype or tensor.device != own.device for tensor in tensors):
        raise ValueError("it has another dtype or device than the layer before it")
    weight, bias = (0.0 if tensor is None else tensor.detach().double() for tensor in (norm.weight, norm.bias))
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * weight
    shift = bias - scale * norm.running_mean.double()
    if not (scale.isfinite() & shift.isfinite()).all():
        raise ValueError("its scale or shift is not finite")
    return scale, shift
