"""ncnn through pnnx, and the operator that it does not have."""

import pytest
import torch
from torch import nn

import acmix
from examples import runtimes
from tests.export.runtimes.networks import largest_difference
from tests.surgery.test_fusion import trained


def test_networks(case, tmp_path):
    network, images = case
    largest_difference(runtimes.ncnn(network, images, tmp_path), network, images)


class Layers(nn.Module):
    """Every kind of grid."""

    def __init__(self):
        super().__init__()
        grids = {}, {"stride": 2}, {"dilation": 2, "kernel_att": 5}, {"stride": 3, "kernel_att": 1}
        self.layers = nn.ModuleList(acmix.ACmix(4, 16, **grid) for grid in grids)

    def forward(self, x):
        return tuple(layer(x) for layer in self.layers)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2), (9, 7)], ids=str)
def test_layers(size, tmp_path):
    layers, images = trained(Layers()), torch.randn(1, 4, *size)
    largest_difference(runtimes.ncnn(layers, images, tmp_path), layers, images)


class Gather(nn.Module):
    def forward(self, x):
        return x.index_select(2, torch.tensor([2, 0, 0])) * 2


def test_there_is_no_gather(tmp_path, capfd):
    """So `acmix.export.without_gathers` unfolds tiles instead."""
    import ncnn
    import pnnx

    images = torch.randn(1, 2, 3, 4)
    torch.jit.trace(Gather(), images).save(tmp_path / "gather.pt")
    pnnx.convert(str(tmp_path / "gather.pt"), [images])
    assert ncnn.Net().load_param(str(tmp_path / "gather.ncnn.param")) != 0
    assert "index_select not exists" in capfd.readouterr().err
