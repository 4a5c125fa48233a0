"""What only a GPU shows: networks that train, CUDA graphs, devices other than the current one, memory errors."""

import shutil
import subprocess
import sys

import pytest
import timm
import torch

import acmix
from acmix import ops
from acmix.bench import measure

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", timm.list_models("acmix_*"))
def test_a_network_trains(name, dtype):
    network = acmix.create_model(name, num_classes=10).cuda().to(memory_format=torch.channels_last)
    _, height, width = network.default_cfg["input_size"]
    images = torch.randn(4, 3, height, width, device="cuda").contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    losses = []
    for _ in range(8):
        with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
            loss = torch.nn.functional.cross_entropy(network(images), torch.arange(4, device="cuda"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_auto_takes_triton():
    assert ops.dispatch.select("auto", torch.empty(1, 3, 16, 8, 8, device="cuda"), 7, 1, 1) is ops.triton


def test_cuda_graph_gives_the_same():
    layer = acmix.ACmix(64, 64).cuda().eval()
    image = torch.randn(2, 64, 14, 14, device="cuda")
    outputs = []
    with torch.no_grad():
        replay = measure.as_graph(lambda: outputs.append(layer(image)))
        replay()
        assert torch.equal(outputs[-1], layer(image))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_device_that_is_not_the_current_one():
    layer = acmix.ACmix(32, 32).to("cuda:1")
    image = torch.randn(1, 32, 9, 9, device="cuda:1")
    expected = layer.double()(image.double())
    torch.testing.assert_close(layer.float()(image), expected.float(), rtol=1e-2, atol=1e-2)


@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="compute-sanitizer is not installed")
def test_no_kernel_touches_memory_that_is_not_its_own():
    program = (
        "import torch; from acmix import ops; from tests.ops.test_triton import problem\n"
        "tensors = [t.requires_grad_() for t in problem(4, 16, 9, 19).tensors('cuda')]\n"
        "ops.mix(*tensors, backend='triton').sum().backward()"
    )
    command = ["compute-sanitizer", "--error-exitcode", "1", sys.executable, "-c", program]
    subprocess.run(command, check=True)  # noqa: S603
