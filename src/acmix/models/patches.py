"""Images to patches, of any size."""

from typing import Any

from timm.layers import patch_embed, to_2tuple

Pair = tuple[int, int]


class PatchEmbed(patch_embed.PatchEmbed):
    """timm's, for images of any size: those that patches do not divide are padded with zeros below and right."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, dynamic_img_pad=True)

    def _init_img_size(self, img_size: int | Pair) -> tuple[Pair, Pair, int]:
        sizes: Any = to_2tuple(img_size)
        patch: Any = to_2tuple(self.patch_size)
        rows, columns = (-(-size // cells) for size, cells in zip(sizes, patch, strict=True))
        return sizes, (rows, columns), rows * columns
