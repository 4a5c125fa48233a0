"""Arguments of `nn.Conv2d`: what they mean for the operator, and why the others mean nothing. A leaf."""

from collections.abc import Sequence
from typing import NoReturn

# As nn.Conv2d takes a size: of both axes, or one each.
Size = int | tuple[int, int]

_BY_NAME = (
    "ACmix takes in_channels and out_channels by place and everything else by name, got {}: is it kernel_conv, the "
    "kernel of the convolution path, nn.Conv2d's third, or kernel_att, the attention window, the published code's?"
)


def refuse_places(values: Sequence[object]) -> NoReturn:
    """Explain why nothing follows the channels by place."""
    raise TypeError(_BY_NAME.format(", ".join(map(repr, values))))


def single(name: str, size: Size) -> int:
    """The one number that a size of two equal axes stands for; what is no size is returned as it is.

    Raises:
        ValueError: If the axes differ.
    """
    if not isinstance(size, Sequence) or isinstance(size, str):
        return size
    if len(size) != 2 or size[0] != size[1]:
        raise ValueError(f"{name} must be one number for both axes, got {size!r}")
    return size[0]


def choose_kernel(kernel_conv: Size, kernel_size: Size | None, *, default: int) -> int:
    """The kernel of the convolution path, under our name or nn.Conv2d's.

    Raises:
        ValueError: If both are given, and differ.
    """
    kernel = single("kernel_conv", kernel_conv)
    if kernel_size is None:
        return kernel
    if kernel not in (default, single("kernel_size", kernel_size)):
        raise ValueError(
            f"kernel_size is nn.Conv2d's name of kernel_conv; give one of them, got kernel_conv={kernel_conv} and "
            f"kernel_size={kernel_size}"
        )
    return single("kernel_size", kernel_size)


def check_padding(padding: Size | str | None, kernel: int, dilation: int) -> None:
    """Raise ValueError unless it is the padding that keeps the size of the map: e (k_c // 2), "same" or None."""
    needed = dilation * (kernel // 2)
    if padding is None or padding == "same":
        return
    if isinstance(padding, str) or single("padding", padding) != needed:
        raise ValueError(
            f"padding must be dilation * (kernel_conv // 2) = {needed}, so that both paths keep the size of the map, "
            f"got {padding!r}; pad or crop the map around the layer for another"
        )


def check_unmixed(groups: int, padding_mode: str) -> None:
    """Raise ValueError unless all channels are projected together, beside zeros."""
    if groups != 1:
        raise ValueError(
            f"groups must be 1, got {groups}: the 1x1 projections read every channel, and the convolution path is "
            "grouped by itself; keep nn.Conv2d for depthwise and grouped convolutions"
        )
    if padding_mode != "zeros":
        raise ValueError(
            f"padding_mode must be 'zeros', that of the convolution path, got {padding_mode!r}; the attention window "
            "is reflected at the border in any case"
        )
