"""PEFT: low-rank adapters on the projections of every operator, which is where most of its weights are.

pip install peft
"""

import torch
from drawn import classified
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

import acmix


def adapted(network: nn.Module) -> PeftModel:
    """Freeze a network but for adapters of its operators and its classifier."""
    return get_peft_model(network, LoraConfig(r=4, target_modules=["qkv"], modules_to_save=["fc"]))


def train(model: PeftModel, steps: int) -> float:
    """Train what is not frozen. Norms stay as they were, too: an adapter's file does not hold their statistics."""
    optimizer, loss = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=5e-3), torch.tensor(0.0)
    model.eval()
    images, labels = classified(24)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


if __name__ == "__main__":
    # In earnest a trained one. Fresh networks end their blocks with zeros, behind which no adapter could learn.
    network = acmix.create_model("acmix_resnet14_small", num_classes=3, zero_init_last=False)
    model = adapted(network)
    print(f"loss of the last step: {train(model, steps=40):.3f}")
    model.save_pretrained("adapters")
    # Merge before fusing: what an adapter adds to a projection is no part of its weights until then.
    fused = acmix.fuse(model.merge_and_unload())
    acmix.export.to_onnx(fused, "adapted.onnx", input_size=(3, 64, 64))
