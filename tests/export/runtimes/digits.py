"""The small network trained for seconds on scikit-learn's digits: what int8 must keep is accuracy."""

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import acmix

EPOCHS, BATCH, TRAINED = 8, 64, 1200
# Of accuracy.
POINT = 0.01


@dataclass(frozen=True)
class Digits:
    """The network with the images that it was trained on and others."""

    network: nn.Module
    known: Tensor
    images: Tensor
    labels: Tensor

    def hold(self, load, folder):
        """Hold a quantised network, calibrated with known images, to the accuracy of this one; both of them."""
        run = load(self.network, self.known[:128], folder)
        accuracy = self._accuracy(run)
        expected = self._accuracy(lambda images: [self.network(images)])
        assert expected > 0.9
        assert abs(accuracy - expected) <= POINT, f"{accuracy:.3f}, in float32 {expected:.3f}"
        return {"quantised": accuracy, "float32": expected}

    def _accuracy(self, run):
        with torch.no_grad():
            logits = torch.cat([run(images)[0] for images in self.images.split(BATCH)])
        return (logits.argmax(1) == self.labels).float().mean().item()


def train():
    """Train on images of 16 x 16, the first `TRAINED` of a fixed order."""
    torch.manual_seed(0)
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    images = functional.interpolate(images, scale_factor=2.0, mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    order = torch.randperm(len(images))
    images, labels = images[order], torch.tensor(labels)[order]
    network = acmix.create_model("acmix_resnet14_small").train()
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=EPOCHS * (TRAINED // BATCH))
    for _ in range(EPOCHS):
        for batch in torch.randperm(TRAINED)[: TRAINED // BATCH * BATCH].split(BATCH):
            loss = functional.cross_entropy(network(images[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return Digits(network.eval(), images[:TRAINED], images[TRAINED:], labels[TRAINED:])
