"""How much of a layer's output comes from either path, on real inputs."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from acmix.errors import InputError
from acmix.explain.layers import layer_arguments, operators


@dataclass(frozen=True)
class PathShare:
    """What the two paths of one layer add to its output, on given images.

    Attributes:
        layer: Name of the layer.
        attention: Root of the mean square of alpha att over images, channels and cells.
        convolution: The same of beta conv.
    """

    layer: str
    attention: float
    convolution: float

    @property
    def share(self) -> float:
        """The attention path's share of the two, 0..1; 0.5 where both are silent."""
        total = self.attention + self.convolution
        return self.attention / total if total else 0.5


def path_shares(network: nn.Module, batches: Iterable[Tensor]) -> list[PathShare]:
    """Measure what each path adds to every ACmix layer's output, ||alpha att|| and ||beta conv|| (eq. 14).

    The learned rates alone do not say it: the paths have values of different sizes.

    Args:
        network: A network with ACmix layers; it is run without gradients, in the mode it is in.
        batches: Images `(B, C, H, W)`, one batch or many; a batch may come with labels, as from a loader.

    Returns:
        One share a layer, in the order of the network.

    Raises:
        InputError: If the network has no ACmix layer, or there is no batch.
    """
    layers = operators(network)
    squares = {name: torch.zeros(2, dtype=torch.float64) for name in layers}
    counts = dict.fromkeys(layers, 0)
    for batch in batches:
        images = batch[0] if isinstance(batch, (tuple, list)) else batch
        for name, arguments in layer_arguments(network, images).items():
            with torch.no_grad():
                outputs = layers[name].paths(*arguments)
            for path, output in enumerate(outputs):
                squares[name][path] += output.double().square().sum().cpu()
            counts[name] += output.numel()
    if not all(counts.values()):
        raise InputError("batches must hold at least one image, got none; the paths are measured on images")
    means = {name: (squares[name] / counts[name]).sqrt().tolist() for name in layers}
    return [PathShare(name, attention, convolution) for name, (attention, convolution) in means.items()]
