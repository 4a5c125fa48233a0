"""The main job on scikit-learn's handwritten digits: train, validate, predict, report.

Each step is a command of the `acmix` program as it is typed; one process, so that PyTorch is imported once.
"""

import shlex
import sys

from acmix.cli import main
from acmix.data import export_digits

TRAIN = "train digits --image-size 16 --batch-size 32 --epochs 7 --lr 0.003 --output demo/run"
USE = (
    "validate demo/run/best.safetensors digits",
    "predict demo/run/best.safetensors demo/digits --top 2",
    "report demo/run",
)


def run(command: str) -> None:
    """Run one command; a failure ends the program with its exit code."""
    print(f"\n$ acmix {command}", flush=True)
    code = main(shlex.split(command))
    if code:
        sys.exit(code)


if __name__ == "__main__":
    run(TRAIN)
    export_digits("demo/digits", count=8)
    for command in USE:
        run(command)
