"""transformers: a folder that acmix exported, loaded as a TimmWrapper, trained by its Trainer, and back.

pip install transformers accelerate
"""

import sys
from pathlib import Path

from drawn import classified
from transformers import AutoModelForImageClassification, Trainer, TrainingArguments

import acmix.models  # registers its networks with timm, which makes them for transformers


def train(folder: str | Path, output: str | Path, steps: int = 20) -> Trainer:
    """Train the network of an exported folder on squares, and save it as transformers does."""
    model = AutoModelForImageClassification.from_pretrained(folder)
    images = [{"pixel_values": image, "labels": label} for image, label in zip(*classified(24), strict=True)]
    arguments = TrainingArguments(
        str(output), max_steps=steps, per_device_train_batch_size=8, learning_rate=1e-3, report_to=[], use_cpu=True
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=images)
    trainer.train()
    trainer.save_model()
    return trainer


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: transformers_trainer.py FOLDER, one of `acmix export runs/NAME/best.safetensors FOLDER`")
    trainer = train(sys.argv[1], "runs/transformers")
    # Fuse the network itself: the wrapper's forward is not one that torch.fx can follow.
    fused = acmix.fuse(trainer.model.timm_model)
