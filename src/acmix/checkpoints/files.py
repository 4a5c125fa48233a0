"""State dicts from files into networks."""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from acmix.checkpoints.published import from_published
from acmix.errors import InputError

_WRAPPERS = ("state_dict", "model")
_LISTED = 10


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the weights in a file, onto the CPU and without running anything that is stored in it.

    Args:
        path: A `.safetensors` file, or a file of `torch.save` that holds a state dict, bare or under the key
            "state_dict" or "model".

    Returns:
        Tensors by name, as stored.

    Raises:
        InputError: If the file is missing, cannot be read, is corrupt, holds objects other than plain data, or no
            weights.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"weights must be a file, got {path}, which {'is a folder' if path.is_dir() else 'is missing'}"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"weights {path} cannot be read: {error.strerror}; check its permissions") from error
    content = _parse(path, data)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping):
        raise InputError(
            f"weights {path} must hold a state dict, got {type(content).__name__}; save model.state_dict()"
        )
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise InputError(
                f"weights {path} must hold tensors by name, got {type(value).__name__} at {key!r}; "
                "save model.state_dict()"
            )
    if not content:
        raise InputError(f"weights {path} must hold at least one tensor, got none")
    return dict(content)


def _parse(path: Path, data: bytes) -> Any:
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load(data)
        except SafetensorError as error:
            raise InputError(f"weights {path} must be a safetensors file, got a corrupt one: {error}") from error
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"weights {path} must be a torch file of plain tensors, got one that is corrupt or holds other objects, "
            "which could run code; save model.state_dict() alone or as .safetensors"
        ) from error


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load weights under our or the published names into a network; all of them or, on a mismatch, none.

    Args:
        model: An `ACmix` or a network, changed in place.
        state_dict: Exactly the model's weights; see `from_published` for the names. Not modified.

    Raises:
        ValueError: If a key is missing or unexpected or a shape differs, naming them.
    """
    state = from_published(state_dict)
    expected = model.state_dict()
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    shapes = [
        f"{key} must be {tuple(tensor.shape)}, got {tuple(state[key].shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "wrong shape": shapes}
    if any(faults.values()):
        listed = "; ".join(f"{fault}: {_shorten(keys)}" for fault, keys in faults.items() if keys)
        raise ValueError(f"state_dict must hold exactly the weights of {type(model).__name__}; {listed}")
    model.load_state_dict(state)


def _shorten(items: list[str]) -> str:
    rest = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
