"""Networks for inference: the convolution path composed once, rates and batch norms folded into weights."""

import warnings
from typing import Any, TypeVar

from torch import Tensor, nn

from acmix.nn import ACmix
from acmix.plain import why_not_plain
from acmix.surgery.fused import FusedACmix, fold_affine
from acmix.surgery.identity import become, copy_network, has_hooks, hooks, modules_of, names_of_modules, tied
from acmix.surgery.reading import Reading, UntraceableError, read_network
from acmix.surgery.report import FusedLayer, FusionReport

_Module = TypeVar("_Module", bound=nn.Module)
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


def fuse(network: _Module) -> _Module:
    """A copy of a network for inference that computes the same with less.

    Every `ACmix` becomes a `FusedACmix`, and every two-dimensional batch norm behind one, or behind an `nn.Conv2d`, is
    folded into its weights, under all names that it has: equal to the network in evaluation mode within rounding. What
    cannot be folded exactly stays as it is, and `fusion_report`, an attribute of the copy, says what and why:
    subclasses, modules with hooks, parametrisations or a forward of their own, all that a hook can read, tied weights,
    modules that are called more than once, whose output or weights the network reads otherwise, or whose scales leave
    the range of the dtype. Readers are found by tracing the network with torch.fx; where that is not possible norms
    stay, with a warning.

    Hooks stay. One that is a method of a module of the network, or a functools.partial of one, is bound to the copy's;
    any other is the same object as the network's. What a hook or a patched forward holds as a closure is the network's.

    Args:
        network: Any network, not modified.

    Returns:
        The copy, in evaluation mode, without gradients, with a `FusionReport` as its `fusion_report`.
    """
    fused = copy_network(network).eval()
    names = names_of_modules(fused)
    norms = [module for module in names if _kind_of_norm(module) is not None]
    operators = [module for module in names if isinstance(module, ACmix)]
    reading, problem = Reading(), None
    if norms or operators:
        layers = [module for module in names if isinstance(module, ACmix | FusedACmix | nn.Conv2d)]
        try:
            reading = read_network(fused, layers, norms)
        except UntraceableError as error:
            problem = f"torch.fx cannot trace it: {error}"
    if problem is not None and norms:
        warnings.warn(f"the batch norms of {type(network).__name__} stay, {problem}", stacklevel=2)
    obstacles = _obstacles(fused, names, reading)
    reports = []
    for operator in operators:
        reason = why_not_plain(operator, ACmix) or obstacles.get(operator) or _compose(operator)
        obstacles |= {} if reason is None else {operator: reason}
        reports.append(FusedLayer(name=names[operator], kind="ACmix", reason=reason))
    for norm in norms:
        kind = _kind_of_norm(norm) or type(norm)
        before = reading.layer_before(norm) if problem is None else f"is part of a network: {problem}"
        reason = why_not_plain(norm, kind) or obstacles.get(norm)
        if reason is None:
            reason = before if isinstance(before, str) else _fold(norm, before, obstacles)
        into = names[before] if reason is None and isinstance(before, nn.Module) else None
        reports.append(FusedLayer(name=names[norm], kind=kind.__name__, into=into, reason=reason))
    fused.fusion_report = FusionReport(tuple(reports))  # type: ignore[assignment]
    return fused.requires_grad_(False)


def _kind_of_norm(module: nn.Module) -> type[nn.Module] | None:
    """The batch norm that a module is, or derives from."""
    return next((base for base in type(module).__mro__ if f"{base.__module__}.{base.__qualname__}" in _NORMS), None)


def _obstacles(network: nn.Module, names: dict[nn.Module, str], reading: Reading) -> dict[nn.Module, str]:
    """The modules whose weights others depend on, and the reason, which follows their name in a sentence."""
    obstacles = {module: f"shares weights with {other}" for module, other in tied(network).items()}
    obstacles |= {module: f"is read by the network: {attribute}" for module, attribute in reading.read.items()}
    for module in filter(has_hooks, names):
        for seen in (module, *(bound for hook in hooks(module) for bound in modules_of(hook))):
            others = set(seen.modules()) - {module}
            obstacles |= dict.fromkeys(others, f"can be read by a hook of {names[module] or 'the network'}")
    return obstacles


def _compose(operator: ACmix) -> str | None:
    """Make an operator a fused one, or say why not."""
    try:
        fused = FusedACmix(operator)
    except ValueError as error:
        return f"cannot be composed: {error}"
    fused.qkv = operator.qkv
    become(operator, fused.eval())
    return None


def _fold(norm: nn.Module, layer: nn.Module, obstacles: dict[nn.Module, str]) -> str | None:
    """Fold a norm into the layer before it, or say why not."""
    kind = FusedACmix if isinstance(layer, FusedACmix) else nn.Conv2d
    reason = obstacles.get(layer) or why_not_plain(layer, kind)
    if reason is None and isinstance(layer, FusedACmix):
        reason = obstacles.get(layer.qkv)
    if reason is not None:
        return f"follows a layer that {reason}"
    try:
        fold_affine(layer, *_affine(norm, layer))
    except ValueError as error:
        return f"cannot be folded: {error}"
    # timm's batch norms with an activation leave that behind.
    after = [norm.get_submodule(name) for name in ("drop", "act") if hasattr(norm, name)]
    become(norm, nn.Sequential(*after).eval() if after else nn.Identity().eval())
    return None


def _affine(norm: Any, layer: nn.Module) -> tuple[Tensor, Tensor]:
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
