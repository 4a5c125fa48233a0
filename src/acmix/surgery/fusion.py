"""Networks for inference: the convolution path composed once, rates and batch norms folded into weights."""

import copy
import warnings
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import fuse_conv_bn_eval
from torchvision.ops import FrozenBatchNorm2d

from acmix.nn import ACmix, project_and_mix, refuse_torchscript
from acmix.ops.geometry import composes_kernels

_Module = TypeVar("_Module", bound=nn.Module)
# A batch norm whose scales differ by more than this is kept: half precision would lose the smallest.
_LARGEST_RATIO = 1e4


class FusedACmix(nn.Module):
    r"""The operator for inference, with weights computed once: `fuse` makes it.

    The convolution path is one grouped convolution with a composed kernel times beta (fc is kept where two steps are
    cheaper, for more than 4 heads). A batch norm behind it, scale s and shift t a channel, is folded: s multiplies the
    values that attention averages and the rows of the composed kernel, whose columns for values are divided by it:

    .. math:: s (\alpha \, att(q, k, v) + \beta \, conv(q, k, v)) + t = \alpha \, att(q, k, s v) + conv_s(q, k, s v) + t

    Args:
        operator: Its weights are copied.

    Shape:
        `(B, C_in, H, W)` to `(B, C, ceil(H / s), ceil(W / s))`.
    """

    def __init__(self, operator: ACmix) -> None:
        super().__init__()
        self.heads, self.kernel_att = operator.heads, operator.kernel_att
        self.stride, self.dilation, self.backend = operator.stride, operator.dilation, operator.backend
        self.qkv = copy.deepcopy(operator.qkv)
        kernels = operator.rate_convolution.detach() * operator.dep_weight.detach()
        fc = operator.fc_weight.detach()
        if composes_kernels(operator.heads, kernels.shape[1], operator.kernel_conv):
            kernels, fc = torch.einsum("pc,opyx->ocyx", fc.double(), kernels.double()).to(kernels.dtype), None
        self.position_weight = _constant(operator.position_weight)
        self.fc_weight = None if fc is None else _constant(fc)
        # Not "kernels": AOTInductor has a variable of that name.
        self.kernel_weight = _constant(kernels)
        self.rate_attention = _constant(operator.rate_attention)
        self.bias = None if operator.bias is None else _constant(operator.bias)
        self.requires_grad_(False)

    def fold(self, scale: Tensor, shift: Tensor) -> bool:
        """Follow the operator with `scale * output + shift`, each `(C,)`; False where that cannot be folded."""
        channels, size = len(scale), self.position_weight.shape[0]
        sizes = scale.abs()
        if self.fc_weight is not None or not sizes.max() <= _LARGEST_RATIO * sizes.min():
            return False
        # Channel n D + d of the values is map 2 N + n of group d; channel d N + m of the output is row m of it.
        of_values = torch.ones(3 * self.heads, size, dtype=scale.dtype, device=scale.device)
        of_values[2 * self.heads :] = scale.unflatten(0, (self.heads, size))
        columns = of_values.t().repeat_interleave(self.heads, 0)
        bias = scale * self.bias + shift if self.bias is not None else shift
        with torch.no_grad():
            self.kernel_weight.mul_((scale[:, None] / columns)[..., None, None])
            self.qkv.weight[2 * channels :].mul_(scale[:, None, None, None])
            self.qkv.bias[2 * channels :].mul_(scale)  # type: ignore[index]
        self.bias = _constant(bias.to(self.kernel_weight.dtype))
        return True

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operator: `(B, C_in, H, W)` to `(B, C, ceil(H / s), ceil(W / s))`."""
        refuse_torchscript()
        return project_and_mix(
            x,
            self.qkv,
            (self.position_weight, self.fc_weight, self.kernel_weight, self.rate_attention, None),
            self.bias,
            heads=self.heads,
            window=self.kernel_att,
            stride=self.stride[0],
            dilation=self.dilation[0],
            backend=self.backend,
        )

    __prepare_scriptable__ = ACmix.__prepare_scriptable__


def fuse(network: _Module) -> _Module:
    """A copy of a network for inference that computes the same with less.

    Every `ACmix` becomes a `FusedACmix`, and every batch norm that follows one, or a convolution, and nothing else
    reads, is folded into it. Batch norms are found by tracing the network with torch.fx; where it cannot be traced they
    stay, with a warning that says why. Equal to the network in evaluation mode within rounding.

    Args:
        network: Any network, not modified.

    Returns:
        The copy, in evaluation mode, without gradients.
    """
    fused = copy.deepcopy(network).eval()
    if isinstance(fused, ACmix):
        return FusedACmix(fused).eval()  # type: ignore[return-value]
    operators = {module: FusedACmix(module).eval() for module in fused.modules() if isinstance(module, ACmix)}
    for name, module in [*fused.named_modules(remove_duplicate=False)]:
        if isinstance(module, ACmix):
            fused.set_submodule(name, operators[module])
    _fold_batch_norms(fused)
    return fused.requires_grad_(False)


class _Tracer(fx.Tracer):
    """Looks into everything but the layers that are folded."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            isinstance(m, FusedACmix | nn.modules.conv._ConvNd)
            or _is_norm(m)
            or super().is_leaf_module(m, module_qualified_name)
        )


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d)


def _fold_batch_norms(network: nn.Module) -> None:
    try:
        graph = _Tracer().trace(network)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(
            f"the batch norms of {type(network).__name__} stay, torch.fx cannot trace it: {reason}", stacklevel=3
        )
        return
    calls: dict[nn.Module, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            module = network.get_submodule(node.target)
            calls[module] = calls.get(module, 0) + 1
    for node in graph.nodes:
        if node.op != "call_module" or not _is_norm(network.get_submodule(node.target)):
            continue
        before, norm = node.args[0], network.get_submodule(node.target)
        if before.op != "call_module" or len(before.users) > 1:
            continue
        layer = network.get_submodule(before.target)
        if calls[layer] > 1 or calls[norm] > 1 or norm.running_mean is None:
            continue
        folded = _fold(layer, norm)
        if folded is not None:
            network.set_submodule(before.target, folded)
            network.set_submodule(node.target, _what_follows(norm))


def _fold(layer: nn.Module, norm: Any) -> nn.Module | None:
    """The layer with the batch norm behind it in its weights, or None where that cannot be."""
    if isinstance(layer, FusedACmix):
        weight = torch.ones_like(norm.running_mean) if norm.weight is None else norm.weight.detach()
        shift = torch.zeros_like(norm.running_mean) if norm.bias is None else norm.bias.detach()
        scale = weight * (norm.running_var + norm.eps).rsqrt()
        return layer if layer.fold(scale, shift - scale * norm.running_mean) else None
    if type(layer) is nn.Conv2d:
        return fuse_conv_bn_eval(layer, norm)
    return None


def _what_follows(norm: nn.Module) -> nn.Module:
    """timm's batch norms with an activation leave that behind."""
    after = [norm.get_submodule(name) for name in ("drop", "act") if hasattr(norm, name)]
    return nn.Sequential(*after) if after else nn.Identity()


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(memory_format=torch.contiguous_format), requires_grad=False)
