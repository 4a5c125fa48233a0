"""A network as an ONNX file of standard operators, checked in ONNX Runtime before it is kept."""

import copy
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.onnx import OnnxExporterError, ONNXProgram
from torch.utils import _pytree as pytree

from acmix.errors import InputError
from acmix.export.stage2 import OPSET, ExportedACmix, translation
from acmix.storage import folder_beside
from acmix.surgery import FusedACmix, fuse

_INPUT = "images"
# An error against float64 may be this many times that of PyTorch in the same dtype, or this many roundings.
_FACTOR = 10


@dataclass(frozen=True)
class Check:
    """One run of the file in ONNX Runtime beside the network.

    Attributes:
        shape: Of the images, `(B, C, H, W)`.
        difference: Largest absolute difference of the outputs.
        error: Relative error of ONNX Runtime against the network in float64, Frobenius norm.
        own_error: The same of PyTorch.
    """

    shape: tuple[int, ...]
    difference: float
    error: float
    own_error: float


@dataclass(frozen=True)
class OnnxExport:
    """A file that was written, and its checks."""

    path: Path
    operators: int
    checks: tuple[Check, ...]

    @property
    def largest_difference(self) -> float:
        """Largest absolute difference of all checks."""
        return max(check.difference for check in self.checks)


class ExportError(RuntimeError):
    """A file was made, but does not compute what the network does; it is not kept."""


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

    Args:
        network: Takes one tensor `(B, C, H, W)` and returns tensors; not modified.
        path: The file; its folder must exist.
        input_size: `(C, H, W)` of an image.
        dynamic: Let the file take every batch, height and width; else one image of `input_size`.
        metadata: Stored in the file as JSON under the key "acmix": class names, preprocessing.

    Returns:
        Where it lies, how many operators it has and how exact it is.

    Raises:
        InputError: If an argument breaks its rule or PyTorch cannot export the network.
        ExportError: If ONNX Runtime computes something else.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    _check(network, path, input_size)
    fused = fuse(network)
    # The example has sizes of its own: equal numbers would become one.
    example = (2, *input_size) if dynamic else (1, *input_size)
    program = _export(_for_export(fused).eval(), torch.zeros(example, dtype=_dtype(network)), dynamic)
    if metadata is not None:
        program.model.metadata_props["acmix"] = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    with folder_beside(path) as folder:
        file = folder / path.name
        program.save(str(file))
        checks = _compare(file, network, _other_shapes(input_size, dynamic))
        file.replace(path)
    return OnnxExport(path, len(program.model.graph), checks)


def _check(network: nn.Module, path: Path, input_size: Sequence[int]) -> None:
    if len(input_size) != 3 or min(input_size) < 1:
        raise InputError(f"input_size must be three positive sizes (C, H, W), got {tuple(input_size)}")
    if not path.parent.is_dir():
        raise InputError(f"{path} cannot be written: {path.parent} is not a folder; make it first")
    if path.is_dir():
        raise InputError(f"path must be a file, got the folder {path}")
    if _dtype(network) not in (torch.float32, torch.float16):
        raise InputError(f"network must be float32 or float16 for ONNX, got {_dtype(network)}; use network.float()")


def _dtype(network: nn.Module) -> torch.dtype:
    return next((parameter.dtype for parameter in network.parameters()), torch.float32)


def _for_export(fused: nn.Module) -> nn.Module:
    if isinstance(fused, FusedACmix):
        return ExportedACmix(fused)
    for name, module in [*fused.named_modules()]:
        if isinstance(module, FusedACmix):
            fused.set_submodule(name, ExportedACmix(module))
    return fused


def _export(network: nn.Module, example: Tensor, dynamic: bool) -> ONNXProgram:
    shapes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},) if dynamic else None
    try:
        with _quiet():
            program = torch.onnx.export(
                network,
                (example.to(next(network.parameters()).device),),
                dynamo=True,
                dynamic_shapes=shapes,
                opset_version=OPSET,
                input_names=[_INPUT],
                verbose=False,
                custom_translation_table={torch.ops.acmix_export.mix.default: translation()},
            )
    except (OnnxExporterError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        advice = "; dynamic=False may do" if dynamic else ""
        raise InputError(f"PyTorch cannot export {type(network).__name__}: {reason}{advice}") from error
    if program is None:
        raise AssertionError("torch.onnx.export with dynamo=True returns a program")
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


def _other_shapes(input_size: Sequence[int], dynamic: bool) -> list[tuple[int, ...]]:
    channels, height, width = input_size
    if not dynamic:
        return [(1, channels, height, width)] * 3
    sizes = ((1, height + 1, width), (3, height + 7, width + 13), (2, (2 * height + 2) // 3, (3 * width + 3) // 4))
    return [(batch, channels, *size) for batch, *size in sizes]


def _compare(file: Path, network: nn.Module, shapes: Sequence[tuple[int, ...]]) -> tuple[Check, ...]:
    """Run the file beside the network on random images.

    Raises:
        ExportError: If an output is less exact than rounding explains.
    """
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    network, dtype = copy.deepcopy(network).eval().cpu(), _dtype(network)
    exact_network = copy.deepcopy(network).double()
    checks = []
    for seed, shape in enumerate(shapes):
        images = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
        with torch.no_grad():
            own, exact = _outputs(network(images)), _outputs(exact_network(images.double()))
        runtime = [torch.from_numpy(output) for output in session.run(None, {_INPUT: images.numpy()})]
        if [output.shape for output in runtime] != [output.shape for output in own]:
            found, expected = ([tuple(output.shape) for output in outputs] for outputs in (runtime, own))
            raise ExportError(f"for images {shape} ONNX Runtime gives the shapes {found}, PyTorch {expected}")
        found, expected, exact = (
            torch.cat([output.double().flatten() for output in outputs]) for outputs in (runtime, own, exact)
        )
        error, own_error = (((values - exact).norm() / exact.norm()).item() for values in (found, expected))
        difference = (found - expected).abs().max().item()
        checks.append(Check(shape, difference, error, own_error))
        if not error <= _FACTOR * max(own_error, torch.finfo(dtype).eps):
            raise ExportError(
                f"for images {shape} ONNX Runtime differs from PyTorch by up to {difference:.1e}: relative error "
                f"{error:.1e} against float64, PyTorch's own {own_error:.1e}; no file was kept"
            )
    return tuple(checks)


def _outputs(outputs: Any) -> list[Tensor]:
    return [output for output in pytree.tree_leaves(outputs) if isinstance(output, Tensor)]
