"""segmentation-models-pytorch: a U-Net on ACmix-ResNet, and any U-Net with operators in its deep layers.

pip install segmentation-models-pytorch
"""

import segmentation_models_pytorch as smp
import torch
from drawn import squares

import acmix.models  # registers its networks with timm, which smp calls "tu-NAME"


def on_our_encoder() -> smp.Unet:
    """Make a U-Net on a network of ours."""
    return smp.Unet("tu-acmix_resnet26", encoder_weights=None, classes=1)


def on_any_encoder() -> smp.Unet:
    """Make a U-Net whose 3x3 convolutions on maps of at most 16 x 16 cells are operators, in encoder and decoder."""
    network = smp.Unet("resnet18", encoder_weights=None, classes=1)
    acmix.replace_convolutions(network, select=16 * 16, example_inputs=torch.rand(1, 3, 64, 64))
    return network


def train(network: torch.nn.Module, steps: int) -> float:
    """Train on drawn squares; returns the last loss."""
    optimizer, dice = torch.optim.AdamW(network.train().parameters(), lr=1e-3), smp.losses.DiceLoss("binary")
    for _ in range(steps):
        images, drawn = zip(*squares(8), strict=True)
        loss = dice(network(torch.stack(images)), torch.stack([target["mask"] for target in drawn])[:, None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


if __name__ == "__main__":
    network = on_our_encoder()
    print(f"Dice loss of the last step: {train(network, steps=40):.3f}")
    # smp asks for the size of its input, which torch.fx cannot follow in all of its networks; in encoders it can.
    network.encoder = acmix.fuse(network.eval().encoder)
