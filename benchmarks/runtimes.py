"""Our networks in other runtimes: what works, how exact it is, how fast; writes benchmarks/results/runtimes-cpu.json.

Every runtime computes the small network, a detector and, one image of 224, ACmix-ResNet-50 beside ResNet-50.
"""

import importlib.metadata
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch

import acmix
from acmix.bench import machine
from acmix.bench.measure import time_interleaved
from examples import runtimes
from tests.export.runtimes import networks
from tests.export.runtimes.digits import train

SECONDS = 12.0
PACKAGES = (
    "onnxruntime",
    "openvino",
    "nncf",
    "executorch",
    "litert-torch",
    "ai-edge-litert",
    "coremltools",
    "ncnn",
    "pnnx",
)
LARGE = "acmix_resnet50", "resnet50"
SMALL = {"classifier": networks.classifier, "detector": partial(networks.detector, 16, 16, 32, 32)}


@dataclass
class Row:
    """What is tried, and what was found.

    Attributes:
        runtime: Its name.
        precision: Of its products.
        load: Of `examples.runtimes`.
        dynamic: Whether one file serves every size; it is then tried on others than it was made at.
        large: Whether ACmix-ResNet-50 is computed and timed.
        half: Whether networks are in float16.
        runs: Whether this machine can run what was made.
        differences: Network to the largest absolute difference to PyTorch; what failed to its message.
        times: Of both large networks.
    """

    runtime: str
    precision: str
    load: Callable[..., runtimes.Run]
    dynamic: bool = False
    large: bool = False
    half: bool = False
    runs: bool = True
    differences: dict[str, float | str | None] = field(default_factory=dict)
    accuracy: dict[str, float] | None = None
    times: dict[str, object] | None = None


def rows() -> list[Row]:
    """Everything that is measured."""
    every = {"dynamic": True}
    return [
        Row("TorchScript", "float32", runtimes.torchscript, dynamic=True, large=True),
        Row("AOTInductor", "float32", runtimes.aotinductor, large=True),
        Row("ONNX Runtime", "float32", runtimes.onnx_runtime, large=True),
        Row("ONNX Runtime", "float32", partial(runtimes.onnx_runtime, **every), dynamic=True),
        Row("ONNX Runtime", "float16", partial(runtimes.onnx_runtime, **every), dynamic=True, half=True),
        Row("ONNX Runtime", "int8", runtimes.onnx_runtime_int8),
        Row("OpenVINO, from ONNX", "float32", runtimes.openvino_from_onnx, large=True),
        Row("OpenVINO, from ONNX", "float32", partial(runtimes.openvino_from_onnx, **every), dynamic=True),
        Row("OpenVINO, from a program", "float32", runtimes.openvino_from_program, large=True),
        Row("OpenVINO, from a program", "float32", partial(runtimes.openvino_from_program, **every), dynamic=True),
        Row("OpenVINO, from the module", "float32", runtimes.openvino_from_module, large=True),
        Row("OpenVINO, from the module", "float32", partial(runtimes.openvino_from_module, **every), dynamic=True),
        Row("OpenVINO", "int8 (NNCF)", runtimes.openvino_int8),
        Row("ExecuTorch, XNNPACK", "float32", runtimes.executorch, large=True),
        Row("ExecuTorch, portable", "float32", partial(runtimes.executorch, xnnpack=False)),
        Row("LiteRT", "float32", runtimes.litert, large=True),
        Row("CoreML", "float32", runtimes.coreml, runs=False),
        Row("ncnn", "float32", runtimes.ncnn, large=True),
    ]


def measure(row: Row, folder: Path) -> None:
    """Fill a row. What fails is its result."""
    for name, make in SMALL.items():
        network, images = make()
        if row.half:
            network, images = network.half(), images.half()
        batches = [each.to(images) for each in networks.other_images(images)] if row.dynamic else [images]
        row.differences[name] = _difference(row, network, images, batches, _room(folder, name))
    if row.large:
        _measure_large(row, folder)


def _difference(row: Row, network: torch.nn.Module, images: torch.Tensor, batches: list, folder: Path) -> object:
    rounding = torch.finfo(images.dtype).eps
    try:
        run = row.load(network, images, folder)
        return networks.largest_difference(run, network, *batches, rounding=rounding) if row.runs else None
    # Each runtime has exceptions of its own.
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _measure_large(row: Row, folder: Path) -> None:
    images = torch.randn(1, 3, 224, 224)
    calls: dict[str, Callable[[], object]] = {}
    for name in LARGE:
        torch.manual_seed(0)
        network = _calibrated(acmix.create_model(name, zero_init_last=False), images)
        try:
            run = row.load(network, images, _room(folder, name))
            row.differences[name] = networks.largest_difference(run, network, images)
        except Exception as error:
            row.differences[name] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return
        calls[name] = partial(run, images)
    row.times = {name: asdict(timing) for name, timing in time_interleaved(calls, SECONDS).items()}


def _calibrated(network: torch.nn.Module, images: torch.Tensor) -> torch.nn.Module:
    """With running statistics of the images: arbitrary ones would let numbers grow from block to block."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
    return network.eval()


def _room(folder: Path, name: str) -> Path:
    room = folder / name
    room.mkdir()
    return room


def main() -> None:
    """Measure every row."""
    found, digits = rows(), train()
    for row in found:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            if row.precision.startswith("int8"):
                row.accuracy = digits.hold(row.load, Path(folder))
            else:
                measure(row, Path(folder))
        print(f"{time.perf_counter() - start:4.0f} s {row}", flush=True)  # noqa: T201
    results = [{key: value for key, value in vars(row).items() if key != "load"} for row in found]
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    content = {"machine": machine(), "packages": versions, "rows": results}
    Path(__file__).with_name("results").joinpath("runtimes-cpu.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
