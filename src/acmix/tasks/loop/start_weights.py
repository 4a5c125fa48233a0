"""Start weights of a file in a network: its own, or a classifier's in the network of features that it is built on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from torch import nn

from acmix.checkpoints import load_weights
from acmix.checkpoints.files import StateFile, read_state_file
from acmix.checkpoints.loading import LoadedWeights
from acmix.errors import InputError

# Where timm puts a network whose features it gives by hooks.
_WITHIN = "model."


def load_own(network: nn.Module, path: Path, *, heads: Sequence[str]) -> str:
    """Load weights of such a network, of any trainer, published or ours.

    Args:
        network: Changed in place.
        path: The file, or a run folder, or an exported folder.
        heads: Names of modules that keep fresh weights where those are of other classes.

    Returns:
        What was taken from the file and what was left out, in a sentence.

    Raises:
        InputError: If the file cannot be read or its weights belong to another network; nothing was loaded then.
    """
    file = read_state_file(path)
    return f"weights {path}{file.words}: {_load(network, file, path, heads, 'model')}"


def load_own_or_backbone(
    network: nn.Module, path: Path, *, heads: Sequence[str], own: str, features: nn.Module, backbone: str
) -> str:
    """Load weights of such a network as `load_own` does, or else those of a classifier into its backbone.

    Args:
        network: As there.
        path: As there.
        heads: As there.
        own: A part that names of its own weights have, and those of a classifier have not.
        features: Its backbone, made by timm with `features_only`.
        backbone: timm's name of that.

    Returns:
        As there.

    Raises:
        InputError: As there.
    """
    file = read_state_file(path)
    if any(f".{own}." in f".{name}" for name in file.tensors):
        return f"weights {path}{file.words}: {_load(network, file, path, heads, 'model')}"
    return f"weights {path}{file.words}, into the backbone: {_load_features(features, backbone, file, path)}"


def classifier_heads(network: nn.Module) -> Sequence[str]:
    """Names of the modules of a network of timm that answer for its classes."""
    configuration: Any = network.pretrained_cfg
    heads = configuration.get("classifier") or ()
    return (heads,) if isinstance(heads, str) else heads


def _load(network: nn.Module, file: StateFile, path: Path, heads: Sequence[str], what: str) -> LoadedWeights:
    try:
        return load_weights(network, file.tensors, heads=heads)
    except ValueError as error:
        raise InputError(f"weights {path} do not fit the {what}: {error}") from error


def _load_features(features: nn.Module, name: str, file: StateFile, path: Path) -> LoadedWeights:
    # As a whole first: so names of wrappers and published names are understood, and another network is refused.
    whole = timm.create_model(name)
    loaded = _load(whole, file, path, classifier_heads(whole), f"backbone {name}")
    state = whole.state_dict()
    known = {_plain(key): key for key in state}
    places = {key: known.get(_plain(key.removeprefix(_WITHIN)), "") for key in features.state_dict()}
    for key, tensor in features.state_dict().items():
        if places[key] not in state or state[places[key]].shape != tensor.shape:
            raise InputError(f"weights {path} cannot be laid into the features of {name}: {key} has no counterpart")
    features.load_state_dict({key: state[place] for key, place in places.items()})
    taken = set(places.values())
    return LoadedWeights(
        loaded=tuple(key for key in loaded.loaded if key in taken),
        kept=tuple(key for key in loaded.kept if key in taken),
        unused=(*(key for key in loaded.loaded if key not in taken), *loaded.unused),
        prefix=loaded.prefix,
    )


def _plain(key: str) -> str:
    """A name that both networks have: timm writes `layers_0` for `layers.0` where stages are features."""
    return key.replace("_", ".")
