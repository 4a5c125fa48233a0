"""Small networks that stand for what people export, and how outputs are held against PyTorch's."""

import copy
from functools import partial
from itertools import pairwise

import torch
from torch import nn

import acmix
from tests.surgery.test_fusion import trained

# An error against float64 may be this many times PyTorch's own: sums have other orders, convolutions other algorithms.
FACTOR = 10
ROUNDING = torch.finfo(torch.float32).eps


class Detector(nn.Module):
    """Maps of the last strides, three at most, of a backbone and a pyramid whose convolutions were replaced."""

    def __init__(self, *channels):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.SiLU())
            for inputs, outputs in pairwise((3, *channels))
        )
        self.lateral = nn.ModuleList(nn.Conv2d(channels, 16, 1) for channels in channels[-3:])
        self.heads = nn.ModuleList(nn.Conv2d(16, 8, 3, padding=1) for _ in channels[-3:])

    def forward(self, images):
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        found, above = [], None
        for cells, lateral, head in zip(maps[:-4:-1], reversed(self.lateral), self.heads, strict=True):
            level = lateral(cells)
            if above is not None:
                level = level + nn.functional.interpolate(above, scale_factor=2.0, mode="nearest")
            found.append(head(level))
            above = level
        return tuple(found)


def classifier(**arguments):
    network = acmix.create_model("acmix_resnet14_small", zero_init_last=False, **arguments)
    return trained(network), torch.randn(1, 3, 32, 32)


def detector(*channels):
    torch.manual_seed(0)
    network = Detector(*channels)
    assert len(acmix.replace_convolutions(network).replaced) == len(network.stages) + len(network.heads)
    return trained(network), torch.randn(1, 3, 64, 96)


# Few operators, on the largest and smallest maps: converters take as long as graphs are large.
NETWORKS = {
    "classifier": partial(classifier, acmix_stages=(1, 4)),
    "detector": partial(detector, 16, 32),
}


def other_images(images):
    """Of another batch, height and width, which the detector takes, too."""
    return torch.randn(2, *images.shape[1:]), torch.randn(3, images.shape[1], 48, 80)


def largest_difference(run, network, *batches, factor=FACTOR, rounding=ROUNDING):
    """Hold what a runtime computes against the network in float64; the largest difference to PyTorch."""
    wide = copy.deepcopy(network).double()
    largest = 0.0
    for images in batches:
        found = list(run(images))
        with torch.no_grad():
            expected, exact = (
                [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
                for outputs in (network(images), wide(images.double()))
            )
        assert [output.shape for output in found] == [output.shape for output in expected]
        for output, own, truth in zip(found, expected, exact, strict=True):
            size = truth.norm().item()
            error, own_error = ((each.double() - truth).norm().item() / size for each in (output, own))
            assert error <= factor * max(own_error, rounding), f"{error:.2e} of {size:.2e}, PyTorch's {own_error:.2e}"
            largest = max(largest, (output.double() - own.double()).abs().max().item())
    return largest
