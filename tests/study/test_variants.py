import pytest
import torch

from acmix import ACmix, InputError
from acmix.accounting import convolution_twin
from acmix.study.variants import VARIANTS, OnePath, rates

MODEL, SIZE = "acmix_resnet14_small", (3, 32, 32)


def built(name):
    return VARIANTS[name].build(MODEL, 10)


def operators(network):
    return [module for module in network.modules() if isinstance(module, ACmix)]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_network_learns(name):
    network = built(name)
    network(torch.randn(2, 3, 16, 16)).sum().backward()
    without = [key for key, parameter in network.named_parameters() if parameter.grad is None]
    fixed = [key for key, parameter in network.named_parameters() if not parameter.requires_grad]
    assert without == fixed
    learned = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert VARIANTS[name].cost(MODEL, 10, SIZE).parameters == learned


def test_paths_add_up_to_the_operator():
    operator = ACmix(8, 16, stride=2).double()
    image = torch.randn(2, 8, 9, 7, dtype=torch.float64)
    parts = [OnePath(operator, path)(image) for path in ("attention", "convolution")]
    torch.testing.assert_close(0.5 * parts[0] + 0.5 * parts[1], operator(image))


def test_costs():
    costs = {name: variant.cost(MODEL, 10, SIZE) for name, variant in VARIANTS.items()}
    acmix, convolution = costs["acmix"], costs["convolution"]
    twin = convolution_twin(built("acmix"))
    assert convolution.parameters == sum(parameter.numel() for parameter in twin.parameters())
    assert abs(costs["equal-convolution"].parameters / acmix.parameters - 1) < 0.02
    # Both paths need the projections and the rest of the network.
    alone = costs["attention"].multiply_adds + costs["convolution-path"].multiply_adds
    assert acmix.multiply_adds < alone < 2 * acmix.multiply_adds
    assert costs["attention"].parameters < acmix.parameters > costs["convolution-path"].parameters
    assert costs["equal-rates"].parameters == acmix.parameters - 8
    saved = acmix.multiply_adds - costs["window-3"].multiply_adds
    assert costs["attention"].multiply_adds - costs["attention-window-3"].multiply_adds == saved > 0


def test_kernels_and_rates():
    assert rates(built("equal-rates")) == [(0.5, 0.5)] * 4
    assert rates(built("convolution")) == []
    assert all(operator.dep_weight.unique().tolist() == [0, 1] for operator in operators(built("acmix")))
    assert all(operator.dep_weight.unique().numel() > 2 for operator in operators(built("random-kernels")))


def test_quiet_shifts_are_as_small_as_random_kernels():
    for quiet, random in zip(operators(built("quiet-shifts")), operators(built("random-kernels")), strict=True):
        assert quiet.dep_weight.count_nonzero() == 9 * quiet.out_channels
        assert quiet.dep_weight.norm().item() == pytest.approx(random.dep_weight.norm().item(), rel=0.1)


def test_windows_and_positions():
    assert {operator.kernel_att for operator in operators(built("window-3"))} == {3}
    paths = [module for module in built("attention-window-3").modules() if isinstance(module, OnePath)]
    assert [(path.path, path.window) for path in paths] == 4 * [("attention", 3)]
    assert not any(operator.position_weight.any() for operator in operators(built("no-positions")))


@pytest.mark.parametrize("model", ["resnet18", "acmix_resnet27"])
def test_other_models_are_refused(model):
    with pytest.raises(InputError, match="must be an ACmix-ResNet|nearest names are acmix_resnet26"):
        VARIANTS["convolution"].build(model, 10)
