"""A network as PyTorch's own exported program, and compiled ahead of time."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from acmix.errors import InputError, check_input_size
from acmix.export.checking import compare, run_module
from acmix.export.prepared import prepare
from acmix.export.sizes import example_images, export_with_sizes
from acmix.storage import check_file, folder_beside
from acmix.surgery import fuse


def to_program(network: nn.Module, *, input_size: Sequence[int], dynamic: bool = True) -> ExportedProgram:
    """Export a network for inference with `torch.export`, batch norms folded; standard operators alone.

    `torch.export.save` and `load` write and read it, `program.module()` runs it, without acmix. PyTorch reasons about
    every size it may take, which takes it some 20 seconds a network on two cores; `dynamic=False` takes a few.

    Args:
        network: Takes one tensor `(B, C, H, W)`; not modified.
        input_size: `(C, H, W)` of an image.
        dynamic: Let the program take every batch of at least 2 images, and every height and width of which no map has a
            single row or column, which PyTorch exports as a case of its own; else one image of `input_size`.

    Returns:
        The program. It was run beside the network on three batches, of other sizes if dynamic, as `to_onnx` does.

    Raises:
        InputError: If `input_size` breaks its rule, PyTorch cannot export the network or its outputs are not finite.
        ExportError: If the program computes something else than the network.
    """
    check_input_size(input_size)
    program, sizes = _program(network, input_size, dynamic)
    _compare(program.module(), "the program", network, input_size, dynamic, sizes)
    return program


class _Sizes(NamedTuple):
    """Heights and widths that a program takes: multiples of step, at least `least`."""

    step: int
    least: int


def _program(network: nn.Module, input_size: Sequence[int], dynamic: bool) -> tuple[ExportedProgram, _Sizes]:
    fused, example = prepare(fuse(network)), example_images(network, input_size, dynamic)
    program, step = export_with_sizes(
        lambda shapes: torch.export.export(fused, (example,), dynamic_shapes=shapes), network, input_size, dynamic
    )
    ranges = program.range_constraints.values()
    if most := [int(each.upper) for each in ranges if each.upper.is_Integer]:
        raise InputError(
            f"input_size {tuple(input_size)} leaves {type(network).__name__} maps of a single row or column, which "
            f"PyTorch exports as a case of its own, for sizes up to {min(most)} alone; give a larger one, or "
            "dynamic=False (--fixed-size)"
        )
    return program, _Sizes(step, max((int(each.lower) for each in ranges), default=1))


def _compare(
    module: Callable[[Tensor], Any],
    name: str,
    network: nn.Module,
    input_size: Sequence[int],
    dynamic: bool,
    sizes: _Sizes,
) -> None:
    device = example_images(network, input_size, dynamic).device
    options: dict[str, Any] = {"step": sizes.step, "least": sizes.least, "device": device}
    compare(run_module(module), name, network, input_size, dynamic, **options)


def to_package(network: nn.Module, path: str | Path, *, input_size: Sequence[int], dynamic: bool = True) -> Path:
    """Compile a network ahead of time with AOTInductor into a package that runs without Python.

    `torch._inductor.aoti_load_package(path)` loads it, and so does LibTorch. Needs a C++ compiler.

    Args:
        network: Takes one tensor `(B, C, H, W)`; not modified.
        path: The file, ending in .pt2; its folder must exist.
        input_size: `(C, H, W)` of an image.
        dynamic: As of `to_program`.

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
    program, sizes = _program(network, input_size, dynamic)
    with folder_beside(path) as folder:
        file = torch._inductor.aoti_compile_and_package(program, package_path=str(folder / path.name))
        package = torch._inductor.aoti_load_package(file)
        _compare(package, "the package", network, input_size, dynamic, sizes)
        Path(file).replace(path)
    return path
