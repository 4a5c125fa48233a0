"""How far the learned convolution kernels moved from the shifts that they start as."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from acmix.explain.layers import operators


@dataclass(frozen=True)
class KernelChange:
    """How far one layer's kernels are from shifts.

    Attributes:
        layer: Name of the layer.
        distance: ||W - S|| / ||S|| with S the shifts, over all kernels; 0 at the start.
        shift_energy: Share of the squared weights that lies at the kernels' own positions, 0..1; 1 at the start.
        mean: Kernels averaged over channels, `(k^2, k, k)`; kernel p starts as the layer's `shift_size` at position p
            and 0 elsewhere.
    """

    layer: str
    distance: float
    shift_energy: float
    mean: Tensor


def kernel_changes(network: nn.Module) -> list[KernelChange]:
    """How far the grouped convolution of every ACmix layer moved from shifts (arXiv 2111.14556).

    Returns:
        One change a layer, in the order of the network.

    Raises:
        InputError: If the network has no ACmix layer.
    """
    changes = []
    for name, layer in operators(network).items():
        kernels = layer.kernels.detach().double().cpu()
        size = kernels.shape[-1]
        shifts = layer.shift_size * torch.eye(size**2, dtype=kernels.dtype).unflatten(1, (size, size))
        distance = float((kernels - shifts).norm() / shifts.expand_as(kernels).norm())
        energy = float((kernels * (shifts > 0)).square().sum() / kernels.square().sum())
        changes.append(KernelChange(name, distance, energy, kernels.mean(0)))
    return changes
