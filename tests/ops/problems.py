"""Cases of the operator and the three ways to compute them: exact, as plain PyTorch would, and by a backend."""

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch.nn import functional

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


def stage_one(
    problem: Problem, inputs: int, scale: float = 1.0, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Input times `scale`, in the problem's dtype and layout, weight over it and bias of the projections."""
    generator = torch.Generator().manual_seed(problem.seed + 1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator).to(device, problem.dtype)

    maps = 3 * problem.heads * problem.head_size
    x = normal(problem.batch, inputs, problem.height, problem.width)
    if problem.layout == "channels_last":
        x = x.to(memory_format=torch.channels_last)
    elif problem.layout == "sliced":
        x = normal(problem.batch, inputs, problem.height + 1, 2 * problem.width + 1)[..., 1:, 1::2]
    return x * scale, normal(maps, inputs, 1, 1) / inputs**0.5 / scale, normal(maps)


def eager_mix(projections, position_weight, fc, dep, alpha, beta, *, window, stride, dilation):
    """The definition computed in the dtype of its inputs: how exact plain PyTorch is."""
    position = ops.geometry.position_map(position_weight, *projections.shape[-2:]).to(projections.dtype)
    attention = reference.attend(*projections.chunk(3, 1), position, window, stride, dilation).flatten(1, 2)
    convolution = reference.convolve(projections, fc, dep, stride, dilation)
    return alpha * attention + beta * convolution


def project(x, weight, bias, heads):
    return functional.conv2d(x, weight, bias).unflatten(1, (3 * heads, -1))


def eager_project_and_mix(x, weight, bias, *parameters, heads, **keywords):
    return eager_mix(project(x, weight, bias, heads), *parameters, **keywords)


def run(function, tensors, keywords, gradient):
    """Output and gradients of every argument, None where there is none."""
    leaves = [None if tensor is None else tensor.detach().requires_grad_() for tensor in tensors]
    output = function(*leaves, **keywords)
    known = [leaf for leaf in leaves if leaf is not None]
    gradients = iter(torch.autograd.grad(output, known, gradient.to(output.dtype).expand_as(output)))
    return output.detach(), tuple(None if leaf is None else next(gradients) for leaf in leaves)


def widen(tensors):
    return [None if tensor is None else tensor.double() for tensor in tensors]


def compute(function, definition, tensors, keywords, backend):
    """The output's gradient, then outputs with gradients: exact, those of `definition`, and a backend's."""
    wide, exactly = widen(tensors), {**keywords, "backend": "reference"}
    # A gradient that resembles the output keeps the gradients of the rates from cancelling; its size keeps them
    # within the range of float16.
    gradient = function(*wide, **exactly)
    gradient = (gradient / gradient.numel() ** 0.5).to(tensors[0].dtype).double()
    exact, eager = run(function, wide, exactly, gradient), run(definition, tensors, keywords, gradient)
    return gradient, exact, eager, run(function, tensors, {**keywords, "backend": backend}, gradient)


def sizes_of_terms(problem, projections, output, gradient):
    """The size of the terms of those gradients in which they cancel: the softmax's and the rates'."""
    query, key, value = (part.abs().max().item() for part in projections.chunk(3, 1))
    through_softmax = gradient.norm().item() * value * problem.head_size**0.5
    of_a_rate = gradient.norm().item() * output.norm().item()
    return {
        "query": through_softmax * key,
        "key": through_softmax * query,
        "position": through_softmax * query,
        "rate_attention": of_a_rate,
        "rate_convolution": of_a_rate,
    }


def assert_gradients_as_exact_as_eager(names, exact, eager, actual, scales):
    for name, ours, theirs, truth in zip(names, actual, eager, exact, strict=True):
        if truth is not None:
            assert_as_exact_as_eager(name, ours, theirs, truth, scales.get(name, 0.0))


def assert_mix_as_exact_as_eager(problem, backend, device="cpu"):
    """Output and every gradient of `mix`, that of the projections as its three parts."""
    tensors = problem.tensors(device)
    gradient, *runs = compute(ops.mix, eager_mix, tensors, problem.keywords(), backend)
    exact, eager, actual = (output for output, _ in runs)
    assert_as_exact_as_eager("output", actual, eager, exact)
    parts = ((*gradients[0].chunk(3, 1), *gradients[1:]) for _, gradients in runs)
    scales = sizes_of_terms(problem, tensors[0].double(), exact, gradient)
    if problem.dtype == torch.float64:
        # Eager is the truth itself there: it does not show how sums over all cells round, in which libraries differ.
        sizes = [tensor.abs() for tensor in tensors]
        _, summed = run(ops.mix, sizes, {**problem.keywords(), "backend": "reference"}, gradient.abs())
        scales |= {name: part.norm().item() for name, part in zip(NAMES, summed, strict=True) if name in ("fc", "dep")}
    assert_gradients_as_exact_as_eager(("query", "key", "value", *NAMES[1:]), *parts, scales)


def assert_all_stages_as_exact_as_eager(problem, inputs, biased, backend, scale=1.0, device="cpu"):
    """Output and every gradient of `project_and_mix`; see `stage_one` for `scale`."""
    x, weight, bias = stage_one(problem, inputs, scale, device)
    tensors = (x, weight, bias if biased else None, *problem.tensors(device)[1:])
    keywords = {"heads": problem.heads, **problem.keywords()}
    gradient, (exact, truth), eager, actual = compute(
        ops.project_and_mix, eager_project_and_mix, tensors, keywords, backend
    )
    # What is summed, where it cancels: absolute values tell all but the softmax's terms.
    sizes = [None if tensor is None else tensor.abs() for tensor in widen(tensors)]
    largest, summed = run(ops.project_and_mix, sizes, {**keywords, "backend": "reference"}, gradient.abs())
    assert_as_exact_as_eager("output", actual[0], eager[0], exact, largest.norm().item())
    scales = sizes_of_terms(problem, project(*sizes[:3], problem.heads), largest, gradient)
    through_softmax = math.hypot(scales["query"], scales["key"])
    pixels = x.double().movedim(1, 0).flatten(1)
    scales["x"] = through_softmax * torch.linalg.matrix_norm(weight.double().flatten(1), 2).item()
    scales["weight"] = through_softmax * torch.linalg.matrix_norm(pixels, 2).item()
    scales["bias"] = through_softmax * pixels.shape[1] ** 0.5
    names = ("x", "weight", "bias", *NAMES[1:])
    for name, part in zip(names, summed, strict=True):
        scales[name] = max(scales.get(name, 0.0), 0.0 if part is None else part.norm().item())
    assert_gradients_as_exact_as_eager(names, truth, eager[1], actual[1], scales)
