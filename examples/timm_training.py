"""What timm's train.py does with a network: create_model, an average of the weights, checkpoints, resuming.

Its script takes our networks as they are: python train.py --device-modules acmix.models --model acmix_resnet50 DATA
"""

import argparse
from pathlib import Path

import timm
import torch
from drawn import classified
from timm.models import resume_checkpoint
from timm.optim import create_optimizer_v2
from timm.utils import CheckpointSaver, ModelEmaV3

import acmix.models


def create() -> torch.nn.Module:
    """Create the network with the arguments that train.py hands on."""
    rates = {"drop_rate": 0.1, "drop_path_rate": 0.1}
    return timm.create_model("acmix_resnet14_small", num_classes=3, in_chans=3, global_pool="avg", **rates)


def train(folder: str | Path, epochs: int, resume: str | Path = "") -> tuple[torch.nn.Module, torch.nn.Module]:
    """Train and leave checkpoints in the folder; returns the network and its average."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    model = create()
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.75)
    start = resume_checkpoint(model, str(resume), optimizer) if resume else 0
    average = ModelEmaV3(model, decay=0.9)
    saver = CheckpointSaver(
        model,
        optimizer,
        argparse.Namespace(model="acmix_resnet14_small"),
        model_ema=average,
        checkpoint_dir=str(folder),
    )
    for epoch in range(start or 0, epochs):
        images, labels = classified(24)
        loss = torch.nn.functional.cross_entropy(model.train()(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update(model, step=epoch)
        saver.save_checkpoint(epoch, metric=-loss.item())
    return model.eval(), average.module.eval()


if __name__ == "__main__":
    train("runs/timm", epochs=3)
    network = create()
    # Reads the average where there is one, and nothing that runs.
    weights = acmix.checkpoints.load_state_dict("runs/timm/last.pth.tar")
    print(acmix.checkpoints.load_weights(network, weights))
