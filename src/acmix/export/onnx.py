"""A network as an ONNX file of standard operators, checked in ONNX Runtime before it is kept."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn
from torch.onnx import ONNXProgram

from acmix.checkpoints import onnx_digest
from acmix.errors import InputError, check_input_size
from acmix.export.checking import Check, compare
from acmix.export.graph import translation
from acmix.export.pooling import let_pool_at_every_size
from acmix.export.sizes import example_images, export_with_sizes
from acmix.export.stage2 import OPSET, ExportedACmix
from acmix.nn import ACmix, OperatorLayer
from acmix.storage import check_file, folder_beside
from acmix.surgery import FusedACmix, fuse

_INPUT = "images"


@dataclass(frozen=True)
class OnnxExport:
    """A file that was written, and its checks.

    Attributes:
        path: Where it lies.
        operators: Nodes of its graph.
        step: Heights and widths that it takes are multiples of this: 1, or 32 where PyTorch exports no other.
        checks: The sizes of images that were tried, and how exact it is there.
    """

    path: Path
    operators: int
    step: int
    checks: tuple[Check, ...]

    @property
    def largest_difference(self) -> float:
        """Largest absolute difference of all checks."""
        return max(check.difference for check in self.checks)


def to_onnx(
    network: nn.Module,
    path: str | Path,
    *,
    input_size: Sequence[int],
    dynamic: bool = True,
    metadata: Mapping[str, Any] | None = None,
) -> OnnxExport:
    """Write a network as ONNX for inference: standard operators of opset 18 alone, batch norms folded.

    The file takes "images", `(B, C, H, W)` in the network's dtype, float32 or float16. It is run in ONNX Runtime on
    three other batches and, if dynamic, sizes, and kept if it is as exact as PyTorch; else an earlier file stays.
    Where the network takes no other sizes than multiples of its stride, or `input_size` alone, it is tried on those:
    `OnnxExport.checks` says which.

    Args:
        network: Takes one tensor `(B, C, H, W)` and returns tensors; not modified.
        path: The file; its folder must exist.
        input_size: `(C, H, W)` of an image.
        dynamic: Let the file take every batch, height and width; else one image of `input_size`.
        metadata: Stored in the file as JSON under the key "acmix": class names, preprocessing; beside it, under
            "acmix.sha256", a digest of the file with 64 zeros in its place.

    Returns:
        Where it lies, how many operators it has and how exact it is.

    Raises:
        InputError: If an argument breaks its rule, PyTorch cannot export the network, or its outputs are not finite.
        ExportError: If ONNX Runtime computes something else, or fails.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    _check(network, path, input_size)
    fused = fuse(network)
    exported, example = _for_export(fused), example_images(network, input_size, dynamic)
    program, step = export_with_sizes(lambda shapes: _export(exported, example, shapes), network, input_size, dynamic)
    if metadata is not None:
        program.model.metadata_props["acmix"] = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
        program.model.metadata_props[onnx_digest.KEY] = onnx_digest.EMPTY
    with folder_beside(path) as folder:
        file = folder / path.name
        program.save(str(file))
        checks = compare(_in_onnx_runtime(file), "ONNX Runtime", network, input_size, dynamic, step=step, device="cpu")
        if metadata is not None:
            onnx_digest.write_digest(file)
        file.replace(path)
    return OnnxExport(path, len(program.model.graph), step, checks)


def _check(network: nn.Module, path: Path, input_size: Sequence[int]) -> None:
    check_input_size(input_size)
    check_file("path", path)
    dtype = example_images(network, input_size, False).dtype
    if dtype not in (torch.float32, torch.float16):
        raise InputError(f"network must be float32 or float16 for ONNX, got {dtype}; use network.float()")


def _for_export(fused: nn.Module) -> nn.Module:
    """Let every operator that computes as its type does be `ExportedACmix` within: hooks on it and its names stay."""
    for module in [*fused.modules()]:
        plain = type(module).forward is OperatorLayer.forward and "forward" not in vars(module)
        if isinstance(module, ACmix | FusedACmix) and plain:
            exported = ExportedACmix(module)
            module.add_module("exported", exported)
            vars(module)["forward"] = exported.forward
    let_pool_at_every_size(fused)
    return fused.eval()


def _export(network: nn.Module, example: Tensor, dynamic_shapes: Any) -> ONNXProgram:
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=dynamic_shapes,
            opset_version=OPSET,
            input_names=[_INPUT],
            verbose=False,
            custom_translation_table={torch.ops.acmix_export.mix.default: translation()},
        )
    if program is None:
        raise AssertionError("torch.onnx.export with dynamo=True returns a program")
    sizes = zip(program.model.graph.inputs[0].shape or (), ("batch", "channels", "height", "width"), strict=True)
    # What people see in the file: PyTorch numbers its symbols.
    program.rename_axes({str(size): name for size, name in sizes if str(size).isidentifier()})
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the optimiser's notes on what it does not fold."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _in_onnx_runtime(file: Path) -> Callable[[Tensor], list[Tensor]]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in session.run(None, {_INPUT: images.numpy()})]

    return run
