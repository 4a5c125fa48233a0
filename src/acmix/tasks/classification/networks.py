"""Networks by name, with errors a person can act on."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import timm
from torch import nn

from acmix.accounting import Account, account, network_cost
from acmix.checkpoints.classifier import Classifier
from acmix.errors import InputError
from acmix.models.names import check_name, unknown_argument
from acmix.tasks.classification.settings import Settings
from acmix.tasks.loop.placement import stages_of
from acmix.tasks.loop.start_weights import classifier_heads, load_own
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
                name, num_classes=num_classes, **{key: value for key, value in options.items() if value != 0}
            )
        reason = f"takes no {unknown}" if (unknown := unknown_argument(error)) else f"cannot be made: {error}"
        raise InputError(f"model {name!r} {reason}; leave it out, or choose another model") from error


def arguments_of(settings: Settings) -> dict[str, Any]:
    """Arguments of the network that a checkpoint must repeat to build it."""
    arguments: dict[str, Any] = {"block_args": {"quiet_shifts": True}} if settings.quiet_shifts else {}
    if (stages := stages_of(settings.acmix_stages)) is not None:
        arguments["acmix_stages"] = stages
    return arguments


def fresh_network(settings: Settings, classes: int, **options: Any) -> nn.Module:
    """The network that settings ask for; options are other arguments of it.

    Raises:
        InputError: If there is no such network, or it does not take what the settings ask for.
    """
    dropped = {"drop_rate": settings.drop_rate, "drop_path_rate": settings.drop_path}
    return create_network(settings.model, num_classes=classes, **dropped, **arguments_of(settings), **options)


def check_network(settings: Settings) -> None:
    """Raise InputError if there is no network of the model's name."""
    check_name(settings.model)


def load_start_weights(model: nn.Module, path: Path) -> str:
    """Load start weights of any trainer, published or ours; heads for another number of classes keep fresh weights.

    Returns:
        What was taken from the file and what was left out, in a sentence.

    Raises:
        InputError: If the file cannot be read or its weights belong to another network; nothing was loaded then.
    """
    return load_own(model, path, heads=classifier_heads(model))


def on_images(network: nn.Module) -> nn.Module:
    """See `acmix.tasks.kinds.Kind.on_images`: all of it."""
    return network


def input_size(classifier: Classifier) -> tuple[int, int, int]:
    """See `acmix.tasks.kinds.Kind.input_size`."""
    return classifier.preprocessing["input_size"]


def cost(classifier: Classifier, image_size: int | None = None) -> Account:
    """What a classifier costs, see `acmix.tasks.kinds.Kind.cost`."""
    channels, height, width = input_size(classifier)
    size = (channels, height, width) if image_size is None else (channels, image_size, image_size)
    check_input_size(classifier.model, classifier.model_name, size)
    return account(classifier.model, size)


def multiply_adds(config: Mapping[str, Any]) -> int | None:
    """Of one image, by a run's config.json; None for a network that cannot be made or counted here."""
    settings, size = config["settings"], config["preprocessing"]["input_size"]
    return _multiply_adds(settings["model"], settings.get("acmix_stages"), len(config["classes"]), *size)


@cache
def _multiply_adds(
    model: str, stages: int | str | None, classes: int, channels: int, height: int, width: int
) -> int | None:
    try:
        network = create_network(model, num_classes=classes, acmix_stages=stages_of(stages))
        return network_cost(network, (channels, height, width)).total.multiply_adds
    except ValueError:
        return None
