"""States: everything a run needs to continue at its next update, one file each, the last few kept."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from acmix.errors import InputError, TrainingError, first_line
from acmix.storage import replacing

FOLDER = "states"


def save(output: Path, updates: int, content: dict[str, Any], *, keep: int, advice: str) -> Path:
    """Write the state after so many updates, whole or not at all, and delete the oldest.

    Args:
        output: The run folder.
        updates: Since the run began.
        content: Tensors and plain data.
        keep: States that stay, this one included.
        advice: How to continue a run that stops here.

    Raises:
        TrainingError: If it cannot be written; earlier states are then untouched.
    """
    folder = output / FOLDER
    path = folder / f"update-{updates:09d}.pt"
    try:
        folder.mkdir(exist_ok=True)
        with replacing(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        # PyTorch's writer of archives turns a failed write into a RuntimeError.
        reason = getattr(error, "strerror", None) or first_line(error)
        earlier = paths(output)
        kept = f"{earlier[-1]} is whole" if earlier else "there is no earlier one"
        raise TrainingError(f"the state {path} cannot be written: {reason}; {kept}; make room and {advice}") from error
    for old in paths(output)[:-keep]:
        old.unlink()
    return path


def paths(output: Path) -> list[Path]:
    """The states of a run, oldest first."""
    return sorted((output / FOLDER).glob("update-*.pt"))


def updates(path: Path) -> int:
    """The updates after which a state was saved, by its name."""
    return int(path.stem.removeprefix("update-"))


def read(path: Path) -> dict[str, Any]:
    """Read a state onto the CPU, every byte checked, without running anything that is stored in it.

    Raises:
        InputError: If it cannot be read, was cut off or changed, or holds other than tensors and plain data.
    """
    advice = "delete it to continue from the one before it"
    try:
        with zipfile.ZipFile(path) as archive:
            if (broken := archive.testzip()) is not None:
                raise InputError(f"the state {path} is damaged: {broken} has another checksum; {advice}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the state {path} is damaged: {first_line(error)}; {advice}") from error
    if not isinstance(content, dict) or not isinstance(content.get("updates"), int):
        raise InputError(f"the state {path} is damaged: it holds no run; {advice}")
    return content
