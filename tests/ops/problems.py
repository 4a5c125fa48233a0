"""Cases of Stage II and the three ways to compute them: exact, as plain PyTorch would, and by a backend."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from acmix import ops
from acmix.ops import reference
from tests.numerics import DTYPES, assert_as_exact_as_eager

NAMES = ("projections", "position", "fc", "dep", "rate_attention", "rate_convolution")


@dataclass(frozen=True)
class Problem:
    batch: int
    heads: int
    head_size: int
    height: int
    width: int
    window: int
    kernel: int
    stride: int
    dilation: int
    dtype: torch.dtype
    layout: str
    seed: int

    def tensors(self, device: str = "cpu") -> list[torch.Tensor]:
        """Arguments of `mix` in `NAMES` order; the same numbers on every device."""
        generator = torch.Generator().manual_seed(self.seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator).to(device, self.dtype)

        channels = self.heads * self.head_size
        qkv = normal(self.batch, 3 * channels, self.height, self.width)
        if self.layout == "channels_last":
            qkv = qkv.to(memory_format=torch.channels_last)
        elif self.layout == "sliced":
            qkv = normal(self.batch, 3 * channels, self.height + 1, 2 * self.width + 1)[..., 1:, 1::2]
        projections = qkv.unflatten(1, (3 * self.heads, self.head_size))
        positions = self.kernel**2
        dep = normal(channels, positions, self.kernel, self.kernel) / positions
        fc = normal(positions, 3 * self.heads) / self.heads**0.5
        return [projections, normal(self.head_size, 2), fc, dep, normal(1), normal(1)]

    def keywords(self) -> dict[str, int]:
        return {"window": self.window, "stride": self.stride, "dilation": self.dilation}


problems = st.builds(
    Problem,
    batch=st.integers(1, 3),
    heads=st.sampled_from((1, 2, 3, 4, 5, 8, 16)),
    head_size=st.sampled_from((1, 2, 3, 4, 7, 8, 16, 19)),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    window=st.sampled_from((1, 3, 5, 7, 9)),
    kernel=st.sampled_from((1, 3, 5)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(("contiguous", "channels_last", "sliced")),
    seed=st.integers(0, 2**32),
)


def stage_one(problem: Problem, inputs: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Input, weight and bias of the projections, the input in the problem's dtype and layout."""
    generator = torch.Generator().manual_seed(problem.seed + 1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator).to(problem.dtype)

    maps = 3 * problem.heads * problem.head_size
    x = normal(problem.batch, inputs, problem.height, problem.width)
    if problem.layout == "channels_last":
        x = x.to(memory_format=torch.channels_last)
    elif problem.layout == "sliced":
        x = normal(problem.batch, inputs, problem.height + 1, 2 * problem.width + 1)[..., 1:, 1::2]
    return x, normal(maps, inputs, 1, 1) / inputs**0.5, normal(maps)


def eager_mix(projections, position_weight, fc, dep, alpha, beta, *, window, stride, dilation):
    """The definition computed in the dtype of its inputs: how exact plain PyTorch is."""
    position = ops.geometry.position_map(position_weight, *projections.shape[-2:]).to(projections.dtype)
    attention = reference.attend(*projections.chunk(3, 1), position, window, stride, dilation).flatten(1, 2)
    convolution = reference.convolve(projections, fc, dep, stride, dilation)
    return alpha * attention + beta * convolution


def run(function, tensors, keywords, gradient):
    """Output and gradients of every argument."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    output = function(*leaves, **keywords)
    return output.detach(), torch.autograd.grad(output, leaves, gradient.to(output.dtype).expand_as(output))


def assert_mix_as_exact_as_eager(problem, backend, device="cpu"):
    """Output and every gradient of `mix`, that of the projections as its three parts."""
    tensors, keywords = problem.tensors(device), problem.keywords()
    wide = [tensor.double() for tensor in tensors]
    # A gradient that resembles the output keeps the gradients of the rates from cancelling; its size keeps them
    # within the range of float16.
    gradient = ops.mix(*wide, **keywords, backend="reference")
    gradient = (gradient / gradient.numel() ** 0.5).to(problem.dtype).double()
    exact, exact_gradients = run(ops.mix, wide, {**keywords, "backend": "reference"}, gradient)
    eager, eager_gradients = run(eager_mix, tensors, keywords, gradient)
    actual, gradients = run(ops.mix, tensors, {**keywords, "backend": backend}, gradient)
    assert_as_exact_as_eager("output", actual, eager, exact)
    query, key, value = (part.abs().max().item() for part in wide[0].chunk(3, 1))
    # The size of the terms of those gradients in which they cancel: the softmax's and the rates'.
    through_softmax = gradient.norm().item() * value * problem.head_size**0.5
    of_a_rate = gradient.norm().item() * exact.norm().item()
    scales = {
        "query": through_softmax * key,
        "key": through_softmax * query,
        "position": through_softmax * query,
        "rate_attention": of_a_rate,
        "rate_convolution": of_a_rate,
    }
    names = ("query", "key", "value", *NAMES[1:])
    parts = ((*part[0].chunk(3, 1), *part[1:]) for part in (gradients, eager_gradients, exact_gradients))
    for name, ours, theirs, truth in zip(names, *parts, strict=True):
        assert_as_exact_as_eager(name, ours, theirs, truth, scales.get(name, 0.0))
