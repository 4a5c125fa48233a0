"""A warm start is the best fit of the convolution path to the old kernel."""

import pytest
import torch
from torch import nn

import acmix

DOUBLE = torch.float64


def swapped(convolution, **options):
    """The report's layer, and the operator that took the place of a convolution."""
    network = nn.Sequential(convolution)
    (layer,) = acmix.replace_convolutions(network, warm_start=True, **options).layers
    return layer, network[0]


def composed(operator):
    """The k x k convolution of the input that the convolution path computes."""
    impulse_size = 2 * operator.kernel_conv - 1
    impulses = torch.eye(operator.in_channels, dtype=DOUBLE).unflatten(1, (-1, 1, 1))
    impulses = nn.functional.pad(impulses, (impulse_size // 2,) * 4)
    with torch.no_grad():
        responses = operator(impulses)
    reach = operator.kernel_conv // 2
    centre = impulse_size // 2
    window = slice(centre - reach, centre + reach + 1)
    return responses[..., window, window].flip(2, 3).transpose(0, 1)


@pytest.mark.parametrize(("heads", "kernel"), [(1, 3), (2, 3), (4, 3), (8, 3), (2, 5)])
@pytest.mark.parametrize("channels_in", [2, 24])
def test_residual_is_what_the_path_leaves_of_the_kernel(heads, kernel, channels_in):
    torch.manual_seed(0)
    convolution = nn.Conv2d(channels_in, 16, kernel, padding=kernel // 2, bias=False, dtype=DOUBLE)
    layer, operator = swapped(convolution, heads=heads)
    left = (composed(operator) - convolution.weight).norm() / convolution.weight.norm()
    assert layer.residual == pytest.approx(left.item(), abs=1e-12)
    # The best rank-R approximation of every group, from its singular values.
    groups = convolution.weight.detach().unflatten(0, (16 // heads, heads)).transpose(1, 2).flatten(2)
    rank = min(kernel**2, 3 * heads)
    best = torch.linalg.svdvals(groups)[:, rank:].norm() / convolution.weight.norm()
    assert layer.residual == pytest.approx(best.item(), abs=1e-12)
    if channels_in <= rank:
        assert layer.residual < 1e-12


@pytest.mark.parametrize("stride", [1, 2])
def test_what_the_path_can_express_is_kept_exactly(stride):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 16, 3, stride, 1, dtype=DOUBLE)
    x = torch.randn(2, 3, 9, 12, dtype=DOUBLE)
    layer, operator = swapped(convolution)
    assert layer.residual < 1e-12
    assert operator.rate_attention.item() == 0
    assert operator.rate_convolution.item() == 1
    torch.testing.assert_close(operator(x), convolution(x))


def test_nothing_is_stuck_after_one_step():
    torch.manual_seed(0)
    _, operator = swapped(nn.Conv2d(3, 16, 3, padding=1, dtype=DOUBLE))
    optimizer = torch.optim.SGD(operator.parameters(), lr=0.1)
    x = torch.randn(2, 3, 9, 12, dtype=DOUBLE)
    for _ in range(2):
        optimizer.zero_grad()
        operator(x).square().sum().backward()
        optimizer.step()
    assert all((parameter.grad != 0).any() for parameter in operator.parameters())
    # Directions that the old kernel lacked are learned too.
    assert (operator.dep_weight.grad.flatten(2).abs().sum((0, 2)) > 0).all()


def test_a_kernel_of_zeros_has_no_residual():
    convolution = nn.Conv2d(4, 8, 3, padding=1)
    nn.init.zeros_(convolution.weight)
    layer, operator = swapped(convolution)
    assert layer.residual == 0
    assert torch.equal(operator(torch.zeros(1, 4, 5, 5))[0, :, 0, 0], convolution.bias)


def test_a_kernel_without_values_is_refused():
    with torch.device("meta"):
        network = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
    convolution = network[0]
    with pytest.raises(ValueError, match="kernels to fit, got one on the meta device; load the weights first"):
        acmix.replace_convolutions(network, warm_start=True)
    assert network[0] is convolution
