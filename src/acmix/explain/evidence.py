"""Where a layer holds what speaks for or against a class; needs captum, of the extra `explain`."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from acmix.paths import TwoPaths


def class_evidence(network: nn.Module, images: Tensor, classes: Tensor, layer: nn.Module) -> Tensor:
    """Evidence for one class an image, by Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391, eq. 1 and 2).

    sum_c w_c A_c with A the layer's output and w_c the mean of d logit / d A_c over the cells. Negative values, which
    the paper cuts off, are kept: they speak against the class. Of a PVT, w_c is the mean over class tokens, too, which
    the classifier reads.

    Args:
        network: `(B, C, H, W)` to logits, in evaluation mode; the gradients of its parameters are left alone.
        images: Shape `(B, C, H, W)`.
        classes: Index of the class of every image, `(B,)`.
        layer: A module of the network whose output is a map.

    Returns:
        Shape `(B, H_l, W_l)`, in the cells of the layer's output.
    """
    from captum.attr import LayerGradCam

    axis, seen = layer.channel_axis if isinstance(layer, TwoPaths) else 1, layer
    hooks: list[RemovableHandle] = []
    size: list[int] = []
    if axis != 1:
        # Captum takes channels to come first.
        seen = nn.Identity()

        def show(_layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            size[:] = _layer.map_size(*inputs)  # type: ignore[not-callable]
            return seen(output.movedim(axis, 1)).movedim(1, axis)

        hooks.append(layer.register_forward_hook(show))
    try:
        with torch.enable_grad():
            evidence = LayerGradCam(network, seen).attribute(images, target=classes)
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(evidence, Tensor):
        raise TypeError(f"layer must have one output, {type(layer).__name__} has {len(evidence)}")
    evidence = evidence.detach()[:, 0]
    # Cells in one row, behind class tokens.
    return evidence[:, -size[0] * size[1] :].unflatten(1, size) if evidence.ndim == 2 else evidence
