"""Everything that holds a trained network, opened in one place."""

from pathlib import Path

import torch

from acmix import records
from acmix.checkpoints.files import BEST, WEIGHTS, is_safetensors
from acmix.checkpoints.hub import CONFIG, from_pretrained
from acmix.checkpoints.loading import shorten
from acmix.checkpoints.onnx_files import open_onnx
from acmix.checkpoints.stored import load_trained
from acmix.checkpoints.trained import ACCEPTED, WITH_LAYERS, TrainedNetwork
from acmix.devices import find_device
from acmix.errors import InputError

_ADDRESSES = ("hf-hub:", "local-dir:")
_ONNX = ".onnx"


def load(path: str | Path, *, device: str | torch.device = "auto") -> TrainedNetwork:
    """Load a trained network with what is needed to use it. Nothing is run or unpickled.

    Args:
        path: A run folder of `acmix train` (its best.safetensors is taken), a best.safetensors or last.safetensors, a
            folder that `acmix export` or timm's `save_for_hf` wrote, "hf-hub:USER/NAME", or an .onnx file of
            `acmix export`, which runs in ONNX Runtime.
        device: Where it computes: "auto" (the accelerator of this machine, or the CPU), "cpu", "cuda", "cuda:1", "mps".

    Returns:
        A `Classifier`, or what else was trained: its `predict` takes images; `classes` are the names in the order of
        the network's, `preprocess` makes an image the input of `model`, which lies on the device, in evaluation mode.

    Raises:
        InputError: If path holds no network that can be used, or there is no such device here.
    """
    place = find_device(device)
    if _is_onnx(path):
        return open_onnx(Path(path), None if device == "auto" else place)
    trained = _open(path)
    trained.model.to(place)
    return trained


def load_network(path: str | Path, purpose: str, *, device: str | torch.device = "auto") -> TrainedNetwork:
    """As `load`, for what needs layers and weights, which an .onnx file has no more.

    Args:
        path: As there, but for .onnx files.
        purpose: What it is for, as the subject of an error: "acmix explain".
        device: As there.

    Raises:
        InputError: As there, and for an .onnx file.
    """
    if _is_onnx(path):
        raise InputError(
            f"checkpoint {path} is a graph for ONNX Runtime; {purpose} needs the network's layers: give {WITH_LAYERS}"
        )
    return load(path, device=device)


def _is_onnx(path: str | Path) -> bool:
    """Whether a file is to be taken for ONNX: by its name, unless it is safetensors within."""
    path = Path(path)
    if path.suffix.lower() != _ONNX or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return not is_safetensors(file.read(9))
    except OSError as error:
        raise InputError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error


def _open(path: str | Path) -> TrainedNetwork:
    if str(path).startswith(_ADDRESSES):
        return from_pretrained(path)
    path = Path(path)
    if not path.is_dir():
        # The weights of an exported folder, as a person may take them for all of it.
        beside = path.name == WEIGHTS and path.is_file() and (path.parent / CONFIG).is_file()
        return from_pretrained(path.parent) if beside else load_trained(path)
    if (path / BEST).is_file():
        return load_trained(path / BEST)
    if (path / WEIGHTS).is_file() or _is_exported(path):
        return from_pretrained(path)
    if (path / CONFIG).is_file():
        raise InputError(
            f"checkpoint {path} is a run that has no {BEST} yet: no epoch is finished; wait for the first, or continue "
            "the run with --resume"
        )
    runs = sorted(folder.name for folder in path.iterdir() if (folder / BEST).is_file())
    held = f"no network but the runs {shorten(runs)}" if runs else "no network"
    raise InputError(f"checkpoint {path} is a folder that holds {held}; give {ACCEPTED}")


def _is_exported(folder: Path) -> bool:
    """Whether a folder's config.json is timm's, not of a run."""
    try:
        return "architecture" in records.parse((folder / CONFIG).read_bytes())
    except (OSError, InputError, TypeError):
        return False
