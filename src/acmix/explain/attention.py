"""What a pixel attends to."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from acmix.explain.layers import layer_arguments, operators
from acmix.explain.regions import cell_at, cell_span, spread
from acmix.nn import ACmix
from acmix.paths import TwoPaths


@dataclass(frozen=True)
class PixelAttention:
    """What the query at one pixel attends to in one layer.

    Attributes:
        layer: Name of the layer.
        pixel: Row and column of the pixel in the network's input.
        size: Height and width of that input.
        cell: Row and column, in the layer's input map, of the query that the pixel belongs to.
        stride: Of the layer: only every stride-th cell holds a query.
        weights: Attention of the query on the cells of that map, `(B, N, H_l, W_l)`, summing to 1 each; to
            less where a Swin's window reaches beyond the map and where a PVT has a class token.
        shown: What the weights are, in words.
    """

    layer: str
    pixel: tuple[int, int]
    size: tuple[int, int]
    cell: tuple[int, int]
    stride: int
    weights: Tensor
    shown: str = TwoPaths.shown

    @property
    def region(self) -> tuple[float, float, float, float]:
        """The pixels that the query's cell stands for: top, bottom, left and right border."""
        cells = self.weights.shape[-2:]
        top, bottom = cell_span(self.cell[0], self.size[0], cells[0])
        return top, bottom, *cell_span(self.cell[1], self.size[1], cells[1])

    @property
    def pixel_weights(self) -> Tensor:
        """The weights on pixels of the network's input, `(B, N, H, W)`, summing to 1 each."""
        return spread(self.weights, *self.size)


def pixel_attention(
    network: nn.Module, images: Tensor, pixel: tuple[int, int], layers: list[str] | None = None
) -> list[PixelAttention]:
    """What one pixel attends to, layer by layer, in every head.

    The pixel is taken to the cell that it lies in (see `acmix.explain.regions`) and, where the layer strides, to the
    query at or before it. The weights are those of `attention_map`; of a Swin those within the cell's shifted window,
    of a PVT those of reduced keys, each spread over the cells that it is made of, of a SAN shares of the sizes of its
    weights, which have any sign.

    Args:
        network: A network with ACmix layers; it is run once, without gradients, in the mode it is in.
        images: Shape `(B, C, H, W)`.
        pixel: Row and column in the images.
        layers: Names of layers, all by default.

    Raises:
        InputError: If the network has no ACmix layer.
        ValueError: If the pixel lies outside of the images.
        KeyError: If a layer has another name.
    """
    named = operators(network)
    inputs = layer_arguments(network, images)
    size = (images.shape[-2], images.shape[-1])
    found = []
    for name in named if layers is None else layers:
        layer, arguments = named[name], inputs[name]
        row, column = (
            cell_at(place, pixels, cells) // layer.stride[0] * layer.stride[0]
            for place, pixels, cells in zip(pixel, size, layer.map_size(*arguments), strict=True)
        )
        with torch.no_grad():
            weights = layer.attention_of((row, column), *arguments)
        found.append(PixelAttention(name, pixel, size, (row, column), layer.stride[0], weights, layer.shown))
    return found


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
        if not 0 <= index < size or index % layer.stride[0]:
            raise ValueError(
                f"cell's {name} must be a multiple of the stride {layer.stride[0]} in [0, {size}), got {index}"
            )
    with torch.no_grad():
        return layer.attention_of(cell, features)
