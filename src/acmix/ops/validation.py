"""Meaning of the arguments of `acmix.ops`: checked once, before any backend is asked."""

from collections.abc import Sequence

import torch
from torch import Tensor

from acmix.ops.contract import Convolution, Grid, Projection, Weights


def check_positive_integer(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless `value` is an integer >= 1."""
    if isinstance(value, bool) or not isinstance(value, int | torch.SymInt):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def check_odd(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless `value` is an odd integer >= 1."""
    check_positive_integer(name, value)
    if value % 2 == 0:  # type: ignore[operator]
        raise ValueError(f"{name} must be odd, so that the window has a centre; got {value}")


def check_qkv(query: Tensor, key: Tensor, value: Tensor, position_weight: Tensor | None) -> None:
    """Raise unless query, key and value are `(B, N, D, H, W)` maps of one shape, dtype, device, and W_p `(D, 2)`."""
    _check_maps("query", query, "N")
    for name, tensor in (("key", key), ("value", value)):
        _check_tensor(name, tensor)
        if tensor.shape != query.shape:
            raise ValueError(f"{name} must have query's shape {tuple(query.shape)}, got {tuple(tensor.shape)}")
        if tensor.dtype != query.dtype:
            raise TypeError(f"{name} must have query's dtype {query.dtype}, got {tensor.dtype}")
        _check_device(name, tensor, "query", query)
    if position_weight is not None:
        _check_position(query, query.shape[2], position_weight)


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


def check_projection(x: Tensor, projection: Projection, grid: Grid) -> None:
    """Raise unless x is `(B, C_in, H, W)`, weight `(3 N D, C_in, 1, 1)` and bias `(3 N D,)` or None."""
    (weight, bias), heads = projection, grid.heads
    _check_tensor("x", x)
    _check_tensor("weight", weight)
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise ValueError(f"x must have the shape (B, C_in, H, W) with C_in, H, W >= 1, got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"x must have a floating-point dtype, got {x.dtype}")
    if weight.ndim != 4 or tuple(weight.shape[1:]) != (x.shape[1], 1, 1) or weight.shape[0] % (3 * heads):
        raise ValueError(
            f"weight must have the shape (3 N D, C_in = {x.shape[1]}, 1, 1) with N = {heads} heads, "
            f"got {tuple(weight.shape)}"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ValueError(f"bias must have the shape (3 N D = {weight.shape[0]},), got {tuple(bias.shape)}")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is None:
            continue
        _check_device(name, tensor, "x", x)
        if tensor.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(f"{name} must have x's dtype {x.dtype}, got {tensor.dtype}")


def check_convolution(features: Tensor, shape: Sequence[int], convolution: Convolution) -> None:
    """Raise unless fc is `(P, 3 N)`, or None for P = 3 N, and dep `(D * N, P, k, k)` with k odd.

    Args:
        features: What the weights are applied to.
        shape: Of its projections, `(B, 3 N, D, H, W)`.
        convolution: Its weights.
    """
    maps, head_size = shape[1:3]
    dep, fc, _ = convolution
    if fc is not None and (fc.ndim != 2 or fc.shape[1] != maps):
        raise ValueError(f"fc_weight must have the shape (P, 3 N = {maps}), got {tuple(fc.shape)}")
    channels, positions = head_size * (maps // 3), maps if fc is None else fc.shape[0]
    if dep.ndim != 4 or tuple(dep.shape[:2]) != (channels, positions):
        raise ValueError(
            f"dep_weight must have the shape (D * N = {channels}, P = {positions}, k, k), got {tuple(dep.shape)}"
        )
    if dep.shape[2] != dep.shape[3] or dep.shape[2] % 2 == 0:
        raise ValueError(f"dep_weight must have a square kernel of odd size, got {tuple(dep.shape[2:])}")
    for name, weight in (("fc_weight", fc), ("dep_weight", dep)):
        if weight is not None:
            _check_device(name, weight, "the input", features)


def check_weights(features: Tensor, shape: Sequence[int], weights: Weights) -> None:
    """The same, and raise unless W_p is `(D, 2)` and both rates have one element."""
    check_convolution(features, shape, weights.convolution)
    _check_position(features, shape[2], weights.position)
    _check_rate("rate_attention", features, weights.rate)
    if weights.convolution.rate is not None:
        _check_rate("rate_convolution", features, weights.convolution.rate)


def _check_rate(name: str, features: Tensor, rate: Tensor) -> None:
    _check_tensor(name, rate)
    if tuple(rate.shape) not in ((), (1,)):
        raise ValueError(f"{name} must have one element, shape (1,) or (), got {tuple(rate.shape)}")
    _check_device(name, rate, "the input", features)


def _check_position(features: Tensor, head_size: int, position: Tensor) -> None:
    _check_tensor("position_weight", position)
    if tuple(position.shape) != (head_size, 2):
        raise ValueError(f"position_weight must have the shape (D = {head_size}, 2), got {tuple(position.shape)}")
    _check_device("position_weight", position, "the input", features)


def _check_tensor(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")


def _check_maps(name: str, maps: Tensor, heads: str) -> None:
    _check_tensor(name, maps)
    if maps.ndim != 5:
        raise ValueError(f"{name} must have the shape (B, {heads}, D, H, W), got {tuple(maps.shape)}")
    if not maps.is_floating_point():
        raise TypeError(f"{name} must have a floating-point dtype, got {maps.dtype}")
    for axis, size in zip((heads, "D", "H", "W"), maps.shape[1:], strict=True):
        if size == 0:
            raise ValueError(f"{name} (B, {heads}, D, H, W) needs {axis} >= 1, got {tuple(maps.shape)}")


def _check_device(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if tensor.device != other.device:
        raise ValueError(f"{name} must be on the device of {other_name}, {other.device}; got {tensor.device}")
