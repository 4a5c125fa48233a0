"""A network in other runtimes, a few lines each: `pip install 'acmix[runtimes]'`; run, it shows ONNX Runtime's answer.

Every function takes a network in evaluation mode, images `(B, C, H, W)` that say what it is made for, and a folder for
files, and returns what computes its outputs for such images.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

import acmix

Run = Callable[[Tensor], Sequence[Tensor]]


def onnx_runtime(network: nn.Module, images: Tensor, folder: Path, dynamic: bool = False) -> Run:
    """ONNX Runtime; float16 for a network in half precision."""
    size = images.shape[1:]
    written = acmix.export.to_onnx(network, folder / "network.onnx", input_size=size, dynamic=dynamic)
    return _in_onnx_runtime(written.path)


def onnx_runtime_int8(network: nn.Module, images: Tensor, folder: Path) -> Run:
    """ONNX Runtime, static int8 by its own quantiser, calibrated with the images."""
    from onnxruntime import quantization

    acmix.export.to_onnx(network, folder / "float.onnx", input_size=images.shape[1:], dynamic=True)
    quantization.quant_pre_process(folder / "float.onnx", folder / "ready.onnx")
    feeds = iter([{"images": image.numpy()} for image in images.split(16)])
    reader = type("Reader", (quantization.CalibrationDataReader,), {"get_next": lambda _: next(feeds, None)})()
    # Not the softmax and the masked logits before it, of which 256 steps are too few.
    types = ["Conv", "Gemm", "MatMul"]
    file = folder / "int8.onnx"
    quantization.quantize_static(folder / "ready.onnx", file, reader, per_channel=True, op_types_to_quantize=types)
    return _in_onnx_runtime(file)


def _in_onnx_runtime(file: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Between runs its threads would go on asking for work for a while, and hold up what else computes.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(file, options)
    return lambda images: [torch.from_numpy(output) for output in session.run(None, {"images": images.numpy()})]


def openvino_from_onnx(network: nn.Module, images: Tensor, folder: Path, dynamic: bool = False) -> Run:
    """OpenVINO, from an ONNX file."""
    import openvino

    size = images.shape[1:]
    written = acmix.export.to_onnx(network, folder / "network.onnx", input_size=size, dynamic=dynamic)
    return _in_openvino(openvino.convert_model(written.path))


def openvino_from_program(network: nn.Module, images: Tensor, folder: Path, dynamic: bool = False) -> Run:  # noqa: ARG001
    """OpenVINO, from an exported program."""
    import openvino

    program = acmix.export.to_program(network, input_size=images.shape[1:], dynamic=dynamic)
    return _in_openvino(openvino.convert_model(program))


def openvino_from_module(network: nn.Module, images: Tensor, folder: Path, dynamic: bool = False) -> Run:  # noqa: ARG001
    """OpenVINO, from the module, which it traces."""
    import openvino

    model = openvino.convert_model(acmix.fuse(network), example_input=images)
    if not dynamic:
        model.reshape(list(images.shape))
    return _in_openvino(model)


def openvino_int8(network: nn.Module, images: Tensor, folder: Path) -> Run:
    """OpenVINO, int8 by NNCF, calibrated with the images."""
    import nncf
    import openvino

    written = acmix.export.to_onnx(network, folder / "network.onnx", input_size=images.shape[1:])
    model = openvino.convert_model(written.path)
    samples = nncf.Dataset([image.numpy() for image in images.split(1)])
    # As in a transformer the softmax stays as it is, and the masked logits before it, of which 256 steps are too few.
    kind = nncf.ModelType.TRANSFORMER
    return _in_openvino(nncf.quantize(model, samples, subset_size=len(images), model_type=kind))


def _in_openvino(model: object) -> Run:
    import openvino

    # Without the hint processors with bfloat16 compute in it.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.compile_model(model, "CPU", settings)
    return lambda images: [torch.from_numpy(output) for output in compiled(images.numpy()).values()]


def executorch(network: nn.Module, images: Tensor, folder: Path, xnnpack: bool = True) -> Run:
    """ExecuTorch, with XNNPACK's kernels where it has them, else with its portable ones."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime, Verification

    program = acmix.export.to_program(network, input_size=images.shape[1:], dynamic=False)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()] if xnnpack else [])
    file = folder / "network.pte"
    file.write_bytes(lowered.to_executorch().buffer)
    loaded = Runtime.get().load_program(file, verification=Verification.Minimal)
    method = loaded.load_method("forward")
    # A method does not keep its program.
    return lambda images, _=loaded: [output.clone() for output in method.execute([images])]


def litert(network: nn.Module, images: Tensor, folder: Path) -> Run:
    """LiteRT, formerly TensorFlow Lite: one image of one size."""
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter

    program = acmix.export.to_program(network, input_size=images.shape[1:], dynamic=False)
    file = folder / "network.tflite"
    litert_torch.convert(program.module(), (images,)).export(str(file))
    interpreter = Interpreter(str(file), num_threads=torch.get_num_threads())
    interpreter.allocate_tensors()
    # In the order of the network's outputs.
    run = interpreter.get_signature_runner()

    def call(images: Tensor) -> list[Tensor]:
        outputs = run(**{next(iter(run.get_input_details())): images.numpy()})
        return [torch.from_numpy(outputs[f"output_{number}"]) for number in range(len(outputs))]

    return call


def coreml(network: nn.Module, images: Tensor, folder: Path) -> Run:
    """CoreML: conversion works anywhere, the result runs on macOS alone."""
    import coremltools

    program = acmix.export.to_program(network, input_size=images.shape[1:], dynamic=False)
    precision = coremltools.precision.FLOAT32
    model = coremltools.convert(
        program.run_decompositions({}),
        minimum_deployment_target=coremltools.target.iOS17,
        compute_precision=precision,
        skip_model_load=True,
    )
    model.save(str(folder / "network.mlpackage"))
    names = [output.name for output in model.get_spec().description.output]
    (image,) = (value.name for value in model.get_spec().description.input)

    def call(images: Tensor) -> list[Tensor]:
        loaded = coremltools.models.MLModel(str(folder / "network.mlpackage"))
        outputs = loaded.predict({image: images.numpy()})
        return [torch.from_numpy(outputs[name]) for name in names]

    return call


def ncnn(network: nn.Module, images: Tensor, folder: Path) -> Run:
    """ncnn, through pnnx: one image of one size."""
    import ncnn
    import numpy as np
    import pnnx

    with acmix.export.without_gathers(), torch.no_grad():
        traced = torch.jit.trace(acmix.fuse(network), images, check_trace=False)
    traced.save(folder / "network.pt")
    pnnx.convert(str(folder / "network.pt"), [images], fp16=False)
    net = ncnn.Net()
    net.opt.num_threads = torch.get_num_threads()
    # Its own default is float16.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.load_param(str(folder / "network.ncnn.param"))
    net.load_model(str(folder / "network.ncnn.bin"))
    names = net.output_names()

    def call(images: Tensor) -> list[Tensor]:
        extractor = net.create_extractor()
        extractor.input(net.input_names()[0], ncnn.Mat(images[0].numpy()))
        return [torch.from_numpy(np.array(extractor.extract(name)[1]))[None] for name in names]

    return call


def torchscript(network: nn.Module, images: Tensor, folder: Path) -> Run:
    """TorchScript: every size, in Python or LibTorch."""
    with torch.no_grad():
        traced = torch.jit.trace(acmix.fuse(network), images, check_trace=False)
    torch.jit.freeze(traced.eval()).save(folder / "network.pt")
    return _run(torch.jit.load(folder / "network.pt"))


def aotinductor(network: nn.Module, images: Tensor, folder: Path, dynamic: bool = False) -> Run:
    """AOTInductor: compiled by the C++ compiler of this machine."""
    package = acmix.export.to_package(network, folder / "network.pt2", input_size=images.shape[1:], dynamic=dynamic)
    return _run(torch._inductor.aoti_load_package(str(package)))


def _run(module: Callable[[Tensor], Tensor | Sequence[Tensor]]) -> Run:
    def call(images: Tensor) -> Sequence[Tensor]:
        with torch.no_grad():
            outputs = module(images)
        return [outputs] if isinstance(outputs, Tensor) else outputs

    return call


if __name__ == "__main__":
    network, images = acmix.create_model("acmix_resnet14_small", num_classes=3).eval(), torch.rand(1, 3, 64, 64)
    with TemporaryDirectory() as folder, torch.no_grad():
        (found,) = onnx_runtime(network, images, Path(folder))(images)
        print(f"largest difference to PyTorch: {(found - network(images)).abs().max():.0e}")
