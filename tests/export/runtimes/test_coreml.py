"""CoreML: conversion anywhere, results on macOS."""

import sys

import coremltools
import pytest
import torch
from torch import nn
from torch.export import Dim

from examples import runtimes
from tests.export.runtimes.networks import largest_difference


def test_networks(case, tmp_path):
    network, images = case
    run = runtimes.coreml(network, images, tmp_path)
    assert (tmp_path / "network.mlpackage").is_dir()
    if sys.platform == "darwin":
        largest_difference(run, network, images, torch.randn_like(images))


class AtLeastOne(nn.Module):
    def forward(self, x):
        return x / torch.sym_max(x.shape[0] - 1, 1)


def test_there_is_no_maximum_of_symbols():
    """So sizes are bounded as tensors (`geometry.location`)."""
    program = torch.export.export(AtLeastOne(), (torch.randn(4, 3),), dynamic_shapes=({0: Dim.DYNAMIC},))
    with pytest.raises(NotImplementedError, match="sym_max"):
        coremltools.convert(program.run_decompositions({}), minimum_deployment_target=coremltools.target.iOS17)
