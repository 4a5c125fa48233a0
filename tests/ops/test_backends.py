"""Every backend against the definition: forward and all gradients, over random shapes, dtypes, layouts, strides."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acmix import ops
from acmix.ops import reference
from tests.numerics import DTYPES, assert_as_exact_as_eager

BACKENDS = [name for name in ops.backends() if name != "reference"]
NAMES = ("query", "key", "value", "position", "fc", "dep", "rate_attention", "rate_convolution")


def test_every_backend_that_must_run_here_is_tested():
    assert BACKENDS == ["portable"]


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

    def tensors(self) -> list[torch.Tensor]:
        """Arguments of `mix` in `NAMES` order; q, k, v are views of one projection output, as in the layer."""
        generator = torch.Generator().manual_seed(self.seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator).to(self.dtype)

        channels = self.heads * self.head_size
        qkv = normal(self.batch, 3 * channels, self.height, self.width)
        if self.layout == "channels_last":
            qkv = qkv.to(memory_format=torch.channels_last)
        elif self.layout == "sliced":
            qkv = normal(self.batch, 3 * channels, self.height + 1, 2 * self.width + 1)[..., 1:, 1::2]
        query, key, value = qkv.unflatten(1, (3, self.heads, self.head_size)).unbind(1)
        positions = self.kernel**2
        dep = normal(channels, positions, self.kernel, self.kernel) / positions
        fc = normal(positions, 3 * self.heads) / self.heads**0.5
        return [query, key, value, normal(self.head_size, 2), fc, dep, normal(1), normal(1)]

    def keywords(self) -> dict[str, int]:
        return {"window": self.window, "stride": self.stride, "dilation": self.dilation}


problems = st.builds(
    Problem,
    batch=st.integers(1, 3),
    heads=st.sampled_from((1, 2, 3, 4, 5, 8, 16)),
    head_size=st.sampled_from((1, 2, 3, 4, 7, 8, 16)),
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


def eager_mix(query, key, value, position_weight, fc, dep, alpha, beta, *, window, stride, dilation):
    """The definition computed in the dtype of its inputs: how exact plain PyTorch is."""
    position = ops.geometry.position_map(position_weight, *key.shape[-2:]).to(key.dtype)
    attention = reference.attend(query, key, value, position, window, stride, dilation).flatten(1, 2)
    convolution = reference.convolve(torch.cat((query, key, value), 1), fc, dep, stride, dilation)
    return alpha * attention + beta * convolution


def run(function, tensors, keywords, gradient):
    """Output and gradients of every argument."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    output = function(*leaves, **keywords)
    return output.detach(), torch.autograd.grad(output, leaves, gradient.to(output.dtype))


def cancelling_scales(tensors, gradient):
    """Size of the terms of those gradients in which they cancel: the softmax's and the rates'."""
    query, key, value = (tensor.abs().max().item() for tensor in tensors[:3])
    through_softmax = gradient.norm().item() * value * tensors[0].shape[2] ** 0.5
    return {
        "query": through_softmax * key,
        "key": through_softmax * query,
        "position": through_softmax * query,
        "rate_attention": gradient.norm().item() ** 2,
        "rate_convolution": gradient.norm().item() ** 2,
    }


@pytest.mark.parametrize("backend", BACKENDS)
@given(problem=problems)
def test_mix_is_as_exact_as_eager(backend, problem):
    tensors, keywords = problem.tensors(), problem.keywords()
    exact_tensors = [tensor.double() for tensor in tensors]
    # A gradient that resembles the output keeps the gradients of the rates from cancelling.
    gradient = ops.mix(*exact_tensors, **keywords, backend="reference").to(problem.dtype).double()
    exact, exact_gradients = run(ops.mix, exact_tensors, {**keywords, "backend": "reference"}, gradient)
    eager, eager_gradients = run(eager_mix, tensors, keywords, gradient)
    actual, gradients = run(ops.mix, tensors, {**keywords, "backend": backend}, gradient)
    assert_as_exact_as_eager("output", actual, eager, exact)
    scales = cancelling_scales(exact_tensors, gradient)
    for name, ours, theirs, truth in zip(NAMES, gradients, eager_gradients, exact_gradients, strict=True):
        assert_as_exact_as_eager(name, ours, theirs, truth, scales.get(name, 0.0))


@pytest.mark.parametrize("backend", BACKENDS)
@given(problem=problems)
def test_paths_alone_are_as_exact_as_eager(backend, problem):
    query, key, value, _, fc, dep, _, _ = problem.tensors()
    wide = [tensor.double() for tensor in (query, key, value)]
    keywords = problem.keywords()
    exact = ops.local_attention(*wide, **keywords, backend="reference")
    eager = reference.attend(query, key, value, None, *keywords.values())
    assert_as_exact_as_eager(
        "attention", ops.local_attention(query, key, value, **keywords, backend=backend), eager, exact
    )
    del keywords["window"]
    exact = ops.shift_conv(*wide, fc.double(), dep.double(), **keywords, backend="reference")
    eager = reference.convolve(torch.cat((query, key, value), 1), fc, dep, *keywords.values())
    assert_as_exact_as_eager(
        "convolution", ops.shift_conv(query, key, value, fc, dep, **keywords, backend=backend), eager, exact
    )


@pytest.fixture(params=[*BACKENDS, "reference"])
def backend(request):
    return request.param


PLAIN = Problem(2, 2, 3, 17, 9, 5, 3, 1, 1, torch.float64, "contiguous", 0)


def test_any_subset_of_gradients(backend):
    tensors = PLAIN.tensors()
    _, every = run(ops.mix, tensors, {"window": 5, "backend": backend}, torch.ones(2, 6, 17, 9))
    for index, name in enumerate(NAMES):
        leaves = [tensor.detach().requires_grad_(i == index) for i, tensor in enumerate(tensors)]
        ops.mix(*leaves, window=5, backend=backend).sum().backward()
        assert [i for i, leaf in enumerate(leaves) if leaf.grad is not None] == [index], name
        torch.testing.assert_close(leaves[index].grad, every[index], msg=name)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradcheck(backend, stride):
    tensors = Problem(1, 2, 2, 4, 16, 3, 3, stride, 1, torch.float64, "contiguous", 3).tensors()
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]

    def function(*arguments):
        return ops.mix(*arguments, window=3, stride=stride, backend=backend)

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


def test_empty_batch(backend):
    leaves = [tensor[:0] if tensor.ndim == 5 else tensor for tensor in PLAIN.tensors()]
    leaves = [tensor.detach().requires_grad_() for tensor in leaves]
    output = ops.mix(*leaves, window=5, backend=backend)
    assert output.shape == (0, 6, 17, 9)
    output.sum().backward()
    assert all((leaf.grad == 0).all() for leaf in leaves)


def test_repeats_bit_for_bit(backend):
    tensors = PLAIN.tensors()
    first = run(ops.mix, tensors, {"backend": backend}, torch.ones(2, 6, 17, 9))
    second = run(ops.mix, tensors, {"backend": backend}, torch.ones(2, 6, 17, 9))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(30, 17), (9, 40), (7, 7)])
def test_channels_last_is_kept(backend, size):
    tensors = Problem(2, 2, 4, *size, 7, 3, 1, 1, torch.float32, "channels_last", 0).tensors()
    output = ops.mix(*tensors, backend=backend)
    assert output.is_contiguous(memory_format=torch.channels_last)
    tensors = Problem(2, 2, 4, *size, 7, 3, 1, 1, torch.float32, "contiguous", 0).tensors()
    assert ops.mix(*tensors, backend=backend).is_contiguous()


def test_autocast_computes_in_its_dtype_and_keeps_weights_wide(backend):
    tensors = [tensor.float() for tensor in PLAIN.tensors()]
    wide = ops.mix(*tensors, backend=backend)
    narrow_inputs = [tensor.bfloat16() for tensor in tensors[:3]]
    weights = [tensor.requires_grad_() for tensor in tensors[3:]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = ops.mix(*narrow_inputs, *weights, backend=backend)
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    assert all(weight.grad.dtype == torch.float32 for weight in weights)
    assert (output.float() - wide).norm() <= 0.02 * wide.norm()


@pytest.mark.filterwarnings("ignore:There is a performance drop because we have not yet implemented")
def test_vmap(backend):
    tensors = [torch.stack((tensor, -tensor)) for tensor in PLAIN.tensors()]
    mapped = torch.vmap(lambda *arguments: ops.mix(*arguments, backend=backend))(*tensors)
    looped = torch.stack([ops.mix(*arguments, backend=backend) for arguments in zip(*tensors, strict=True)])
    torch.testing.assert_close(mapped, looped)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_to_one_graph(backend):
    compiled = torch.compile(lambda *arguments: ops.mix(*arguments, backend=backend), fullgraph=True, backend="eager")
    for problem in (PLAIN, Problem(1, 2, 3, 5, 20, 5, 3, 1, 1, torch.float64, "contiguous", 1)):
        tensors = problem.tensors()
        torch.testing.assert_close(compiled(*tensors), ops.mix(*tensors, backend=backend))


def test_auto_takes_the_first_that_can():
    tensors = PLAIN.tensors()
    assert torch.equal(ops.mix(*tensors), ops.mix(*tensors, backend=BACKENDS[0]))


def test_softmax_survives_large_logits(backend):
    query = torch.full((1, 1, 4, 9, 9), 200.0)
    key = torch.randn(1, 1, 4, 9, 9)
    output = ops.local_attention(query, key, key, backend=backend)
    exact = ops.local_attention(query.double(), key.double(), key.double(), backend="reference")
    torch.testing.assert_close(output, exact.float(), rtol=1e-3, atol=1e-3)
