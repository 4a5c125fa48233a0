"""ACmix-ResNet-50 beside ResNet-50, one image, in ONNX Runtime and PyTorch; writes benchmarks/results/onnx-cpu.json."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import onnxruntime
import torch

import acmix
from acmix.bench import machine
from acmix.bench.measure import time_interleaved
from acmix.export import to_onnx

SIZE = (3, 224, 224)
SECONDS = 90.0


def main() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, *SIZE)
    calls: dict[str, Callable[[], object]] = {}
    exports = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("acmix_resnet50", "resnet50"):
            network = acmix.create_model(name, zero_init_last=False).eval()
            fused = acmix.fuse(network)
            for label, dynamic in (("every size", True), ("one size", False)):
                written = to_onnx(network, Path(folder, f"{name}.onnx"), input_size=SIZE, dynamic=dynamic)
                exports[f"{name}, {label}"] = asdict(written) | {"path": None}
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = torch.get_num_threads()
                # Threads wait busily between a network's nodes, but not while another candidate is measured.
                options.add_session_config_entry("session.force_spinning_stop", "1")
                session = onnxruntime.InferenceSession(written.path, options)
                calls[f"{name}, ONNX Runtime, {label}"] = lambda session=session: session.run(
                    None, {"images": image.numpy()}
                )
            for label, module in (("PyTorch", network), ("PyTorch, fused", fused)):
                calls[f"{name}, {label}"] = lambda module=module: module(image)
        with torch.inference_mode():
            times = time_interleaved(calls, SECONDS)
    base = times["resnet50, ONNX Runtime, every size"].fastest
    for name, timing in times.items():
        print(f"{name}: {1e3 * timing.fastest:.1f} ms, median {1e3 * timing.median:.1f}, {timing.fastest / base:.2f}")  # noqa: T201
    content = {
        "machine": machine() | {"onnxruntime": onnxruntime.__version__},
        "exports": exports,
        "times": {name: asdict(timing) for name, timing in times.items()},
    }
    Path(__file__).with_name("results").joinpath("onnx-cpu.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
