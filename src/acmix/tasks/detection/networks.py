"""Detectors by settings, and start weights for them."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from acmix.accounting import Account, account
from acmix.checkpoints.detector import Detector
from acmix.errors import InputError, first_line
from acmix.models.dense import EveryPart
from acmix.models.detectors import DetectionNetwork, DetectorArguments, backbone_defaults, create_detector
from acmix.paths import operators_of
from acmix.tasks.detection.settings import Settings
from acmix.tasks.loop.fields import settings_of
from acmix.tasks.loop.placement import stages_of
from acmix.tasks.loop.recipes import resolve
from acmix.tasks.loop.start_weights import load_own_or_backbone

# torchvision continues sides of images to multiples of this.
_MULTIPLE = 32
# Where the layers of the backbone lie.
_BODY = "detector.backbone.body."
# Answers for another number of classes keep fresh weights.
_HEADS = (
    "detector.head.classification_head.cls_logits",
    "detector.roi_heads.box_predictor.cls_score",
    "detector.roi_heads.box_predictor.bbox_pred",
    "detector.roi_heads.mask_predictor.mask_fcn_logits",
)


def arguments_for(settings: Settings, **options: Any) -> DetectorArguments:
    """What settings say of the network; options are other arguments of the backbone."""
    known = {each.name for each in fields(DetectorArguments)} & settings_of(Settings).keys()
    arguments: dict[str, Any] = {name: getattr(settings, name) for name in known}
    arguments |= backbone_defaults(settings.backbone)
    named = {"drop_path_rate": settings.drop_path, "acmix_stages": stages_of(settings.acmix_stages)}
    own = {name: value for name, value in named.items() if value is not None}
    return DetectorArguments(**arguments, backbone_arguments=own | options)


def fresh_network(settings: Settings, classes: int, **options: Any) -> DetectionNetwork:
    """The network that settings ask for, not tried; options are other arguments of the backbone.

    Raises:
        InputError: If there is no such network, it does not take what the settings ask for, or its pyramid does not
            reach stages that they name.
    """
    arguments = arguments_for(settings, **options)
    network = create_detector(settings.model, classes, arguments)
    found = {name.removeprefix(_BODY).split(".")[0] for name in operators_of(network)}
    wanted = arguments.backbone_arguments.get("acmix_stages", ())
    if unused := [stage for stage in wanted if f"layer{stage}" not in found]:
        raise InputError(
            f"acmix_stages cannot have {unused[0]}: the pyramid does not use that stage of {settings.backbone!r}; "
            "choose others, or more pyramid_levels"
        )
    return network


def fresh_detector(settings: Settings, classes: int) -> DetectionNetwork:
    """The network that settings ask for.

    Raises:
        InputError: If there is no such network, it does not take what the settings ask for, or its backbone takes no
            images of such sizes.
    """
    network = fresh_network(settings, classes)
    network.eval()
    # Sides differ from image to image.
    sides = [
        _MULTIPLE * -(-side // _MULTIPLE)
        for side in (settings.image_size, min(settings.longest_side, 2 * settings.image_size))
    ]
    try:
        with torch.no_grad(), torch.device("cpu"):
            network.backbone(torch.zeros(1, 3, min(sides), min(sides[1], min(sides) + 32)))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = first_line(error)
        raise InputError(
            f"backbone {settings.backbone!r} does not take images of every size, which detection has: {reason}; "
            "choose another one"
        ) from error
    return network


def freeze_norms(network: DetectionNetwork) -> None:
    """Let the batch norms of the backbone stay as they are; what learns nothing is in evaluation mode."""
    for module in network.backbone.body.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.requires_grad_(False)


def load_start_weights(network: DetectionNetwork, path: Path) -> str:
    """Load start weights: those of a detector, ours, or of a classifier, ours, published or of another trainer.

    A classifier's go into the backbone; its head is not used. Answers for another number of classes keep fresh weights.

    Returns:
        What was taken from the file and what was left out, in a sentence.

    Raises:
        InputError: If the file cannot be read or its weights belong to another network; nothing was loaded then.
    """
    backbone: Any = network.backbone
    return load_own_or_backbone(
        network, path, heads=_HEADS, own="detector", features=backbone.body, backbone=backbone.name
    )


def on_images(network: DetectionNetwork) -> nn.Module:
    """See `acmix.tasks.kinds.Kind.on_images`: backbone, pyramid and heads, not what is made of their answers."""
    return EveryPart(network)


def input_size(detector: Detector) -> tuple[int, int, int]:
    """See `acmix.tasks.kinds.Kind.input_size`: square."""
    return _square(detector.preprocessing["image_size"])


def cost(detector: Detector, image_size: int | None = None) -> Account:
    """What a detector costs, with as many proposals and masks as it can have; see `acmix.tasks.kinds.Kind.cost`."""
    side = detector.preprocessing["image_size"] if image_size is None else image_size
    network: Any = detector.model
    return _cost(network, detector.network, side)


def _square(side: int) -> tuple[int, int, int]:
    """As torchvision continues images."""
    continued = _MULTIPLE * -(-side // _MULTIPLE)
    return 3, continued, continued


def _cost(network: DetectionNetwork, name: str, side: int) -> Account:
    size = _square(side)
    try:
        return account(on_images(network), size)
    except (RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise InputError(f"model {name!r} does not accept images of {size[1]} x {size[2]}: {reason}") from error


def multiply_adds(config: Mapping[str, Any]) -> int | None:
    """Of one square image, by a run's config.json; None for a network that cannot be made or counted here."""
    try:
        settings = resolve({}, config["settings"], Settings)
        network = fresh_network(settings, len(config["classes"]))
        return _cost(network, settings.network, settings.image_size).network.total.multiply_adds
    except InputError:
        return None
