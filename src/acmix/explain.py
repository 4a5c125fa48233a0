"""Look inside: what a pixel attends to, and how much each layer takes from either path. Functions that return data."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from acmix.nn import ACmix
from acmix.ops.geometry import position_map, reflect, window_offsets


@dataclass(frozen=True)
class Rates:
    """The two learned rates of one layer: of its attention path (alpha) and its convolution path (beta)."""

    layer: str
    attention: float
    convolution: float


def rates(network: nn.Module) -> list[Rates]:
    """The learned rates of every ACmix layer, in the order of the network."""
    return [
        Rates(name, module.rate_attention.item(), module.rate_convolution.item())
        for name, module in network.named_modules()
        if isinstance(module, ACmix)
    ]


def layer_inputs(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The input map of every ACmix layer for a batch of images, by layer name.

    Args:
        network: A network with ACmix layers; it is run once, without gradients, in the mode it is in.
        images: Shape `(B, C, H, W)`.
    """
    inputs: dict[str, Tensor] = {}
    names: dict[nn.Module, str] = {
        module: name for name, module in network.named_modules() if isinstance(module, ACmix)
    }

    def keep(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs[names[layer]] = arguments[0].detach()

    hooks = [layer.register_forward_pre_hook(keep) for layer in names]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return inputs


def attention_map(layer: ACmix, features: Tensor, cell: tuple[int, int]) -> Tensor:
    """Attention weights of one cell, on the cells they belong to.

    softmax(D^-1/2 q_i . (k_j + pe_i - pe_j)) over the window of cell i; reflected window cells are added to the cells
    they mirror, so that each map sums to 1 (ACmix, arXiv 2111.14556, eq. 12).

    Args:
        layer: The layer.
        features: Its input, `(B, C_in, H, W)`.
        cell: Row and column of the query in the input map, a multiple of the stride each.

    Returns:
        Shape `(B, N, H, W)`.

    Raises:
        ValueError: If the cell lies outside the map or holds no query.
    """
    height, width = features.shape[-2:]
    for name, index, size in (("row", cell[0], height), ("column", cell[1], width)):
        if not 0 <= index < size or index % layer.stride:
            raise ValueError(
                f"cell's {name} must be a multiple of the stride {layer.stride} in [0, {size}), got {index}"
            )
    with torch.no_grad():
        query, key, _ = layer.qkv(features).unflatten(1, (3 * layer.heads, -1)).chunk(3, 1)
        key = key - position_map(layer.position_weight, height, width).to(key.dtype)
        offsets = window_offsets(layer.kernel_att, layer.dilation, features.device)
        rows, columns = reflect(cell[0] + offsets, height), reflect(cell[1] + offsets, width)
        window = key[..., rows[:, None], columns]
        logits = torch.einsum("bnd,bnduv->bnuv", query[..., cell[0], cell[1]], window) * query.shape[2] ** -0.5
        weights = logits.flatten(-2).softmax(-1)
        target = (rows[:, None] * width + columns).flatten().expand_as(weights)
        flat = weights.new_zeros(*weights.shape[:2], height * width)
        return flat.scatter_add(-1, target, weights).unflatten(-1, (height, width))
