"""ONNX Runtime in float32 and float16."""

import pytest
import torch

from examples import runtimes
from tests.export.runtimes.networks import largest_difference, other_images


# Every file was held against PyTorch by `to_onnx`, too; here it is what a user opens.
@pytest.mark.parametrize(
    ("case", "dynamic"), [("classifier", False), ("detector", True)], ids=["fixed", "dynamic"], indirect=["case"]
)
def test_networks(case, dynamic, tmp_path):
    network, images = case
    run = runtimes.onnx_runtime(network, images, tmp_path, dynamic)
    largest_difference(run, network, *(other_images(images) if dynamic else (images, torch.randn_like(images))))


@pytest.mark.parametrize("case", ["classifier"], indirect=True)
def test_float16(case, tmp_path):
    network, images = case
    run = runtimes.onnx_runtime(network.half(), images.half(), tmp_path, dynamic=True)
    batches = [batch.half() for batch in (images, *other_images(images))]
    largest_difference(run, network, *batches, rounding=torch.finfo(torch.float16).eps)
