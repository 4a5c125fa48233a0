"""Six pictures of discs and squares for detectors, and what tests ask of networks."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import nn

from acmix.nn import OperatorLayer

SIZE = 64


def draw(root: Path) -> Path:
    """The YAML of a data set in a folder."""
    random = np.random.default_rng(0)
    for part in ("images", "labels"):
        (root / part).mkdir()
    for number in range(6):
        kind, (left, top), width = number % 2, random.integers(4, 36, 2), 24
        image = Image.new("RGB", (SIZE, SIZE), (40, 40, 40))
        pen = ImageDraw.Draw(image)
        (pen.ellipse, pen.rectangle)[kind]((left, top, left + width, top + width), fill=(0, 200, 250))
        image.save(root / f"images/{number}.png")
        box = np.array([left + width / 2, top + width / 2, width, width]) / SIZE
        (root / f"labels/{number}.txt").write_text(f"{kind} {' '.join(map(str, box))}\n")
    (root / "data.yaml").write_text(f"path: {root}\ntrain: images\nval: images\nnames: [disc, square]\n")
    return root / "data.yaml"


def operators(network: nn.Module) -> dict[str, OperatorLayer]:
    """By name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, OperatorLayer)}


def stir(network: nn.Module) -> nn.Module:
    """Norms that do something, in evaluation mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return network.eval()
