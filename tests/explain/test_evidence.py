"""Evidence for a class, by its definition."""

import pytest
import torch

from acmix import explain
from acmix.nn import ACmix


def classifier():
    features = torch.nn.Sequential(ACmix(3, 8, heads=2, stride=2), torch.nn.Tanh(), torch.nn.Conv2d(8, 4, 3))
    return torch.nn.Sequential(features, torch.nn.Flatten(), torch.nn.Linear(4 * 2 * 3, 5)).double().eval()


def test_evidence_is_grad_cam_with_its_negative_values():
    network, images = classifier(), torch.randn(2, 3, 8, 10, dtype=torch.float64)
    classes = torch.tensor([3, 0])
    evidence = explain.class_evidence(network, images, classes, network[0][0])
    activation = network[0][0](images).detach().requires_grad_()
    logits = network[2](network[1](network[0][2](network[0][1](activation))))
    (slope,) = torch.autograd.grad(logits[torch.arange(2), classes].sum(), activation)
    expected = (slope.mean((2, 3), keepdim=True) * activation).sum(1)
    assert evidence.shape == (2, 4, 5)
    torch.testing.assert_close(evidence, expected.detach())
    assert evidence.min() < 0 < evidence.max()
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not evidence.requires_grad


def test_evidence_within_no_grad():
    network, images = classifier(), torch.randn(1, 3, 8, 10, dtype=torch.float64)
    expected = explain.class_evidence(network, images, torch.tensor([1]), network[0][0])
    with torch.no_grad():
        assert torch.equal(explain.class_evidence(network, images, torch.tensor([1]), network[0][0]), expected)


def test_layers_with_several_outputs_are_refused():
    class Twice(torch.nn.Module):
        def forward(self, x):
            return x, 2 * x

    class Summed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.twice = Twice()
            self.head = torch.nn.Linear(4, 2)

        def forward(self, x):
            return self.head(sum(self.twice(x)).flatten(1))

    network = Summed()
    with pytest.raises(TypeError, match="layer must have one output, Twice has 2"):
        explain.class_evidence(network, torch.randn(1, 1, 2, 2), torch.tensor([0]), network.twice)
