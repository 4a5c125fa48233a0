"""What only a GPU shows: networks that train, CUDA graphs, processes and devices, large batches, memory errors."""

import importlib
import os
import shutil
import subprocess
import sys

import pytest
import timm
import torch
from timm.data import resolve_data_config

import acmix
import acmix.models  # names for timm
from acmix import ops
from acmix.bench import measure
from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.trained import save_trained

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
    features = ops.Features(torch.device("cuda"), torch.float32, (1, 3, 16, 8, 8))
    assert isinstance(ops.select("auto", features, ops.Grid(1, 7, 1, 1)), ops.triton.Triton)


@pytest.fixture
def _deterministic():
    # PyTorch's own convolutions are not otherwise.
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def results(layer, image):
    """Output and gradients of a training step, of the input and of every parameter."""
    image = image.detach().requires_grad_()
    output = layer(image)
    return output.detach(), *torch.autograd.grad(output.square().sum(), (image, *layer.parameters()))


@pytest.mark.usefixtures("_deterministic")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_graph_gives_the_same(dtype, stride):
    layer = acmix.ACmix(64, 64, stride=stride).to("cuda", dtype)
    image = torch.randn(2, 64, 14, 14, device="cuda", dtype=dtype)
    captured = []
    replay = measure.as_graph(lambda: captured.append(results(layer, image)))
    image.normal_()
    replay()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(captured[-1], results(layer, image), strict=True))


@pytest.mark.usefixtures("_deterministic")
@pytest.mark.parametrize("static_graph", [False, True])
def test_distributed_data_parallel_has_the_gradients_of_one_process(tmp_path, static_graph):
    layer = acmix.ACmix(32, 32).cuda()
    image = torch.randn(4, 32, 14, 14, device="cuda")
    alone = results(layer, image)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("nccl", store=store, rank=0, world_size=1, device_id=torch.device("cuda:0"))
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(layer, device_ids=[0], static_graph=static_graph)
        for _ in range(2):
            layer.zero_grad()
            parallel(image).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert all(torch.equal(part.grad, own) for part, own in zip(layer.parameters(), alone[2:], strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_device_that_is_not_the_current_one():
    layer = acmix.ACmix(32, 32)
    image = torch.randn(1, 32, 9, 9)
    first, second = (results(layer.to(device), image.to(device)) for device in ("cuda:0", "cuda:1"))
    assert second[0].device == torch.device("cuda:1")
    torch.testing.assert_close([part.cpu() for part in second], [part.cpu() for part in first])


def test_batches_of_more_numbers_than_32_bits_count():
    if torch.cuda.mem_get_info()[0] < 32 << 30:
        pytest.skip("needs 32 GB of free memory on the GPU")
    cells = torch.randn(3600, 56, 56, 12, 16, device="cuda", dtype=torch.bfloat16)
    assert cells.numel() > 2**31
    shapes = ((16, 2), (9, 12), (64, 9, 3, 3), (1,), (1,))
    weights = [torch.randn(shape, device="cuda") for shape in shapes]
    images = []
    for part in (cells, cells[-1:]):
        projections = part.permute(0, 3, 4, 1, 2).requires_grad_()
        output = ops.mix(projections, *weights, backend="triton")
        (gradient,) = torch.autograd.grad(output, projections, torch.ones_like(output))
        images.append((output[-1].detach(), gradient[-1]))
    assert all(torch.equal(of_many, alone) for of_many, alone in zip(*images, strict=True))


def test_images_of_more_numbers_than_32_bits_count():
    if torch.cuda.mem_get_info()[0] < 32 << 30:
        pytest.skip("needs 32 GB of free memory on the GPU")
    projections = torch.zeros(1, 257, 2**16, 3, 128, device="cuda", dtype=torch.bfloat16)
    offset = torch.randn(257, 2**16, 128, device="cuda", dtype=torch.bfloat16)
    assert offset.numel() > 2**31
    importlib.import_module("acmix.ops.triton.operators")
    output, _ = torch.ops.acmix_triton.attend(projections, None, None, None, offset, 1, 1)
    assert torch.equal(output[0], offset)


@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="compute-sanitizer is not installed")
def test_no_kernel_touches_memory_that_is_not_its_own():
    program = (
        "import torch; from acmix import ops; from tests.ops.test_triton import problem\n"
        "for stride, heads in ((1, 4), (2, 5)):\n"
        "    tensors = [t.requires_grad_() for t in problem(heads, 16, 9, 19, stride=stride).tensors('cuda')]\n"
        "    ops.mix(*tensors, stride=stride, backend='triton').sum().backward()"
    )
    command = ["compute-sanitizer", "--error-exitcode", "1", sys.executable, "-c", program]
    # PyTorch's own allocator would hide what reaches beyond a tensor.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    subprocess.run(command, check=True, env=environment)  # noqa: S603


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_a_network_is_loaded_to_the_device_and_predicts_there(tmp_path, device):
    network = timm.create_model("acmix_resnet14_small", num_classes=3).eval()
    preprocessing = resolve_data_config({}, model=network)
    arguments = {"model_name": "acmix_resnet14_small", "classes": ("a", "b", "c"), "preprocessing": preprocessing}
    save_trained(tmp_path / "best.safetensors", Classifier(model=network, **arguments))
    images = torch.randn(5, *preprocessing["input_size"])
    loaded = acmix.load(tmp_path, device=device)
    assert loaded.device.type == "cuda"
    found = loaded.predict(images, batch_size=2)
    expected = acmix.load(tmp_path, device="cpu").predict(images)
    assert found[0] == expected[0]
    torch.testing.assert_close(found[1], expected[1], atol=1e-4, rtol=0)
