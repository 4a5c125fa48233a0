"""Segmenters as settings ask for them, with errors a person can act on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from acmix.accounting import Account, account, network_cost
from acmix.checkpoints import segmenter as trained
from acmix.models.segmenters import Segmenter, segmenter
from acmix.tasks.loop.recipes import resolve
from acmix.tasks.loop.start_weights import load_own_or_backbone
from acmix.tasks.loop.trials import check_input_size
from acmix.tasks.segmentation.settings import Settings

# Answers for other classes keep fresh weights.
_HEAD = "network.segmentation_head.0"


def arguments_of(settings: Settings) -> dict[str, Any]:
    """Arguments of `acmix.models.segmenters.segmenter` that a checkpoint must repeat to build the network."""
    arguments: dict[str, Any] = {"backbone": settings.backbone, "decoder_channels": settings.decoder_channels}
    if settings.output_stride is not None:
        arguments["output_stride"] = settings.output_stride
    if settings.quiet_shifts:
        arguments["block_args"] = {"quiet_shifts": True}
    return arguments


def fresh_network(settings: Settings, classes: int) -> Segmenter:
    """The network that settings ask for.

    Raises:
        InputError: As `segmenter`.
    """
    return segmenter(
        settings.model,
        num_classes=classes,
        drop_rate=settings.drop_rate,
        drop_path_rate=settings.drop_path,
        **arguments_of(settings),
    )


def check_network(settings: Settings) -> None:
    """Make the network once, without storage, before images are read.

    Raises:
        InputError: As `fresh_network`.
        ModuleNotFoundError: If segmentation-models-pytorch is missing.
    """
    with torch.device("meta"):
        fresh_network(settings, 2)


def load_start_weights(network: Segmenter, path: Path) -> str:
    """Load start weights of a segmenter, whose head may be of other classes, or of a classifier into the backbone.

    Returns:
        What was taken from the file and what was left out, in a sentence.

    Raises:
        InputError: If the file cannot be read or its weights belong to another network; nothing was loaded then.
    """
    return load_own_or_backbone(
        network, path, heads=(_HEAD,), own="network.encoder", features=network.backbone, backbone=network.name
    )


def cost(segmenter: trained.Segmenter, image_size: int | None = None) -> Account:
    """What a segmenter costs, by default for a crop of training; see `acmix.tasks.kinds.Kind.cost`."""
    channels, height, width = segmenter.preprocessing["input_size"]
    size = (channels, height, width) if image_size is None else (channels, image_size, image_size)
    check_input_size(segmenter.model, segmenter.network, size)
    return account(segmenter.model, size)


def multiply_adds(config: Mapping[str, Any]) -> int | None:
    """Of one crop of training, by a run's config.json; None for a network that cannot be made or counted here."""
    try:
        network = fresh_network(resolve({}, config["settings"], Settings), len(config["classes"]))
        return network_cost(network, config["preprocessing"]["input_size"]).total.multiply_adds
    except ValueError:
        return None
