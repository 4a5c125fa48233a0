"""Derivatives of every order, forward, reverse and batched, of the backends of "auto", against the definition."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.utils.checkpoint import checkpoint

import acmix
from acmix import ops
from tests.ops.derivatives import back, differentiate, parts
from tests.ops.problems import Problem

# PyTorch's own, of its forward derivatives.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
CPU = torch.empty(1, 3, 1, 1, 1)
BACKENDS = [name for name in ops.backends() if name != "reference" and ops.why_not(name, CPU) is None]
LIMITS = {"cpu": {"dilation": 1}}

problems = st.builds(
    Problem,
    batch=st.integers(1, 2),
    heads=st.sampled_from((1, 2, 5)),
    head_size=st.sampled_from((1, 2, 3)),
    height=st.integers(1, 9),
    width=st.integers(1, 12),
    window=st.sampled_from((1, 3, 5)),
    kernel=st.sampled_from((1, 3)),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    dtype=st.just(torch.float64),
    layout=st.sampled_from(("contiguous", "channels_last", "sliced")),
    seed=st.integers(0, 2**32),
)


def assert_same(actual, expected):
    # Of the scale of all, as parts of a derivative may vanish.
    assert actual.shape == expected.shape
    assert (actual - expected).norm() <= 1e-11 * expected.norm() + 1e-200


@pytest.mark.parametrize("part", ["attention", "convolution", "both", "all"])
@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=12)
@given(case=problems, orders=st.sampled_from(("f", "rr", "rf", "fr", "ff", "rrr", "rfr", "ffr", "rff")))
def test_any_order(backend, part, case, orders):
    case = dataclasses.replace(case, **LIMITS.get(backend, {}))
    function, tensors, keywords = parts(case)[part]
    actual, expected = (
        differentiate(lambda *given: function(*given, **keywords, backend=name), tensors, orders, case.seed)  # noqa: B023
        for name in (backend, "reference")
    )
    assert_same(actual, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=15)
@given(
    case=problems,
    batched=st.lists(st.booleans(), min_size=8, max_size=8),
    dims=st.integers(-1, 2),
    order=st.integers(0, 2),
)
def test_batches_of_maps_weights_and_both(backend, case, batched, dims, order):
    case = dataclasses.replace(case, **LIMITS.get(backend, {}))
    function, tensors, keywords = parts(case)["all"]
    # One axis may be the batch's, wherever it lies.
    dims = [min(dims, tensor.ndim) if many else None for tensor, many in zip(tensors, batched, strict=True)]
    if all(dim is None for dim in dims):
        dims[0] = 0
    stacked = [
        tensor if dim is None else torch.stack((tensor, 0.5 * tensor, -tensor), dim)
        for tensor, dim in zip(tensors, dims, strict=True)
    ]

    def compute(name):
        def scalar(*given):
            return function(*given, **keywords, backend=name).square().sum()

        derivatives = (
            lambda *given: function(*given, **keywords, backend=name).flatten(),
            lambda *given: torch.cat([part.flatten() for part in grad(scalar, argnums=tuple(range(8)))(*given)]),
            lambda *given: back(lambda *all_: grad(scalar)(*all_).flatten(), torch.ones(tensors[0].numel()).double())(
                *given
            ),
        )
        return vmap(derivatives[order], tuple(dims))(*stacked)

    assert_same(compute(backend), compute("reference"))


LAYER = {"kernel_att": 5, "dtype": torch.float64}


@pytest.fixture(params=BACKENDS)
def layers(request):
    """A layer of a backend and the same of the reference."""
    pair = [acmix.ACmix(3, 8, backend=name, bias=True, **LAYER) for name in (request.param, "reference")]
    pair[1].load_state_dict(pair[0].state_dict())
    return pair


def both(layers, function):
    for actual, expected in zip(*(torch.utils._pytree.tree_leaves(function(layer)) for layer in layers), strict=True):
        assert_same(actual, expected)


def x_of(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_gradient_penalty(layers):
    def penalty(layer):
        x = x_of(2, 3, 7, 6).requires_grad_()
        (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), (x, *layer.parameters()))

    both(layers, penalty)


@pytest.mark.parametrize("reentrant", [False, True])
def test_under_activation_checkpointing(layers, reentrant):
    def derivative(layer):
        x = x_of(2, 3, 7, 6).requires_grad_()
        if reentrant:
            # Reentrant checkpoints know backward() alone, and no second derivative.
            checkpoint(layer, x, use_reentrant=True).square().sum().backward()
            return x.grad
        (gradient,) = torch.autograd.grad(
            checkpoint(layer, x, use_reentrant=False).square().sum(), x, create_graph=True
        )
        return torch.autograd.grad(gradient.square().sum(), x)

    both(layers, derivative)


def test_jacobians_hessians_and_products_with_them(layers):
    x, tangent = x_of(1, 3, 3, 4), x_of(1, 3, 4, 3).reshape(1, 3, 3, 4)
    both(layers, lambda layer: (jacrev(layer)(x), jacfwd(layer)(x)))
    both(layers, lambda layer: hessian(lambda x: layer(x).square().sum())(x))
    both(layers, lambda layer: jvp(grad(lambda x: layer(x).pow(3).sum()), (x,), (tangent,))[1])
    both(layers, lambda layer: torch.autograd.functional.hvp(lambda x: layer(x).pow(3).sum(), x, tangent)[1])
    both(layers, lambda layer: torch.autograd.functional.jacobian(layer, x, vectorize=True))


def test_dual_numbers(layers):
    x, tangent = x_of(2, 3, 5, 4), x_of(2, 3, 4, 5).reshape(2, 3, 5, 4)

    def push(layer):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(layer(forward_ad.make_dual(x, tangent))).tangent

    both(layers, push)


def test_gradients_of_every_sample_and_of_ensembles(layers):
    x = x_of(3, 3, 5, 4)

    def per_sample(layer):
        def loss(parameters, image):
            return functional_call(layer, parameters, (image[None],)).square().sum()

        parameters = dict(layer.named_parameters())
        ensemble = {name: torch.stack((value, 2 * value, -value)) for name, value in parameters.items()}
        return (
            vmap(grad(loss), (None, 0))(parameters, x),
            vmap(grad(loss), (0, None))(ensemble, x[0]),
            vmap(grad(loss, argnums=(0, 1)), (0, 0))(ensemble, x),
            vmap(layer)(x[:, None]),
        )

    both(layers, per_sample)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradgradcheck(backend, stride):
    tensors = Problem(1, 2, 2, 3, 8, 3, 3, stride, 1, torch.float64, "contiguous", 3).tensors()
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]

    def function(*arguments):
        return ops.mix(*arguments, window=3, stride=stride, backend=backend)

    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True, check_forward_ad=True, check_batched_grad=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_second_derivatives_of_other_dtypes(backend, dtype):
    case = Problem(1, 2, 4, 6, 7, 3, 3, 1, 1, torch.float64, "contiguous", 0)

    def penalty(name, dtype):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in case.tensors()]
        output = ops.mix(*leaves, window=3, backend=name)
        (gradient,) = torch.autograd.grad(output.float().square().mean(), leaves[0], create_graph=True)
        return torch.cat(
            [part.double().flatten() for part in torch.autograd.grad(gradient.float().square().sum(), leaves)]
        )

    actual, exact = penalty(backend, dtype), penalty("reference", torch.float64)
    assert (actual - exact).norm() <= 60 * torch.finfo(dtype).eps * exact.norm()


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_graphs_differentiate_once_and_say_so(backend):
    layer = acmix.ACmix(3, 4, backend=backend, **LAYER)
    x = x_of(1, 3, 5, 4).requires_grad_()
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=False)
    (actual,) = torch.autograd.grad(compiled(x).square().sum(), x, create_graph=True)
    torch.testing.assert_close(actual, expected)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        torch.autograd.grad(actual.square().sum(), x)
