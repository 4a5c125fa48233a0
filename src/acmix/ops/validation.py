"""Meaning of the arguments of `acmix.ops`: checked once, before any backend is asked."""

import torch
from torch import Tensor


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


def check_qkv(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise unless query, key and value are `(B, N, D, H, W)` maps of one shape, dtype and device."""
    _check_maps("query", query, "N")
    for name, tensor in (("key", key), ("value", value)):
        _check_tensor(name, tensor)
        if tensor.shape != query.shape:
            raise ValueError(f"{name} must have query's shape {tuple(query.shape)}, got {tuple(tensor.shape)}")
        if tensor.dtype != query.dtype:
            raise TypeError(f"{name} must have query's dtype {query.dtype}, got {tensor.dtype}")
        _check_device(name, tensor, "query", query)


def check_projections(projections: Tensor) -> None:
    """Raise unless `projections` are `(B, 3 N, D, H, W)` maps."""
    _check_maps("projections", projections, "3 N")
    if projections.shape[1] % 3:
        raise ValueError(
            "projections must have the shape (B, 3 N, D, H, W), N queries, N keys and N values; "
            f"got {projections.shape[1]} maps in {tuple(projections.shape)}"
        )


def check_window(window: int, stride: int, dilation: int) -> None:
    """Raise unless the window is odd and the stride and dilation are positive."""
    check_odd("window", window)
    check_steps(stride, dilation)


def check_steps(stride: int, dilation: int) -> None:
    """Raise unless the stride and dilation are positive integers."""
    check_positive_integer("stride", stride)
    check_positive_integer("dilation", dilation)


def check_projection(x: Tensor, weight: Tensor, bias: Tensor | None, heads: int) -> None:
    """Raise unless x is `(B, C_in, H, W)`, weight `(3 N D, C_in, 1, 1)` and bias `(3 N D,)` or None."""
    _check_tensor("x", x)
    check_positive_integer("heads", heads)
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


def check_convolution_weights(
    features: Tensor, maps: int, head_size: int, fc_weight: Tensor | None, dep_weight: Tensor
) -> None:
    """Raise unless fc_weight is `(P, 3 N)`, or None for P = 3 N, and dep_weight `(D * N, P, k, k)` with k odd."""
    if fc_weight is not None and (fc_weight.ndim != 2 or fc_weight.shape[1] != maps):
        raise ValueError(f"fc_weight must have the shape (P, 3 N = {maps}), got {tuple(fc_weight.shape)}")
    channels, positions = head_size * (maps // 3), maps if fc_weight is None else fc_weight.shape[0]
    if dep_weight.ndim != 4 or tuple(dep_weight.shape[:2]) != (channels, positions):
        raise ValueError(
            f"dep_weight must have the shape (D * N = {channels}, P = {positions}, k, k), got {tuple(dep_weight.shape)}"
        )
    if dep_weight.shape[2] != dep_weight.shape[3] or dep_weight.shape[2] % 2 == 0:
        raise ValueError(f"dep_weight must have a square kernel of odd size, got {tuple(dep_weight.shape[2:])}")
    for name, weight in (("fc_weight", fc_weight), ("dep_weight", dep_weight)):
        if weight is not None:
            _check_device(name, weight, "the input", features)


def check_mix_weights(
    features: Tensor,
    head_size: int,
    position_weight: Tensor,
    rate_attention: Tensor,
    rate_convolution: Tensor | None,
) -> None:
    """Raise unless position_weight is `(D, 2)` and both rates have one element."""
    if tuple(position_weight.shape) != (head_size, 2):
        raise ValueError(
            f"position_weight must have the shape (D = {head_size}, 2), got {tuple(position_weight.shape)}"
        )
    _check_device("position_weight", position_weight, "the input", features)
    for name, rate in (("rate_attention", rate_attention), ("rate_convolution", rate_convolution)):
        if rate is None:
            continue
        if tuple(rate.shape) not in ((), (1,)):
            raise ValueError(f"{name} must have one element, shape (1,) or (), got {tuple(rate.shape)}")
        _check_device(name, rate, "the input", features)


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
