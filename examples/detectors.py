"""ACmix in detectors without editing their source: torchvision's, and networks that are built from YAML.

python examples/detectors.py                 # torchvision
python examples/detectors.py yolo11n.yaml    # Ultralytics, where it is installed (AGPL-3.0: acmix never imports it)
"""

import sys
from typing import Any

import rich
import torch
from torch import nn
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

import acmix
from acmix.surgery import Report


class ACmixLayer(acmix.ACmix):
    """`ACmix` for parsers that give positions, not names: `[from, repeats, ACmixLayer, [channels in, out, stride]]`.

    Ultralytics' parser takes a layer that it does not know to keep the number of channels: let both be equal there.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, heads: int = 4) -> None:
        super().__init__(in_channels, out_channels, stride=stride, heads=heads)


def teach(parser: Any) -> None:
    """Let a YAML parser know the layer: it looks names up in its own module (`ultralytics.nn.tasks`, for one)."""
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


def ultralytics_detector(configuration: str) -> None:
    """Replace in a network that Ultralytics built from its YAML, and let its parser build more."""
    import ultralytics
    from ultralytics.nn import tasks

    teach(tasks)
    network = ultralytics.YOLO(configuration).model
    rich.print(replace_deep(network, torch.rand(1, 3, 320, 320), 20 * 20))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        ultralytics_detector(sys.argv[1])
    else:
        torchvision_detector()
