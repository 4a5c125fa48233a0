"""The commands that look inside; `acmix.cli` turns them into commands."""

import importlib
import re
import sys
from pathlib import Path

from acmix.errors import InputError


def explain(
    checkpoint: Path,
    images: list[Path],
    *,
    out: Path = Path("explained"),
    layer: str | None = None,
    pixel: str | None = None,
) -> int:
    """Show what a pixel attends to and what each layer's paths add, as pictures and a page; exit code 1 as in predict.

    Args:
        checkpoint: A best.safetensors or last.safetensors of acmix train, of a network with ACmix layers.
        images: Image files; a folder stands for the image files directly in it.
        out: The folder for the pictures and index.html, which opens without a network.
        layer: The layer to show, layer1.0.conv2 for instance (default: all).
        pixel: ROW,COLUMN in the input of the network, whose size is that of its training (default: the centre).
    """
    place = None if pixel is None else _place(pixel)
    # Checked first, so that a missing package names the extra with all that is needed here.
    importlib.import_module("captum")
    from acmix.checkpoints.classifier import load_classifier
    from acmix.data.images import read_images
    from acmix.explanations import write_explanations

    faults: list[str] = []
    page = write_explanations(
        load_classifier(checkpoint),
        read_images(images, faults),
        out,
        pixel=place,
        layers=None if layer is None else [layer],
    )
    if page is not None:
        sys.stdout.write(f"page: {page}\n")
    for line in faults:
        sys.stderr.write(f"acmix explain: {line}\n")
    return 1 if faults else 0


def _place(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", text)
    if match is None:
        raise InputError(f"--pixel must be ROW,COLUMN, two whole numbers as in 12,30, got {text!r}")
    return int(match[1]), int(match[2])
