"""ACmix in detectors without editing their source: torchvision's, and repositories that build networks from YAML.

python examples/detectors.py    # torchvision; for Ultralytics see ultralytics_yolo.py
"""

from typing import Any

import rich
import torch
from torch import nn
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

import acmix
from acmix.surgery import Report


class ACmixLayer(acmix.ACmix):
    """`ACmix` for parsers that give positions, not names: `[from, repeats, ACmixLayer, [channels in, out, stride]]`.

    YOLOv5's and its descendants' take a layer that they do not know to keep the number of channels: let both be equal.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, heads: int = 4) -> None:
        super().__init__(in_channels, out_channels, stride=stride, heads=heads)


def teach(parser: Any) -> None:
    """Let a YAML parser know the layer: it looks names up in its own module (`models.yolo` of YOLOv5 and YOLOv7)."""
    parser.ACmixLayer = ACmixLayer


def replace_deep(network: nn.Module, example: torch.Tensor | tuple[Any, ...], cells: int) -> Report:
    """Replace the 3x3 convolutions that read maps of at most `cells` cells: deep layers, where attention pays most."""
    return acmix.replace_convolutions(network, select=cells, example_inputs=example)


def torchvision_detector() -> None:
    """Replace in a Faster R-CNN, backbone, pyramid and heads alike."""
    network = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    images = [torch.rand(3, 240, 320)]
    rich.print(replace_deep(network, (images,), 40 * 40))
    print({name: tuple(found.shape) for name, found in network.eval()(images)[0].items()})


if __name__ == "__main__":
    torchvision_detector()
