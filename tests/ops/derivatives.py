"""Derivatives of any order, forward and reverse, of the operators of `acmix.ops`."""

import torch
from torch.func import jvp, vjp

from acmix import ops


def along(function, tangents):
    """The forward derivative of a function."""
    return lambda *tensors: jvp(function, tensors, tangents)[1]


def back(function, gradient):
    """The gradient of a function by all its arguments, as one tensor."""

    def pulled(*tensors):
        parts = vjp(function, *tensors)[1](gradient)
        return torch.cat([part.flatten() for part in parts])

    return pulled


def like(tensors, generator):
    return tuple(torch.randn(tensor.shape, generator=generator).to(tensor) for tensor in tensors)


def differentiate(function, tensors, orders, seed):
    """Forward ("f") and reverse ("r") derivatives along random directions, the first innermost."""
    generator = torch.Generator().manual_seed(seed)
    for order in orders:
        if order == "f":
            function = along(function, like(tensors, generator))
        else:
            output = function(*tensors)
            function = back(function, like((output,), generator)[0])
    return function(*tensors)


def parts(case, device="cpu"):
    """Attention alone, convolution alone, both, all stages: functions of a backend, their tensors and keywords."""
    projections, *weights = case.tensors(device)
    keywords = case.keywords()
    steps = {name: keywords[name] for name in ("stride", "dilation")}
    x = torch.randn(case.batch, 3, case.height, case.width, dtype=case.dtype, device=device)
    weight = torch.randn(3 * case.heads * case.head_size, 3, 1, 1, dtype=case.dtype, device=device)
    return {
        "attention": (ops.local_attention, projections.chunk(3, 1), keywords),
        "convolution": (ops.shift_conv, (projections, *weights[1:3]), steps),
        "both": (ops.mix, (projections, *weights), keywords),
        "all": (ops.project_and_mix, (x, weight, weight[:, 0, 0, 0], *weights), {**keywords, "heads": case.heads}),
    }
