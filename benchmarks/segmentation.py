"""What the recipe segmentation_small learns of drawn pictures. Writes benchmarks/results/segmentation-small.json.

`python -m benchmarks.segmentation`, in the project's root: 45 minutes of two cores; goes on where it was stopped.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from acmix.bench import machine
from tests.drawn_shapes import draw, write_masks

RESULT = Path(__file__).parent / "results/segmentation-small.json"
# The seeds of drawing and of training, and the most that pictures are turned by in training.
ROWS = ((0, 0, 180), (0, 0, 0), (1, 1, 0), (2, 2, 0), (2, 7, 0))
OF_TRAINING = "epochs", "best_epoch", "seconds"
OF_VALIDATION = "images", "mean_iou", "pixel_accuracy", "classes"


def learn(drawn: int, seed: int, turn: int) -> dict[str, Any]:
    """Train, unless that is done, and say what the best epoch's segmenter finds."""
    data, run = Path(f"runs/drawn-{drawn}"), Path(f"runs/segmentation-{drawn}-{seed}-{turn}")
    if not data.exists():
        write_masks(data, draw(seed=drawn))
    if not (run / "summary.json").exists():
        options = {"recipe": "segmentation_small", "seed": seed, "turn": turn, "output": run}
        given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        subprocess.run([sys.executable, "-m", "acmix", "train", str(data), *given, "--requeue"], check=True)  # noqa: S603
    summary = json.loads((run / "summary.json").read_text())
    trained = {name: summary[name] for name in OF_TRAINING}
    found = {name: summary["validation"][name] for name in OF_VALIDATION}
    return {"drawn": drawn, "seed": seed, "turn": turn, **trained, **found}


def main() -> None:
    """Train one after the other."""
    rows = [learn(*row) for row in ROWS]
    RESULT.write_text(json.dumps({"machine": machine(), "recipe": "segmentation_small", "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
