"""Holding what was exported against the network that it was made of, on images of several sizes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from acmix.errors import InputError, in_one_line
from acmix.export.sizes import shapes_to_try
from acmix.surgery.identity import copy_network

# An error against float64 may be this many times that of PyTorch in the same dtype, or this many roundings.
_FACTOR = 10


@dataclass(frozen=True)
class Check:
    """One run of what was exported beside the network.

    Attributes:
        shape: Of the images, `(B, C, H, W)`.
        difference: Largest absolute difference of the outputs.
        error: Relative error of what was exported against the network in float64, Frobenius norm; of several outputs
            that of the worst.
        own_error: The same of PyTorch, of this output or of all together, whichever is larger.
    """

    shape: tuple[int, ...]
    difference: float
    error: float
    own_error: float


class ExportError(RuntimeError):
    """Something was made, but does not compute what the network does; it is not kept."""


def compare(
    run: Callable[[Tensor], Sequence[Tensor]],
    name: str,
    network: nn.Module,
    input_size: Sequence[int],
    dynamic: bool,
    *,
    step: int,
    device: torch.device | str,
    least: int = 1,
) -> tuple[Check, ...]:
    """Run what was exported beside the network on three batches of random images.

    If dynamic, of other sizes: as they come, or multiples of 2, 4, .. 128 where the network takes no other.

    Args:
        run: Computes the outputs for images.
        name: Of what runs there, for messages.
        network: Not modified.
        input_size: `(C, H, W)` of an image.
        dynamic: Whether every batch, height and width is to be taken.
        step: What heights and widths are multiples of.
        device: Where it runs; the network, too.
        least: What heights and widths are at least.

    Raises:
        InputError: If the network does not take images of `input_size`, returns no tensors or none in float64, or its
            outputs are not finite.
        ExportError: If an output is less exact than rounding explains.
    """
    network = copy_network(network).eval().to(device)
    exact_network = copy_network(network).double()
    checks = []
    for seed, shapes in enumerate(shapes_to_try(input_size, dynamic, step, least)):
        images, own = _outputs_of_first(network, shapes, seed)
        with torch.no_grad():
            exact = _exact(exact_network, images, name)
            try:
                found = [*run(images)]
            # Each runtime has exceptions of its own.
            except Exception as error:
                reason = in_one_line(error, 300)
                raise ExportError(f"for images {tuple(images.shape)} {name} fails: {reason}") from error
        checks.append(_compare(name, images, found, own, exact))
    return tuple(checks)


def run_module(module: Callable[[Tensor], Any]) -> Callable[[Tensor], list[Tensor]]:
    """What `compare` runs, of a module that is called with images."""

    def run(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return _tensors(module(images))

    return run


def _exact(network: nn.Module, images: Tensor, name: str) -> list[Tensor]:
    """Outputs in float64."""
    try:
        return _tensors(network(images.double()))
    # Networks have exceptions of their own.
    except Exception as error:
        raise InputError(
            f"network must compute in float64, too, against which {name} is held, got: {in_one_line(error)}; make "
            "numbers in the dtype of its input"
        ) from error


def _outputs_of_first(network: nn.Module, shapes: Sequence[tuple[int, ...]], seed: int) -> tuple[Tensor, list[Tensor]]:
    """Images of the first shape that the network takes, and its outputs for them."""
    own = next(network.parameters(), torch.zeros(()))
    refusal: Exception = AssertionError("there is a shape to try")
    for shape in shapes:
        images = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(own)
        try:
            with torch.no_grad():
                outputs = _tensors(network(images))
        # What PyTorch refuses says nothing of what was exported; networks have exceptions of their own.
        except Exception as error:
            refusal = error
            continue
        if not outputs:
            raise InputError(f"network must return tensors, {type(network).__name__} returns none")
        if not all(output.isfinite().all() for output in outputs):
            where = _first_not_finite(network, images)
            raise InputError(
                f"network must have finite outputs, for random images {shape} it has others, first in {where}"
            )
        return images, outputs
    raise InputError(f"network must take images {shapes[-1]}, got: {in_one_line(refusal, 300)}") from refusal


def _first_not_finite(network: nn.Module, images: Tensor) -> str:
    """Where numbers that are not finite first come from, in words."""
    found: list[str] = []
    names = {module: name for name, module in network.named_modules()}

    def look(module: nn.Module, _: Any, outputs: Any) -> None:
        if not all(output.isfinite().all() for output in _tensors(outputs)):
            finite = all(tensor.isfinite().all() for tensor in (*module.parameters(), *module.buffers()))
            name = f"{names[module] or 'itself'} ({type(module).__name__})"
            found.append(name if finite else f"{name}, whose weights or statistics are not finite")

    handles = [module.register_forward_hook(look) for module in names]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[0]


def _compare(name: str, images: Tensor, found: list[Tensor], own: list[Tensor], exact: list[Tensor]) -> Check:
    shape = tuple(images.shape)
    if [output.shape for output in found] != [output.shape for output in own]:
        shapes = [[tuple(output.shape) for output in outputs] for outputs in (found, own)]
        raise ExportError(f"for images {shape} {name} gives the shapes {shapes[0]}, PyTorch {shapes[1]}")
    # One by one: small outputs would be lost beside large ones.
    errors, own_errors = (
        [_error(each, truth) for each, truth in zip(outputs, exact, strict=True)] for outputs in (found, own)
    )
    # Of few numbers one may be right by chance: an output may be as wrong as all together, too.
    together = _error(_joined(own), _joined(exact))
    allowed = [max(error, together, torch.finfo(images.dtype).eps) for error in own_errors]
    worst = max(range(len(errors)), key=lambda place: errors[place] / allowed[place])
    error, own_error = errors[worst], max(own_errors[worst], together)
    difference = (_joined(found) - _joined(own)).abs().max().item()
    if not error <= _FACTOR * allowed[worst]:
        raise ExportError(
            f"for images {shape} {name} differs from PyTorch by up to {difference:.1e}: relative error {error:.1e} "
            f"against float64, PyTorch's own {own_error:.1e}; no file was kept"
        )
    return Check(shape, difference, error, own_error)


def _error(values: Tensor, truth: Tensor) -> float:
    """Relative, Frobenius norm; infinite for what is not finite."""
    values, truth = values.double().cpu(), truth.double().cpu()
    # An output that is 0 throughout has no relative error.
    error = (values - truth).norm() / truth.norm().clamp(min=torch.finfo(truth.dtype).tiny)
    return error.nan_to_num(torch.inf, torch.inf).item()


def _joined(outputs: Sequence[Tensor]) -> Tensor:
    return torch.cat([output.double().cpu().flatten() for output in outputs])


def _tensors(outputs: Any) -> list[Tensor]:
    return [output for output in pytree.tree_leaves(outputs) if isinstance(output, Tensor)]
