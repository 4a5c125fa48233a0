"""pytorch-grad-cam: where a network looks, at a whole stage or at the output of one operator.

pip install grad-cam
"""

import torch
from drawn import classified
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

import acmix


def look(network: nn.Module, layer: nn.Module, images: Tensor, classes: list[int]) -> Tensor:
    """Compute the map of each image, `(B, H, W)` from 0 to 1, for the class wanted of it."""
    with GradCAM(model=network.eval(), target_layers=[layer]) as cam:
        # A fused network has no weights to derive by: with this it works, too.
        return torch.from_numpy(cam(images.requires_grad_(), [ClassifierOutputTarget(label) for label in classes]))


if __name__ == "__main__":
    network = acmix.create_model("acmix_resnet14_small", num_classes=3)
    images, labels = classified(2)
    operator = next(layer for layer in reversed([*network.modules()]) if isinstance(layer, acmix.ACmix))
    print("maps, (images, height, width):", tuple(look(network, operator, images, labels.tolist()).shape))
