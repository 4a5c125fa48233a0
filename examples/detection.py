"""torchvision's reference training of detectors, on squares: Faster R-CNN on a pyramid of ACmix-ResNet's features."""

from collections.abc import Sequence

import torch
from drawn import squares
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN

import acmix

Target = dict[str, Tensor]


def detector(network: str = "acmix_resnet26", classes: int = 4) -> FasterRCNN:
    """Make a Faster R-CNN; class 0 is the background, as torchvision counts."""
    backbone = acmix.detection_backbone(network, out_channels=64)
    return FasterRCNN(backbone, classes, min_size=64, max_size=64)


def examples(count: int) -> list[tuple[Tensor, Target]]:
    """Draw images and what torchvision's detectors are told of each."""
    return [(image, {"boxes": drawn["boxes"], "labels": 1 + drawn["label"][None]}) for image, drawn in squares(count)]


def train_one_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Sequence[tuple[Tensor, Target]]],
    mixed: bool = False,
) -> float:
    """Train as references/detection/engine.py does: a warm-up, a sum of losses, and a stop where it is not finite.

    `mixed` is its --amp, in bfloat16: slow on processors without products of such numbers.
    """
    model.train()
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 1000, total_iters=min(1000, len(batches) - 1))
    for batch in batches:
        images, targets = zip(*batch, strict=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = sum(model(list(images), list(targets)).values(), torch.zeros(()))
        if not loss.isfinite():
            raise SystemExit(f"the loss is {loss.item()}, training stops")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        warm_up.step()
    return loss.item()


if __name__ == "__main__":
    model = detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    loss = train_one_epoch(model, optimizer, [examples(4) for _ in range(50)])
    print(f"loss of the last update: {loss:.3f}")
    print("found in a new image:", model.eval()([image for image, _ in examples(1)])[0])
