"""LiteRT, and the operator that its interpreter does not know."""

import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from litert_torch import convert
from torch import nn

from examples import runtimes
from tests.export.runtimes.networks import largest_difference


def test_networks(case, tmp_path):
    network, images = case
    largest_difference(runtimes.litert(network, images, tmp_path), network, images, torch.randn_like(images))


class Identity(nn.Module):
    def forward(self, x):
        return x @ torch.eye(3)


def test_there_is_no_iota(tmp_path):
    """So constants are made before the graph (`tracing.unrecorded`); when this fails, they may be made in it."""
    convert(Identity(), (torch.randn(2, 3),)).export(str(tmp_path / "eye.tflite"))
    with pytest.raises(ValueError, match="STABLEHLO_IOTA"):
        Interpreter(str(tmp_path / "eye.tflite"))
