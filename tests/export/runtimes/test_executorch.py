"""ExecuTorch: its own kernels and XNNPACK's, and the operators that it computes wrong."""

import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime, Verification
from torch import nn
from torch.export import Dim

import acmix
from examples import runtimes
from tests.export.runtimes.networks import largest_difference
from tests.surgery.test_fusion import trained


# Either network and either kind of kernels: the operator's graph is the same in both.
@pytest.mark.parametrize(
    ("case", "xnnpack"), [("detector", False), ("classifier", True)], ids=["portable", "xnnpack"], indirect=["case"]
)
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


def load(program, partitioner):
    buffer = to_edge_transform_and_lower(program, partitioner=partitioner).to_executorch().buffer
    loaded = Runtime.get().load_program(buffer, verification=Verification.Minimal)
    # A method does not keep its program.
    return loaded, loaded.load_method("forward")


def test_remainders_of_negative_integers_are_wrong_there():
    """So reflection takes none (`geometry.reflect`); when this fails, it may."""
    numbers = torch.arange(-3, 4)
    _program, method = load(torch.export.export(Remainder(), (numbers,)), [])
    (found,) = method.execute([numbers])
    assert found.tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert Remainder()(numbers).tolist() == [1, 2, 3, 0, 1, 2, 3]


def test_xnnpack_loads_no_tensor_of_seven_axes():
    """So the graph has five at most."""
    program = torch.export.export(SevenAxes(), (torch.randn(2, 4, 6),))
    with pytest.raises(RuntimeError, match="0x:1"):
        load(program, [XnnpackPartitioner()])


def test_sizes_within_bounds():
    layer = trained(acmix.ACmix(4, 16))
    example, sizes = torch.randn(2, 4, 12, 10), {2: Dim("height", min=2, max=64), 3: Dim("width", min=2, max=64)}
    with torch.no_grad():
        program = torch.export.export(acmix.fuse(layer), (example,), dynamic_shapes=(sizes,))
    images = [torch.randn(2, 4, *size) for size in ((12, 10), (5, 3), (31, 22))]
    for partitioner in ([], [XnnpackPartitioner()]):
        _program, method = load(program, partitioner)
        largest_difference(lambda each, run=method.execute: run([each]), layer, *images)
