"""ExecuTorch: its own kernels and XNNPACK's, and the operators that it computes wrong."""

import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime, Verification
from torch import nn

from examples import runtimes
from tests.export.runtimes.networks import largest_difference


@pytest.mark.parametrize("xnnpack", [False, True], ids=["portable", "xnnpack"])
def test_networks(case, xnnpack, tmp_path):
    network, images = case
    largest_difference(
        runtimes.executorch(network, images, tmp_path, xnnpack), network, images, torch.randn_like(images)
    )


class Remainder(nn.Module):
    def forward(self, x):
        return x.remainder(4)


class SevenAxes(nn.Module):
    def forward(self, x):
        return x.reshape(2, 2, 1, 2, 3, 2, 1).permute(1, 3, 0, 5, 2, 4, 6) * 2


def load(module, example, partitioner):
    program = torch.export.export(module, (example,))
    buffer = to_edge_transform_and_lower(program, partitioner=partitioner).to_executorch().buffer
    return Runtime.get().load_program(buffer, verification=Verification.Minimal).load_method("forward")


def test_remainders_of_negative_integers_are_wrong_there():
    """So reflection takes none (`geometry.reflect`); when this fails, it may."""
    numbers = torch.arange(-3, 4)
    (found,) = load(Remainder(), numbers, []).execute([numbers])
    assert found.tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert Remainder()(numbers).tolist() == [1, 2, 3, 0, 1, 2, 3]


def test_xnnpack_loads_no_tensor_of_seven_axes():
    """So the graph has five at most."""
    with pytest.raises(RuntimeError, match="0x:1"):
        load(SevenAxes(), torch.randn(2, 4, 6), [XnnpackPartitioner()])
