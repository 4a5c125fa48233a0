"""Seconds from typing a command to its first output on a terminal and to its end; writes start-cpu.json in results/.

Run: python benchmarks/start.py, on a machine that does nothing else
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pexpect

from acmix.bench import machine

RUNS = 5
# What a command may take to its first output, which may say that PyTorch is loaded: with timm that takes three seconds.
WITHOUT_TORCH, WITH_TORCH = 1.5, 4.0
PROGRAM = "import sys; from acmix.cli import main; sys.exit(main(sys.argv[1:]))"


def commands(folder: Path) -> dict[str, list[str]]:
    """Every subcommand, by whether it needs PyTorch; a run and its checkpoint are made before."""
    run, figures = str(folder / "run"), str(Path(__file__).with_name("results") / "study-digits.json")
    best, image = f"{run}/best.safetensors", str(folder / "digit.png")
    return {
        "without": ["--help", "--version", "train --help", "recipes", "--completion bash", "data check --help"],
        "with": [
            "info",
            "info acmix_resnet26",
            f"info {best}",
            "train digits --print-config",
            f"train digits --model acmix_resnet14_small --image-size 16 --epochs 1 --output {folder}/other",
            f"validate {best} digits",
            f"predict {best} {image}",
            f"explain {best} {image} --output {folder}/explained",
            f"export {best} {folder}/network.onnx",
            f"report {run}",
            f"compare {run}",
            "data check digits",
            "bench layer --shapes 8x9 --seconds 0.1",
            "bench model --models acmix_resnet14_small --image-size 32 --seconds 0.1",
            f"study show {figures}",
        ],
    }


def first_output(command: str) -> float:
    """Seconds until a command writes anything; it is ended then."""
    began = time.perf_counter()
    child = pexpect.spawn(sys.executable, ["-c", PROGRAM, *command.split()], dimensions=(24, 80), timeout=120)
    child.read_nonblocking(1, timeout=120)
    seconds = time.perf_counter() - began
    child.close(force=True)
    return seconds


def whole(command: str) -> float:
    """Seconds until a command has ended well."""
    began = time.perf_counter()
    child = pexpect.spawn(sys.executable, ["-c", PROGRAM, *command.split()], dimensions=(24, 80), timeout=120)
    output = child.read()
    child.close()
    if child.exitstatus:
        raise SystemExit(f"acmix {command} ends with {child.exitstatus}: {output.decode(errors='replace')}")
    return time.perf_counter() - began


def prepare(folder: Path) -> None:
    """Train for an epoch."""
    from acmix.cli import main
    from acmix.data import export_digits

    options = ["--model", "acmix_resnet14_small", "--image-size", "16", "--epochs", "1", "--output"]
    if main(["train", "digits", *options, str(folder / "run")]):
        raise SystemExit("the run that commands look at could not be made")
    export_digits(folder, count=1)[0].rename(folder / "digit.png")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        rows = []
        for kind, limit in (("without", WITHOUT_TORCH), ("with", WITH_TORCH)):
            for command in commands(folder)[kind]:
                ended = whole(command)
                seconds = [first_output(command) for _ in range(RUNS)]
                shown = command.replace(f"{folder}/", "").replace(f"{Path(__file__).parent}/", "")
                rows.append(
                    {
                        "command": f"acmix {shown}",
                        "torch": kind == "with",
                        "limit": limit,
                        "fastest": min(seconds),
                        "median": statistics.median(seconds),
                        "ended": ended,
                    }
                )
                told = f"{min(seconds):.2f} s, at most {limit}; ended after {ended:.1f}"
                print(f"{told}  {shown}")  # noqa: T201
    content = {"machine": machine(), "runs": RUNS, "rows": rows}
    Path(__file__).with_name("results").joinpath("start-cpu.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
