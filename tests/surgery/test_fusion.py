"""Fused networks compute the same with less."""

import copy
import warnings

import pytest
import timm
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

import acmix
from acmix import ACmix
from acmix.surgery import FusedACmix


def trained(network):
    """Rates, biases and batch norms as after training."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, ACmix):
                module.rate_attention.fill_(0.7)
                module.rate_convolution.fill_(-1.3)
                module.dep_weight.add_(torch.randn_like(module.dep_weight) / 9)
                if module.bias is not None:
                    module.bias.normal_()
            elif isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                if module.weight is not None:
                    module.weight.uniform_(0.5, 1.5).mul_(torch.randn_like(module.weight).sign())
                    module.bias.normal_()
    return network.eval()


def names(network, kind):
    return [name for name, module in network.named_modules() if isinstance(module, kind)]


@pytest.mark.parametrize("heads", [2, 4, 8])
@pytest.mark.parametrize("options", [{}, {"stride": 2, "bias": True, "kernel_conv": 5}])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d(16), nn.BatchNorm2d(16, affine=False), FrozenBatchNorm2d(16)])
def test_operator_with_batch_norm(heads, options, norm):
    network = trained(nn.Sequential(ACmix(6, 16, heads=heads, **options), copy.deepcopy(norm)).double())
    fused = acmix.fuse(network)
    x = torch.randn(2, 6, 9, 12, dtype=torch.float64)
    torch.testing.assert_close(fused(x), network(x))
    assert isinstance(fused[0], FusedACmix)
    # With many heads the convolution path keeps its two steps, which have no place for a scale a channel.
    two_steps = fused[0].fc_weight is not None
    assert two_steps == (heads == 8 and not options)
    assert isinstance(fused[1], nn.Identity) != two_steps


def test_a_bare_operator():
    operator = trained(ACmix(6, 16, dilation=2))
    x = torch.randn(2, 6, 9, 12)
    torch.testing.assert_close(acmix.fuse(operator)(x), operator(x))


def test_no_attention():
    network = trained(nn.Sequential(ACmix(4, 8), nn.BatchNorm2d(8)))
    network[0].rate_attention.data.zero_()
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(acmix.fuse(network)(x), network(x))


def test_a_scale_near_zero_stays_a_batch_norm():
    network = trained(nn.Sequential(ACmix(4, 8), nn.BatchNorm2d(8)))
    network[1].weight.data[3] = 0
    fused = acmix.fuse(network)
    x = torch.randn(1, 4, 6, 6)
    assert isinstance(fused[1], nn.BatchNorm2d)
    torch.testing.assert_close(fused(x), network(x))


@pytest.mark.parametrize(
    "make",
    [
        lambda: acmix.create_model("acmix_resnet14_small", num_classes=3),
        lambda: timm.create_model("test_efficientnet", num_classes=3),
        lambda: timm.create_model("test_resnet", num_classes=3),
    ],
    ids=["acmix", "efficientnet", "resnet"],
)
def test_networks(make):
    network = make()
    acmix.replace_convolutions(network)
    trained(network)
    before = copy.deepcopy(network.state_dict())
    fused = acmix.fuse(network)
    assert names(fused, nn.BatchNorm2d) == []
    assert names(fused, ACmix) == []
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    with torch.inference_mode():
        x = torch.randn(2, 3, 48, 40)
        exact = network.double()(x.double())
        error = (fused(x) - exact).norm() / exact.norm()
        assert error < 1e-4
        half = fused.bfloat16()(x.bfloat16())
    assert (half - exact).norm() / exact.norm() < 0.2


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = ACmix(4, 8), ACmix(4, 8), nn.BatchNorm2d(8)
        self.third, self.last = nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x):
        first, third = self.first(x), self.third(x)
        return self.norm(first) + first + self.norm(self.second(x)) + self.last(third) * third.mean()


def test_what_others_read_is_not_folded():
    network = trained(Branching())
    fused = acmix.fuse(network)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(fused(x), network(x))
    assert names(fused, nn.BatchNorm2d) == ["norm", "last"]


class Untraceable(nn.Sequential):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


def test_a_network_that_cannot_be_traced_keeps_its_batch_norms_and_says_so():
    network = trained(Untraceable(ACmix(4, 8), nn.BatchNorm2d(8)))
    with pytest.warns(UserWarning, match=r"the batch norms of Untraceable stay, torch\.fx cannot trace it: "):
        fused = acmix.fuse(network)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(fused(x), network(x))
    assert isinstance(fused[1], nn.BatchNorm2d)


def test_traces_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        acmix.fuse(acmix.create_model("acmix_resnet14_small"))
