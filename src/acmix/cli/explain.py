"""The subcommands that look inside a network."""

import importlib
import re
import sys
import threading
from pathlib import Path

from acmix.cli import lines, outputs, python
from acmix.errors import InputError
from acmix.shell import command

_DEMO_RUN = Path("demo/run")


def explain(
    checkpoint: Path,
    images: list[Path],
    *,
    output: Path = Path("explained"),
    layer: str | None = None,
    pixel: str | None = None,
    device: str = "auto",
) -> int:
    """Show what a pixel attends to and what each layer's paths add, as pictures and a page; exit code 2 as in predict.

    Args:
        checkpoint: A run folder, a best.safetensors of acmix train, or a folder of acmix export, with ACmix layers; of
            a detector or segmenter its backbone is looked at.
        images: Image files; a folder stands for the image files directly in it.
        output: The folder for the pictures and index.html, which opens without a network.
        layer: The layer to show, layer1.0.conv2 for instance (default: all).
        pixel: ROW,COLUMN in the input of the network, as the page shows it (default: the centre).
        device: auto, cpu, cuda, cuda:1 (any number) or mps.
    """
    place = None if pixel is None else _place(pixel)
    outputs.check_folder("--output", output)
    # Checked first, so that a missing package names the extra with all that is needed here.
    from acmix.cli.display import progress

    with progress.working():
        importlib.import_module("captum")
        from acmix.checkpoints.opening import load_network
        from acmix.data.folders import find_images
        from acmix.data.images import read_images
        from acmix.pages.explanations import check_number, write_explanations

        trained = load_network(checkpoint, "acmix explain", device=device)
    faults: list[str] = []
    files = find_images(images, faults)
    check_number(len(files))
    page = write_explanations(
        trained,
        read_images(progress.track(files, "explaining", len(files)), faults),
        output,
        pixel=place,
        layers=None if layer is None else [layer],
    )
    if page is not None:
        sys.stdout.write(f"page: {page}\n")
    for fault in faults:
        lines.error("acmix explain", fault)
    return 2 if faults else 0


def demo(checkpoint: Path | None = None, *, port: int | None = None, device: str = "auto") -> int:
    """Serve a page to this machine: drop an image, click a pixel, move through the layers. Ctrl-C stops it.

    Args:
        checkpoint: As in acmix explain (default: demo/run, trained on digits first).
        port: Of 127.0.0.1 (default: the first free one from 7860 on).
        device: auto, cpu, cuda, cuda:1 (any number) or mps.
    """
    if port is not None and not 1 <= port <= 65535:
        raise InputError(f"--port must lie in 1 to 65535, got {port}")
    # Checked before anything is trained; gradio first, so that a missing package names the extra with all of them.
    from acmix.cli.display import progress

    with progress.working():
        for package in ("gradio", "captum", "matplotlib", "jinja2"):
            importlib.import_module(package)
        from acmix.checkpoints.opening import load_network
        from acmix.devices import find_device

        find_device(device)
    if checkpoint is None:
        checkpoint = _DEMO_RUN / "best.safetensors"
        if not checkpoint.is_file():
            from acmix.tasks.classification import demonstration
            from acmix.tasks.kinds import KINDS

            typed = command("train", demonstration.DATA, **demonstration.CHANGES, output=_DEMO_RUN)
            sys.stdout.write(f"{checkpoint} is not there yet: training it on {demonstration.DATA}\n$ {typed}\n")
            python.fit_and_report(
                KINDS["classification"], demonstration.DATA, demonstration.settings(), _DEMO_RUN, device=device
            )
    trained = load_network(checkpoint, "acmix demo", device=device)
    from acmix.pages.demo import serve

    with serve(trained, port) as address:
        sys.stdout.write(f"demo: {address} (Ctrl-C stops it)\n")
        sys.stdout.flush()
        _wait_for_interrupt()
    return 0


def _wait_for_interrupt() -> None:
    threading.Event().wait()


def _place(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", text)
    if match is None:
        raise InputError(f"--pixel must be ROW,COLUMN, two whole numbers as in 12,30, got {text!r}")
    return int(match[1]), int(match[2])
