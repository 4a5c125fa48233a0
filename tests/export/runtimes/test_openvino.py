"""OpenVINO from all that it reads, one size and every size."""

import openvino
import pytest
import torch
from torch import nn
from torch.export import Dim

from examples import runtimes
from tests.export.runtimes.networks import largest_difference, other_images


# Every way with either network and either kind of size, and these with each other: one conversion takes up to a minute.
@pytest.mark.parametrize(
    ("case", "load", "dynamic"),
    [
        ("classifier", runtimes.openvino_from_onnx, False),
        ("detector", runtimes.openvino_from_onnx, True),
        ("detector", runtimes.openvino_from_program, False),
        ("classifier", runtimes.openvino_from_program, True),
        ("classifier", runtimes.openvino_from_module, False),
        ("detector", runtimes.openvino_from_module, True),
    ],
    indirect=["case"],
)
def test_networks(case, load, dynamic, tmp_path):
    network, images = case
    run = load(network, images, tmp_path, dynamic)
    largest_difference(run, network, *(other_images(images) if dynamic else (images, torch.randn_like(images))))


class AtLeastOne(nn.Module):
    def forward(self, x):
        return x / torch.sym_max(x.shape[0] - 1, 1)


def test_there_is_no_maximum_of_symbols():
    """So sizes are bounded as tensors (`geometry.location`)."""
    program = torch.export.export(AtLeastOne(), (torch.randn(6, 3),), dynamic_shapes=({0: Dim.DYNAMIC},))
    with pytest.raises(openvino.frontend.OpConversionFailure, match="sym_max"):
        openvino.convert_model(program)
