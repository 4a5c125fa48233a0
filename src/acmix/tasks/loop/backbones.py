"""Start weights of a classifier in the network of features that others are built on."""

from pathlib import Path
from typing import Any

import timm
from torch import nn

from acmix.checkpoints import load_weights
from acmix.checkpoints.files import read_state_file
from acmix.errors import InputError

# Where timm puts a network whose features it gives by hooks.
_WITHIN = "model."


def load_backbone(backbone: nn.Module, name: str, path: Path) -> str:
    """Load a classifier's weights, of any trainer, published or ours, into its features; its head is left out.

    Args:
        backbone: Made by timm with `features_only`.
        name: timm's name of it.
        path: The file, or a run folder, or an exported folder.

    Returns:
        What was taken from the file and what was left out, in a sentence.

    Raises:
        InputError: If the file cannot be read or its weights belong to another network; nothing was loaded then.
    """
    file = read_state_file(path)
    network: Any = timm.create_model(name)
    heads = network.pretrained_cfg.get("classifier") or ()
    try:
        loaded = load_weights(network, file.tensors, heads=(heads,) if isinstance(heads, str) else heads)
    except ValueError as error:
        raise InputError(f"weights {path} do not fit the backbone {name}: {error}") from error
    known = {_plain(key): tensor for key, tensor in network.state_dict().items()}
    found = {key: known.get(_plain(key.removeprefix(_WITHIN))) for key in backbone.state_dict()}
    for key, tensor in backbone.state_dict().items():
        if (other := found[key]) is None or other.shape != tensor.shape:
            raise InputError(f"weights {path} cannot be laid into the features of {name}: {key} has no counterpart")
    backbone.load_state_dict(found)
    place = f", {file.place}" if file.place else ""
    return f"weights {path}{place}, into the backbone: {loaded}"


def _plain(key: str) -> str:
    """A name that both networks have: timm writes `layers_0` for `layers.0` where stages are features."""
    return key.replace("_", ".")
