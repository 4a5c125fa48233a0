"""Images that are continued on the right and below, and what is found in them."""

from collections.abc import Sequence

from torch import Tensor, nn


def continued(image: Tensor, size: Sequence[int]) -> Tensor:
    """An image or masks with zeros on the right and below."""
    return nn.functional.pad(image, (0, size[1] - image.shape[-1], 0, size[0] - image.shape[-2]))


def cut(found: dict[str, Tensor], height: int, width: int) -> None:
    """Leave out what lies where an image was continued."""
    found["boxes"] = found["boxes"].minimum(found["boxes"].new_tensor((width, height, width, height)))
    there = (found["boxes"][:, 2:] > found["boxes"][:, :2]).all(1)
    for name in found:
        found[name] = found[name][there]
    if "masks" in found:
        found["masks"] = found["masks"][..., :height, :width]
