import pytest
import torch

from acmix import InputError
from acmix.study.kinds import KINDS
from acmix.study.pretrained import start_from
from acmix.study.variants import VARIANTS, rates
from acmix.tasks.classification.settings import Settings

SHAPE = KINDS["classification"].shape(Settings(model="acmix_resnet14_small"), 3)


def built(name):
    return VARIANTS[name].build(SHAPE).double().eval()


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    network = built("convolution")
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and "running" not in name:
                tensor.add_(0.1 * torch.randn_like(tensor))
    return network


def test_convolutions_start_where_training_ended(trained):
    network = built("convolution")
    start_from(network, trained.state_dict())
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(network(image), trained(image))


@pytest.mark.parametrize("name", ["last-stage", "acmix"])
def test_operators_start_warm(trained, name):
    network = built(name)
    start_from(network, trained.state_dict())
    assert set(rates(network)) == {(0.0, 1.0)}
    image = torch.randn(1, 16, 8, 8, dtype=torch.float64)
    assert torch.equal(network.layer1[0].conv1.weight, trained.layer1[0].conv1.weight)
    if name == "acmix":
        theirs = trained.layer1[0].conv2(image)
        assert (network.layer1[0].conv2(image) - theirs).norm() < 0.7 * theirs.norm()


@pytest.mark.parametrize("name", ["equal-convolution", "convolution-80", "attention", "fast-rates"])
def test_other_networks_do_not(trained, name):
    network = VARIANTS[name].build(SHAPE).double()
    with pytest.raises(InputError, match="differs from the trained network in more than the operator"):
        start_from(network, trained.state_dict())
