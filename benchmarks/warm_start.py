"""What survives when ACmix takes the place of trained convolutions, and how fast fine-tuning recovers it.

A small ResNet with 3x3 convolutions is trained on scikit-learn's handwritten digits; then its convolutions are replaced
with and without a warm start, and both are fine-tuned alike. Writes benchmarks/results/warm-start.json.
"""

import argparse
import copy
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import acmix
from acmix.accounting import convolution_twin
from acmix.bench import machine
from acmix.surgery import replace_convolutions

BATCH = 64
Data = tuple[Tensor, Tensor]


def digits(seed: int) -> tuple[Data, Data]:
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1
    # 8 x 8 pixels enlarged, so that every stage has more than one cell.
    images = nn.functional.interpolate(images, size=16, mode="bilinear").expand(-1, 3, -1, -1)
    parts = train_test_split(images, torch.tensor(labels), test_size=0.25, random_state=seed, stratify=labels)
    return (parts[0], parts[2]), (parts[1], parts[3])


@torch.no_grad()
def accuracy(network: nn.Module, data: Data) -> float:
    network.eval()
    return (network(data[0]).argmax(1) == data[1]).float().mean().item()


def train(network: nn.Module, data: Data, held_out: Data, epochs: int, rate: float, seed: int) -> list[float]:
    """Accuracy on held-out images before training and after every epoch."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.05)
    steps = epochs * -(-len(data[0]) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    curve = [accuracy(network, held_out)]
    for _ in range(epochs):
        network.train()
        for batch in torch.randperm(len(data[0]), generator=generator).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(data[0][batch]), data[1][batch]).backward()
            optimizer.step()
            schedule.step()
        curve.append(accuracy(network, held_out))
    return curve


def one_seed(seed: int, epochs: int, fine_tuning: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    data, held_out = digits(seed)
    network = convolution_twin(acmix.create_model("acmix_resnet14_small", num_classes=10))
    network.init_weights()
    before = train(network, data, held_out, epochs, 3e-3, seed)[-1]
    result = {"seed": seed, "convolutions": before}
    for start, warm in (("warm", True), ("random", False)):
        torch.manual_seed(seed)
        swapped = copy.deepcopy(network)
        report = replace_convolutions(swapped, select="layer*", warm_start=warm)
        if warm:
            result["residuals"] = {layer.name: layer.residual for layer in report.replaced}
        result[start] = train(swapped, data, held_out, fine_tuning, 1e-3, seed)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--fine-tuning", type=int, default=4)
    arguments = parser.parse_args()
    runs = [
        one_seed(seed, arguments.epochs, arguments.fine_tuning)
        for seed in track(range(arguments.seeds), description="training")
    ]
    path = Path(__file__).parent / "results" / "warm-start.json"
    path.write_text(json.dumps({"machine": machine(), "settings": vars(arguments), "runs": runs}, indent=1) + "\n")
    print(f"trained convolutions: {statistics.mean(run['convolutions'] for run in runs):.2%}")  # noqa: T201
    for start in ("warm", "random"):
        means = [statistics.mean(values) for values in zip(*(run[start] for run in runs), strict=True)]
        print(f"{start} start, after 0, 1, ... epochs:", *(f"{value:.2%}" for value in means))  # noqa: T201


if __name__ == "__main__":
    main()
