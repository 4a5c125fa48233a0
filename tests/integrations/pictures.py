"""Drawn pictures as Ultralytics wants them, and what its tests ask of networks."""

from pathlib import Path

from torch import nn
from torchvision.transforms.functional import to_pil_image

from acmix.nn import OperatorLayer
from tests.examples import load_example

drawn = load_example("drawn")
SIZE = drawn.SIZE


def draw(root: Path) -> Path:
    """Six pictures for training and validation; the YAML that says so."""
    for part in ("images", "labels"):
        (root / part).mkdir()
    for number, (image, target) in enumerate(drawn.squares(6)):
        to_pil_image(image.clamp(0, 1)).save(root / f"images/{number}.png")
        left, top, right, bottom = (target["boxes"][0] / SIZE).tolist()
        box = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
        (root / f"labels/{number}.txt").write_text(f"{int(target['label'])} {' '.join(map(str, box))}\n")
    (root / "data.yaml").write_text(f"path: {root}\ntrain: images\nval: images\nnames: [red, green, blue]\n")
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
