"""torch-pruning: half of the channels of a network, those of operators included, then training, fusion and export.

pip install torch-pruning
"""

import torch
import torch_pruning
from drawn import classified
from torch import nn

import acmix
from acmix.integrations import torch_pruning as pruning


def halve(network: nn.Module, images: torch.Tensor) -> nn.Module:
    """Leave out the half of all channels whose weights are smallest."""
    pruner = torch_pruning.pruner.MetaPruner(
        network,
        images,
        importance=torch_pruning.importance.GroupMagnitudeImportance(),
        pruning_ratio=0.5,
        ignored_layers=[network.get_submodule("fc")],
        root_module_types=[nn.Conv2d, nn.Linear, acmix.ACmix],
        **pruning.arguments(network),
    )
    pruner.step()
    pruning.tell_timm(network, images)
    return network


def train(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, steps: int) -> float:
    """Train for some steps, with an optimiser made after the pruning; returns the last loss."""
    optimizer, loss = torch.optim.AdamW(network.train().parameters(), lr=3e-3), torch.tensor(0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
    return loss.item()


if __name__ == "__main__":
    network = acmix.create_model("acmix_resnet14_small", num_classes=3)
    images, labels = classified(48)
    train(network, images, labels, steps=20)
    print(f"loss with half of the channels: {train(halve(network, images[:1]), images, labels, steps=20):.3f}")
    acmix.export.to_onnx(network.eval(), "pruned.onnx", input_size=(3, 64, 64))
