"""Detectors by settings, and start weights for them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from acmix.accounting import Account, account
from acmix.checkpoints import load_weights
from acmix.checkpoints.detector import Detector
from acmix.checkpoints.files import read_state_file
from acmix.checkpoints.loading import LoadedWeights
from acmix.errors import InputError
from acmix.models.dense import EveryPart
from acmix.models.detectors import DetectionNetwork, DetectorArguments, backbone_defaults, create_detector
from acmix.tasks.detection.settings import Settings
from acmix.tasks.loop.recipes import resolve

# What the state dict of a detector has and that of a backbone has not.
_DETECTOR = "detector."
# torchvision continues sides of images to multiples of this.
_MULTIPLE = 32
# Answers for another number of classes keep fresh weights.
_HEADS = (
    "detector.head.classification_head.cls_logits",
    "detector.roi_heads.box_predictor.cls_score",
    "detector.roi_heads.box_predictor.bbox_pred",
    "detector.roi_heads.mask_predictor.mask_fcn_logits",
)


def arguments_for(settings: Settings) -> DetectorArguments:
    """What settings say of the network."""
    dropped: dict[str, Any] = {} if settings.drop_path is None else {"drop_path_rate": settings.drop_path}
    return DetectorArguments(
        backbone=settings.backbone,
        backbone_arguments=dropped,
        pyramid_channels=settings.pyramid_channels,
        finest_stride=settings.finest_stride,
        pyramid_levels=settings.pyramid_levels,
        head_convolutions=settings.head_convolutions,
        anchor_scale=settings.anchor_scale,
        anchor_octaves=settings.anchor_octaves,
        image_size=settings.image_size,
        longest_side=settings.longest_side,
        score_threshold=settings.score_threshold,
        overlap=settings.overlap,
        most_detections=settings.most_detections,
        **backbone_defaults(settings.backbone),
    )


def fresh_detector(settings: Settings, classes: int) -> tuple[DetectionNetwork, DetectorArguments]:
    """The network that settings ask for, and what builds it again.

    Raises:
        InputError: If there is no such network, it does not take what the settings ask for, or its backbone takes no
            images of such sizes.
    """
    arguments = arguments_for(settings)
    network = create_detector(settings.model, classes, arguments)
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
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"backbone {settings.backbone!r} does not take images of every size, which detection has: {reason}; "
            "choose another one"
        ) from error
    return network, arguments


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
    file = read_state_file(path)
    place = f", {file.place}" if file.place else ""
    others = f" (not {', '.join(file.others)})" if file.others else ""
    try:
        if any(name.startswith(_DETECTOR) for name in file.tensors):
            loaded, into = load_weights(network, file.tensors, heads=_HEADS), ""
        else:
            loaded, into = _into_backbone(network, file.tensors), " into the backbone"
    except ValueError as error:
        raise InputError(f"weights {path} do not fit the model: {error}") from error
    return f"weights {path}{place}{others}{into}: {loaded}"


def _into_backbone(network: DetectionNetwork, tensors: Mapping[str, Tensor]) -> LoadedWeights:
    """Load a classifier's weights into the network that gives features: what it has not is the classifier's head.

    Raises:
        ValueError: If they are of another network.
    """
    name = network.backbone.name
    body: Any = network.backbone.body
    whole = timm.create_model(name)
    configuration: Any = whole.pretrained_cfg
    heads = configuration.get("classifier") or ()
    # As a whole first: so names of wrappers and published names are understood, and another network is refused.
    loaded = load_weights(whole, tensors, heads=(heads,) if isinstance(heads, str) else heads)
    known = {each.replace(".", "_"): each for each in whole.state_dict()}
    own = {key: known.get(key.removeprefix("model.").replace(".", "_")) for key in body.state_dict()}
    state = whole.state_dict()
    kept = set(loaded.kept)
    body.load_state_dict(
        {key: state[each] for key, each in own.items() if each is not None and each not in kept}, strict=False
    )
    unused = tuple(each for each in loaded.loaded if each not in own.values())
    return LoadedWeights(
        loaded=tuple(each for each in loaded.loaded if each in own.values()),
        kept=tuple(each for each in loaded.kept if each in own.values())
        + tuple(key for key, each in own.items() if each is None),
        unused=(*unused, *loaded.unused),
        prefix=loaded.prefix,
    )


def cost(detector: Detector, image_size: int | None = None) -> Account:
    """What a detector costs, with as many proposals and masks as it can have; see `acmix.tasks.kinds.Kind.cost`."""
    side = detector.preprocessing["image_size"] if image_size is None else image_size
    network: Any = detector.model
    return _cost(network, detector.network, side)


def _cost(network: DetectionNetwork, name: str, side: int) -> Account:
    # As torchvision continues images.
    side = _MULTIPLE * -(-side // _MULTIPLE)
    try:
        return account(EveryPart(network), (3, side, side))
    except ValueError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"model {name!r} does not accept images of {side} x {side}: {reason}") from error


def multiply_adds(config: Mapping[str, Any]) -> int | None:
    """Of one square image, by a run's config.json; None for a network that cannot be made or counted here."""
    try:
        settings = resolve({}, config["settings"], Settings)
        network = create_detector(settings.model, len(config["classes"]), arguments_for(settings))
        return _cost(network, settings.network, settings.image_size).network.total.multiply_adds
    except InputError:
        return None
