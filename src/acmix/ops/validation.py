"""Meaning of the arguments of `acmix.ops`: checked once, before any backend is asked."""

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from acmix.ops.contract import Convolution, Grid, Projection, Weights
from acmix.ops.tracing import unrecorded


def check_positive_integer(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless `value` is an integer >= 1, of Python's or NumPy's."""
    # An abstract class takes longer to ask than all else here.
    if type(value) is not int and (isinstance(value, bool) or not isinstance(value, (Integral, torch.SymInt))):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def check_odd(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless `value` is an odd integer >= 1."""
    check_positive_integer(name, value)
    if value % 2 == 0:  # type: ignore[operator]
        raise ValueError(f"{name} must be odd, so that the window has a centre; got {value}")


@unrecorded
def check_qkv(query: Tensor, key: Tensor, value: Tensor, position_weight: Tensor | None) -> None:
    """Raise unless query, key and value are `(B, N, D, H, W)` maps of one shape, dtype, device, and W_p `(D, 2)`."""
    _check_maps("query", query, "N")
    for name, tensor in (("key", key), ("value", value)):
        _check_beside(name, tensor, query.device)
        if tensor.shape != query.shape:
            raise ValueError(f"{name} must have query's shape {tuple(query.shape)}, got {tuple(tensor.shape)}")
        if tensor.dtype != query.dtype:
            raise TypeError(f"{name} must have query's dtype {query.dtype}, got {tensor.dtype}")
    if position_weight is not None:
        _check_position(position_weight, query.shape[2], query.device)


@unrecorded
def check_projections(projections: Tensor) -> None:
    """Raise unless `projections` are `(B, 3 N, D, H, W)` maps."""
    _check_maps("projections", projections, "3 N")
    if projections.shape[1] % 3:
        raise ValueError(
            "projections must have the shape (B, 3 N, D, H, W), N queries, N keys and N values; "
            f"got {projections.shape[1]} maps in {tuple(projections.shape)}"
        )


def check_grid(grid: Grid) -> None:
    """Raise unless the window is odd and heads, stride and dilation are positive integers."""
    check_odd("window", grid.window)
    check_positive_integer("stride", grid.stride)
    check_positive_integer("dilation", grid.dilation)
    check_positive_integer("heads", grid.heads)


def check_projection(x: Tensor, first: Projection, projection: Projection, grid: Grid) -> None:
    """Raise unless x is `(B, inputs of first, H, W)`, weight `(3 N D, C_in, 1, 1)` and bias `(3 N D,)` or None."""
    (weight, bias), heads = projection, grid.heads
    _check_tensor("x", x)
    device, shape = x.device, x.shape
    _check_beside("weight", weight, device)
    kernel = weight.shape
    if len(kernel) != 4 or kernel[2:] != (1, 1) or kernel[0] % (3 * heads):
        raise ValueError(f"weight must have the shape (3 N D, C_in, 1, 1) with N = {heads} heads, got {tuple(kernel)}")
    inputs = first.weight.shape[1]
    if len(shape) != 4 or shape[1] != inputs or 0 in shape[1:]:
        raise ValueError(f"x must have the shape (B, C_in = {inputs}, H, W) with C_in, H, W >= 1, got {tuple(shape)}")
    if not x.is_floating_point():
        raise TypeError(f"x must have a floating-point dtype, got {x.dtype}")
    if weight.dtype != x.dtype:
        _check_autocast("weight", weight, x)
    if bias is None:
        return
    _check_beside("bias", bias, device)
    if bias.shape != kernel[:1]:
        raise ValueError(f"bias must have the shape (3 N D = {kernel[0]},), got {tuple(bias.shape)}")
    if bias.dtype != x.dtype:
        _check_autocast("bias", bias, x)


@unrecorded
def check_convolution(
    features: Tensor, shape: Sequence[int], convolution: Convolution, bias: Tensor | None = None
) -> None:
    """Raise unless fc is `(P, 3 N)`, or None for P = 3 N, dep `(D * N, P, k, k)` with k odd, and the rate one element.

    Args:
        features: What the weights are applied to.
        shape: Of its projections, `(B, 3 N, D, H, W)`.
        convolution: Its weights.
        bias: Of fc, `(P,)`, or None.
    """
    dep, fc, rate = convolution
    device, maps, head_size = features.device, shape[1], shape[2]
    positions = maps
    if fc is not None:
        _check_beside("fc_weight", fc, device)
        if fc.ndim != 2 or fc.shape[1] != maps:
            raise ValueError(f"fc_weight must have the shape (P, 3 N = {maps}), got {tuple(fc.shape)}")
        positions = fc.shape[0]
    _check_beside("dep_weight", dep, device)
    channels, kernel = head_size * (maps // 3), dep.shape
    if len(kernel) != 4 or kernel[:2] != (channels, positions):
        raise ValueError(
            f"dep_weight must have the shape (D * N = {channels}, P = {positions}, k, k), got {tuple(kernel)}"
        )
    if kernel[2] != kernel[3] or kernel[2] % 2 == 0:
        raise ValueError(f"dep_weight must have a square kernel of odd size, got {tuple(kernel[2:])}")
    if rate is not None:
        _check_rate("rate_convolution", rate, device)
    if bias is not None:
        _check_beside("fc_bias", bias, device)
        if bias.shape != (positions,):
            raise ValueError(f"fc_bias must have the shape (P = {positions},), got {tuple(bias.shape)}")


def check_weights(features: Tensor, shape: Sequence[int], weights: Weights) -> None:
    """The same, and raise unless W_p is `(D, 2)` and both rates have one element."""
    position, rate, convolution = weights
    check_convolution(features, shape, convolution)
    _check_position(position, shape[2], features.device)
    _check_rate("rate_attention", rate, features.device)


def _check_rate(name: str, rate: Tensor, device: torch.device) -> None:
    _check_beside(name, rate, device)
    if rate.shape not in ((1,), ()):
        raise ValueError(f"{name} must have one element, shape (1,) or (), got {tuple(rate.shape)}")


def _check_position(position: Tensor, head_size: int, device: torch.device) -> None:
    _check_beside("position_weight", position, device)
    if position.shape != (head_size, 2):
        raise ValueError(f"position_weight must have the shape (D = {head_size}, 2), got {tuple(position.shape)}")


def _check_autocast(name: str, tensor: Tensor, x: Tensor) -> None:
    if not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"{name} must have x's dtype {x.dtype}, got {tensor.dtype}")


def _check_tensor(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be dense (torch.strided), got {tensor.layout}")


def _check_beside(name: str, tensor: Tensor, device: torch.device) -> None:
    _check_tensor(name, tensor)
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must have a floating-point dtype, got {tensor.dtype}")
    if tensor.device != device:
        raise ValueError(f"{name} must be on the device of the input, {device}; got {tensor.device}")


def _check_maps(name: str, maps: Tensor, heads: str) -> None:
    _check_tensor(name, maps)
    if maps.ndim != 5:
        raise ValueError(f"{name} must have the shape (B, {heads}, D, H, W), got {tuple(maps.shape)}")
    if not maps.is_floating_point():
        raise TypeError(f"{name} must have a floating-point dtype, got {maps.dtype}")
    for axis, size in zip((heads, "D", "H", "W"), maps.shape[1:], strict=True):
        if size == 0:
            raise ValueError(f"{name} (B, {heads}, D, H, W) needs {axis} >= 1, got {tuple(maps.shape)}")
