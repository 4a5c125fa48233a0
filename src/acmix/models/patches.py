"""Maps and images of any size, in patches: what a size that they do not divide is padded to."""

from typing import Any

import torch
from timm.layers import nchw_to, patch_embed, to_2tuple
from torch import Tensor, fx
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional

from acmix.ops.tracing import is_exporting

Pair = tuple[int, int]


def rounded_up(size: int, cells: int) -> int:
    """How many patches of so many cells hold `size` cells."""
    # Floors of floors, which PyTorch knows to be one floor: proofs about sizes of sizes take seconds then, not minutes.
    # None of a negative number, which its ONNX exporter rounds up.
    return (size - 1) // cells + 1


def padded(x: Tensor, patch: Pair, axis: int) -> Tensor:
    """A map with zeros below and right, up to whole patches.

    Args:
        x: Four axes.
        patch: Height and width of a patch.
        axis: Of the rows; that of columns is the next, and one of channels may follow.
    """
    sizes = x.shape[axis], x.shape[axis + 1]
    down, right = (rounded_up(size, cells) * cells - size for size, cells in zip(sizes, patch, strict=True))
    behind = (0, 0) * (2 - axis)
    # A graph for every size must not ask whether there are any, and one of torch.compile had better not: with an answer
    # PyTorch no longer sees floors of floors as one, and takes twice as long.
    if not is_exporting() and statically_known_true(down == 0) and statically_known_true(right == 0):
        return x
    return functional.pad(x, (*behind, 0, right, 0, down))


def cropped(x: Tensor, size: Pair, axis: int) -> Tensor:
    """What lies above and left of a map's padding, of `size`; axes as for `padded`."""
    # A slice of PyTorch 2.11 has an unknown size of its own in a graph for every size.
    return x.narrow(axis, 0, size[0]).narrow(axis + 1, 0, size[1])


# A node of its own where torch.fx traces: what it does depends on the input.
fx.wrap("padded")


class PatchEmbed(patch_embed.PatchEmbed):
    """timm's, for images of any size: those that patches do not divide are padded with zeros below and right."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, dynamic_img_pad=True)

    def _init_img_size(self, img_size: int | Pair) -> tuple[Pair, Pair, int]:
        sizes: Any = to_2tuple(img_size)
        patch: Any = to_2tuple(self.patch_size)
        rows, columns = (rounded_up(size, cells) for size, cells in zip(sizes, patch, strict=True))
        return sizes, (rows, columns), rows * columns

    def forward(self, x: Tensor) -> Tensor:
        """Images `(B, C, H, W)` to patches in `output_fmt`."""
        if self.strict_img_size:
            set_to: Any = self.img_size
            for side, size, wanted in zip(("height", "width"), x.shape[2:], set_to, strict=True):
                torch._assert(size == wanted, f"Input {side} ({size}) doesn't match model ({wanted}).")
        patch: Any = self.patch_size
        x = self.proj(padded(x, patch, 2))
        x = x.flatten(2).transpose(1, 2) if self.flatten else nchw_to(x, self.output_fmt)
        return self.norm(x)
