"""Networks by name, with errors a person can act on."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import timm
from torch import nn

from acmix.accounting import Account, account
from acmix.checkpoints import load_weights
from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.files import read_state_file
from acmix.errors import InputError
from acmix.models.names import check_name
from acmix.tasks.loop.trials import check_input_size


def create_network(name: str, *, num_classes: int | None = None, **options: Any) -> nn.Module:
    """Create a network of timm's registry, ours included, with fresh weights.

    Args:
        name: timm's name, `acmix_resnet26` for instance.
        num_classes: Size of the output; None keeps the network's own.
        **options: Other arguments of the network; None leaves its own, and one that is 0 may be unknown to it: what a
            network does not drop needs no drop_path_rate.

    Raises:
        InputError: If there is no such network, or it does not take an argument.
    """
    check_name(name)
    arguments: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    try:
        return timm.create_model(name, **arguments)
    except TypeError as error:
        if 0 in options.values():
            return create_network(
                name, num_classes=num_classes, **{key: value for key, value in options.items() if value}
            )
        raise InputError(f"model {name!r} does not take {', '.join(arguments)}: {error}") from error


def load_start_weights(model: nn.Module, path: Path) -> str:
    """Load start weights of any trainer, published or ours; heads for another number of classes keep fresh weights.

    Returns:
        What was taken from the file and what was left out, in a sentence.

    Raises:
        InputError: If the file cannot be read or its weights belong to another network; nothing was loaded then.
    """
    configuration: Any = model.pretrained_cfg
    heads = configuration.get("classifier") or ()
    file = read_state_file(path)
    try:
        loaded = load_weights(model, file.tensors, heads=(heads,) if isinstance(heads, str) else heads)
    except ValueError as error:
        raise InputError(f"weights {path} do not fit the model: {error}") from error
    place = f", {file.place}" if file.place else ""
    others = f" (not {', '.join(file.others)})" if file.others else ""
    return f"weights {path}{place}{others}: {loaded}"


def cost(classifier: Classifier, image_size: int | None = None) -> Account:
    """What a classifier costs, see `acmix.tasks.kinds.Kind.cost`."""
    channels, height, width = classifier.preprocessing["input_size"]
    size = (channels, height, width) if image_size is None else (channels, image_size, image_size)
    check_input_size(classifier.model, classifier.model_name, size)
    return account(classifier.model, size)


def multiply_adds(config: Mapping[str, Any]) -> int | None:
    """Of one image, by a run's config.json; None for a network that cannot be made or counted here."""
    return _multiply_adds(config["settings"]["model"], len(config["classes"]), *config["preprocessing"]["input_size"])


@cache
def _multiply_adds(model: str, classes: int, channels: int, height: int, width: int) -> int | None:
    try:
        network = create_network(model, num_classes=classes)
        return account(network, (channels, height, width)).network.total.multiply_adds
    except (InputError, ValueError):
        return None
