"""PyTorch's own: TorchScript and AOTInductor."""

import pytest
import torch

from examples import runtimes
from tests.export.runtimes.networks import largest_difference, other_images


def test_torchscript(case, tmp_path):
    network, images = case
    run = runtimes.torchscript(network, images, tmp_path)
    largest_difference(run, network, images, *other_images(images))


# Of one network: its kernels go through the C++ compiler.
@pytest.mark.parametrize("case", ["classifier"], indirect=True)
def test_aotinductor(case, tmp_path):
    network, images = case
    run = runtimes.aotinductor(network, images, tmp_path)
    largest_difference(run, network, images, torch.randn_like(images))
