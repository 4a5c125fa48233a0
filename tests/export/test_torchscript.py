"""TorchScript: traces of layers and networks serve every size, in files, in C++ and as ONNX by PyTorch's exporters."""

import os
import shutil
import subprocess
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
import torchvision
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

import acmix
from acmix import ACmix
from tests.numerics import assert_as_exact_as_eager
from tests.surgery.test_fusion import trained

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit"),
    pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export"),
    pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning"),
]
SIZES = [(1, 1), (1, 9), (2, 3), (7, 7), (8, 4), (40, 17)]


def layers():
    return trained(
        nn.Sequential(
            ACmix(3, 16),
            nn.BatchNorm2d(16),
            ACmix(16, 16, dilation=2, kernel_att=5, kernel_conv=5),
            ACmix(16, 8, stride=2, heads=2, bias=True),
            ACmix(8, 16, heads=8, stride=3, kernel_att=3),
        )
    )


def small():
    return trained(acmix.create_model("acmix_resnet14_small", num_classes=3, channels=(8, 8, 16, 16), stem_width=8))


def someones():
    network = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3)
    acmix.replace_convolutions(network)
    return trained(network)


def trace(network, images):
    """PyTorch's own check of a trace has a tolerance that another order of sums exceeds."""
    return torch.jit.trace(network, images, check_trace=False)


def hold(run, network, sizes=SIZES):
    """Hold what runs beside the network against float64 on images of several sizes."""
    wide = acmix.surgery.identity.copy_network(network).double()
    for batch, size in enumerate(sizes, 1):
        # Several batches, so that neither error is the luck of one image.
        batches = torch.randn(4, batch, 3, *size)
        with torch.no_grad():
            found, eager = (torch.stack([each(images) for images in batches]) for each in (run, network))
            exact = torch.stack([wide(images) for images in batches.double()])
        assert_as_exact_as_eager(f"images of {size}", found, eager, exact)


def as_it_is(network):
    return network


@pytest.mark.parametrize(
    ("make", "change"), [(layers, as_it_is), (layers, acmix.fuse), (small, as_it_is), (someones, acmix.fuse)]
)
def test_a_trace_serves_every_size(make, change, tmp_path):
    network = change(make())
    trace(network, torch.randn(2, 3, 32, 40)).save(tmp_path / "network.pt")
    hold(torch.jit.load(tmp_path / "network.pt"), network)


def test_a_trace_of_an_operator_with_hooks_and_adapters():
    network = trained(nn.Sequential(ACmix(3, 8)))
    network[0].qkv = nn.Sequential(network[0].qkv, nn.Identity())
    network[0].register_forward_hook(lambda *all_of_it: 2 * all_of_it[-1])
    hold(trace(network, torch.randn(1, 3, 6, 6)), network)


def test_a_frozen_trace():
    network = small()
    hold(torch.jit.freeze(trace(network, torch.randn(1, 3, 20, 20))), network)


def test_one_image_without_a_batch():
    layer = trained(ACmix(3, 8))
    traced = trace(layer, torch.randn(3, 6, 6))
    image = torch.randn(3, 4, 9)
    torch.testing.assert_close(traced(image), layer(image))


@pytest.mark.parametrize("layer", [ACmix(4, 8), acmix.fuse(ACmix(4, 8))], ids=["layer", "fused"])
def test_scripting_is_refused(layer):
    with pytest.raises(RuntimeError, match=r"torch\.jit\.script does not take an ACmix; torch\.jit\.trace does"):
        torch.jit.script(nn.Sequential(layer))


PROGRAM = """
#include <ATen/Functions.h>
#include <torch/csrc/jit/serialization/import.h>

#include <iostream>

// A traced file; batch, height and width of images of 0.5; the sum of the outputs is printed.
int main(int, char** argv) {
  torch::jit::Module module = torch::jit::load(argv[1]);
  at::Tensor images = at::full({std::stol(argv[2]), 3, std::stol(argv[3]), std::stol(argv[4])}, 0.5);
  at::Tensor outputs = module.forward({images}).toTensor();
  std::cout << outputs.sizes() << " " << outputs.sum().item<double>() << std::endl;
}
"""


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
def test_a_program_in_cpp_runs_a_trace(tmp_path):
    network = acmix.fuse(layers())
    trace(network, torch.randn(2, 3, 24, 20)).save(tmp_path / "network.pt")
    tmp_path.joinpath("run.cpp").write_text(PROGRAM)
    installed = Path(torch.__file__).parent
    headers = [f"-I{installed / 'include' / part}" for part in ("", "torch/csrc/api/include")]
    libraries = [f"-L{installed / 'lib'}", f"-Wl,-rpath,{installed / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"]
    command = [os.environ.get("CXX", "g++"), "-std=c++20", "-O0", *headers, "run.cpp", "-o", "run", *libraries]
    subprocess.run(command, cwd=tmp_path, check=True)  # noqa: S603
    for shape in ((1, 1, 1), (3, 5, 17)):
        command = [str(tmp_path / "run"), "network.pt", *map(str, shape)]
        printed = subprocess.check_output(command, cwd=tmp_path, text=True)  # noqa: S603
        batch, *size = shape
        with torch.no_grad():
            expected = network(torch.full((batch, 3, *size), 0.5))
        sizes, total = printed.rsplit(" ", 1)
        assert sizes == str([*expected.shape])
        assert float(total) == pytest.approx(expected.double().sum().item(), rel=1e-4, abs=1e-3)


def in_onnx_runtime(path, domains=frozenset({""})):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=domains == {""})
    assert {node.domain for node in model.graph.node} <= domains
    assert not {node.op_type for node in model.graph.node} & {"Col2Im", "Loop", "If", "Scan", "GatherND"}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


@pytest.mark.parametrize(("make", "opset"), [(layers, 17), (small, 20)])
def test_the_exporter_of_traces(make, opset, tmp_path):
    network = acmix.fuse(make())
    names = {"input_names": ["images"], "opset_version": opset, "dynamo": False}
    axes = {"images": {0: "batch", 2: "height", 3: "width"}}
    torch.onnx.export(network, (torch.randn(2, 3, 24, 20),), tmp_path / "any.onnx", dynamic_axes=axes, **names)
    hold(in_onnx_runtime(tmp_path / "any.onnx"), network)
    torch.onnx.export(network, (torch.randn(1, 3, 24, 20),), tmp_path / "one.onnx", **names)
    hold(in_onnx_runtime(tmp_path / "one.onnx"), network, [(24, 20)])
    for name, sizes in (("any", SIZES), ("one", [(24, 20)])):
        quant_pre_process(str(tmp_path / f"{name}.onnx"), str(tmp_path / "prepared.onnx"))
        hold(in_onnx_runtime(tmp_path / "prepared.onnx", {"", "com.microsoft"}), network, sizes)


def export_by_dynamo(network, path, size, opset, dynamic):
    axes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        network,
        (torch.randn(2 if dynamic else 1, 3, *size),),
        path,
        dynamo=True,
        dynamic_shapes=(axes,) if dynamic else None,
        opset_version=opset,
        input_names=["images"],
        verbose=False,
    )
    return in_onnx_runtime(path)


def test_the_exporter_of_programs(tmp_path):
    layer = trained(ACmix(3, 16, stride=2))
    hold(export_by_dynamo(layer, tmp_path / "any.onnx", (24, 20), 18, True), layer)
    hold(export_by_dynamo(layer, tmp_path / "one.onnx", (24, 20), 18, False), layer, [(24, 20)])


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 21, 23])
@pytest.mark.parametrize("make", [layers, small])
@pytest.mark.parametrize("change", [as_it_is, acmix.fuse])
def test_the_exporter_of_programs_on_networks(make, change, opset, tmp_path):
    network = change(make())
    hold(export_by_dynamo(network, tmp_path / "any.onnx", (40, 36), opset, True), network)
    hold(export_by_dynamo(network, tmp_path / "one.onnx", (40, 36), opset, False), network, [(40, 36)])
