"""PyTorch's own: TorchScript and AOTInductor."""

import torch

from examples import runtimes
from tests.export.runtimes.networks import detector, largest_difference, other_images


def test_torchscript(case, tmp_path):
    network, images = case
    run = runtimes.torchscript(network, images, tmp_path)
    largest_difference(run, network, images, *other_images(images))


def test_aotinductor(tmp_path):
    network, images = detector()
    run = runtimes.aotinductor(network, images, tmp_path)
    largest_difference(run, network, images, torch.randn_like(images))
