"""Sizes of images that an exported network takes: what exporters are told of them, and which are tried."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.onnx import OnnxExporterError

from acmix.errors import InputError, in_one_line

_Exported = TypeVar("_Exported")
# Networks take sizes that their strides divide, most of them any size.
_STEPS = (1, 2, 4, 8, 16, 32, 64, 128)
# What exporters are told where they find no proof for sizes of any kind.
_USUAL_STEP = 32


def example_images(network: nn.Module, input_size: Sequence[int], dynamic: bool) -> Tensor:
    """What an exporter is shown, in the network's dtype and where it lies; of several, as 1 is a size of its own."""
    own = next(network.parameters(), torch.zeros(()))
    return torch.zeros(2 if dynamic else 1, *input_size, dtype=own.dtype, device=own.device)


def export_with_sizes(
    export: Callable[[Any], _Exported], network: nn.Module, input_size: Sequence[int], dynamic: bool
) -> tuple[_Exported, int]:
    """Export for every size or, where PyTorch cannot, for multiples of 32.

    Args:
        export: Is given the `dynamic_shapes` of PyTorch's exporters.
        network: What is exported, for messages.
        input_size: `(C, H, W)` of an image.
        dynamic: Whether every batch, height and width is to be taken.

    Returns:
        What was exported, and what heights and widths are multiples of.

    Raises:
        InputError: If PyTorch cannot export the network.
    """
    steps = [1]
    if dynamic and not any(size % _USUAL_STEP for size in input_size[1:]):
        steps.append(_USUAL_STEP)
    failures: list[Exception] = []
    for step in steps:
        try:
            return export(_dynamic_shapes(step) if dynamic else None), step
        except (OnnxExporterError, RuntimeError, ValueError) as error:
            failures.append(error)
    reason = in_one_line(failures[0].__cause__ or failures[0], 300)
    advice = "; dynamic=False may do" if dynamic else ""
    raise InputError(f"PyTorch cannot export {type(network).__name__}: {reason}{advice}") from failures[0]


def _dynamic_shapes(step: int) -> Any:
    if step == 1:
        return ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    return ({0: Dim("batch"), 2: step * Dim("rows"), 3: step * Dim("columns")},)


def shapes_to_try(
    input_size: Sequence[int], dynamic: bool, step: int, least: int = 1
) -> Iterator[list[tuple[int, ...]]]:
    """For each of three checks shapes of images; the first that the network takes is meant.

    Args:
        input_size: `(C, H, W)` of an image.
        dynamic: Whether every batch, height and width is to be taken.
        step: What heights and widths are multiples of.
        least: What they are at least.
    """
    channels, height, width = input_size
    if not dynamic:
        for _ in range(3):
            yield [(1, channels, height, width)]
        return
    sizes = ((1, height + 1, width), (3, height + 7, width + 13), (2, (2 * height + 2) // 3, (3 * width + 3) // 4))
    for batch, *size in sizes:
        multiples = [[-(-max(cells, least) // step) * step for cells in size] for step in _STEPS[_STEPS.index(step) :]]
        yield [(batch, channels, *size) for size in [*multiples, [height, width]]]
