"""A network as PyTorch's own exported program, and compiled ahead of time."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from acmix.errors import InputError
from acmix.export.checking import compare, run_module
from acmix.export.prepared import prepare
from acmix.export.sizes import check_input_size, example_images, export_with_sizes
from acmix.storage import check_file, folder_beside
from acmix.surgery import fuse


def to_program(network: nn.Module, *, input_size: Sequence[int], dynamic: bool = True) -> ExportedProgram:
    """Export a network for inference with `torch.export`, batch norms folded; standard operators alone.

    `torch.export.save` and `load` write and read it, `program.module()` runs it, without acmix. PyTorch reasons about
    every size it may take, which takes it some 20 seconds a network on two cores; `dynamic=False` takes a few.

    Args:
        network: Takes one tensor `(B, C, H, W)`; not modified.
        input_size: `(C, H, W)` of an image.
        dynamic: Let the program take every batch, height and width of at least 2 cells; else one image of `input_size`.

    Returns:
        The program. It was run beside the network on three batches, of other sizes if dynamic, as `to_onnx` does.

    Raises:
        InputError: If `input_size` breaks its rule, PyTorch cannot export the network or its outputs are not finite.
        ExportError: If the program computes something else than the network.
    """
    check_input_size(input_size)
    program, step = _program(network, input_size, dynamic)
    _compare(program.module(), "the program", network, input_size, dynamic, step)
    return program


def _program(network: nn.Module, input_size: Sequence[int], dynamic: bool) -> tuple[ExportedProgram, int]:
    fused, example = prepare(fuse(network)), example_images(network, input_size, dynamic)
    return export_with_sizes(
        lambda shapes: torch.export.export(fused, (example,), dynamic_shapes=shapes), network, input_size, dynamic
    )


def _compare(
    module: Callable[[Tensor], Any], name: str, network: nn.Module, input_size: Sequence[int], dynamic: bool, step: int
) -> None:
    device = example_images(network, input_size, dynamic).device
    compare(run_module(module), name, network, input_size, dynamic, step=step, device=device)


def to_package(network: nn.Module, path: str | Path, *, input_size: Sequence[int], dynamic: bool = True) -> Path:
    """Compile a network ahead of time with AOTInductor into a package that runs without Python.

    `torch._inductor.aoti_load_package(path)` loads it, and so does LibTorch. Needs a C++ compiler.

    Args:
        network: Takes one tensor `(B, C, H, W)`; not modified.
        path: The file, ending in .pt2; its folder must exist.
        input_size: `(C, H, W)` of an image.
        dynamic: Let the package take every batch, height and width of at least 2 cells.

    Returns:
        The file.

    Raises:
        InputError: If an argument breaks its rule, there is no compiler, PyTorch cannot export the network or its
            outputs are not finite.
        ExportError: If the package computes something else than the network; an earlier file stays.
    """
    path = Path(path)
    if path.suffix != ".pt2":
        raise InputError(f"path must end in .pt2, got {path}")
    check_file("path", path)
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise InputError(f"AOTInductor needs a C++ compiler, {compiler} is not there; install g++, or use to_program")
    check_input_size(input_size)
    program, step = _program(network, input_size, dynamic)
    with folder_beside(path) as folder:
        file = torch._inductor.aoti_compile_and_package(program, package_path=str(folder / path.name))
        package = torch._inductor.aoti_load_package(file)
        _compare(package, "the package", network, input_size, dynamic, step)
        Path(file).replace(path)
    return path
