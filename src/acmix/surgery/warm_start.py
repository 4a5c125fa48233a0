"""Weights with which the operator starts as the convolution it replaces, as nearly as its convolution path can."""

import torch
from torch import Tensor, nn

from acmix.nn import ACmix


def warm_start(operator: ACmix, weight: Tensor, bias: Tensor | None) -> float:
    """Fit the convolution path to a kernel by least squares; the attention path starts at rate 0.

    Output channels d N .. d N + N - 1 are group d of the convolution path (arXiv 2111.14556, eq. 8). Without
    biases the group computes sum_r B_d[:, r] T_d[r, :], B_d `(C_in, R)` the projections that reach it and T_d
    `(R, N k^2)` its kernels, of rank R = min(k^2, 3 N): fc passes no more than k^2 maps, and there are 3 N. The best
    such approximation of its part of the kernel, `(C_in, N k^2)`, is the truncated singular value decomposition. fc
    has orthonormal rows or columns and is undone on whichever side it is the wider.

    Args:
        operator: Changed in place: its projections, fc, kernels, rates 0 and 1 and, if it has one, bias.
        weight: The kernel, shape `(C, C_in, k, k)`.
        bias: Its bias, shape `(C,)`, if the operator has one.

    Returns:
        Frobenius norm of what the fit leaves over that of the kernel, 0 to 1.

    Raises:
        ValueError: If the kernel has no values yet.
    """
    if weight.is_meta:
        raise ValueError("warm_start must have kernels to fit, got one on the meta device; load the weights first")
    heads, kernel, channels_in = operator.heads, operator.kernel_conv, operator.in_channels
    head_size, positions, maps = operator.out_channels // heads, kernel**2, 3 * heads
    exact = weight.detach().double()
    # (D, C_in, N k^2)
    groups = exact.unflatten(0, (head_size, heads)).transpose(1, 2).flatten(2)
    left, singular, right = torch.linalg.svd(groups, full_matrices=False)
    rank = min(positions, maps, singular.shape[1])
    root = singular[:, :rank].sqrt()
    # Where the kernel has fewer directions than the operator, the rest starts at zero on one side alone, to learn.
    wide = min(positions, maps)
    read = (
        operator.qkv.weight.detach().double().reshape(maps, head_size, channels_in).permute(1, 2, 0)[..., :wide].clone()
    )
    write = exact.new_zeros(head_size, wide, heads * positions)
    read[..., :rank] = left[..., :rank] * root[:, None]
    write[:, :rank] = root[..., None] * right[:, :rank]
    fc = nn.init.orthogonal_(torch.empty(positions, maps, dtype=exact.dtype, device=exact.device))
    read, write = (read @ fc, write) if positions <= maps else (read, fc @ write)
    with torch.no_grad():
        operator.qkv.weight.copy_(read.permute(2, 0, 1).reshape(operator.qkv.weight.shape))
        nn.init.zeros_(operator.qkv.bias)  # type: ignore[arg-type]
        operator.fc_weight.copy_(fc)
        kernels = write.unflatten(2, (heads, kernel, kernel)).transpose(1, 2)
        operator.dep_weight.copy_(kernels.reshape(operator.dep_weight.shape))
        operator.rate_attention.zero_()
        operator.rate_convolution.fill_(1)
        if operator.bias is not None and bias is not None:
            operator.bias.copy_(bias)
    total = singular.square().sum()
    return (singular[:, rank:].square().sum() / total).sqrt().item() if total > 0 else 0.0
