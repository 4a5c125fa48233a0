"""ONNX Runtime in float32, float16 and int8."""

import pytest
import torch

from examples import runtimes
from tests.export.runtimes.networks import largest_difference, other_images


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
def test_networks(case, dynamic, tmp_path):
    network, images = case
    run = runtimes.onnx_runtime(network, images, tmp_path, dynamic)
    largest_difference(run, network, *(other_images(images) if dynamic else (images, torch.randn_like(images))))


def test_float16(case, tmp_path):
    network, images = case
    run = runtimes.onnx_runtime(network.half(), images.half(), tmp_path, dynamic=True)
    batches = [batch.half() for batch in (images, *other_images(images))]
    largest_difference(run, network, *batches, rounding=torch.finfo(torch.float16).eps)


def test_int8(digits, tmp_path):
    digits.hold(runtimes.onnx_runtime_int8, tmp_path)
