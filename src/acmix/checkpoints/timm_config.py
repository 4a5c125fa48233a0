"""Classifiers as config.json of timm's format describes them."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config

from acmix import records
from acmix.checkpoints.classifier import Classifier
from acmix.errors import InputError
from acmix.storage import folder_beside

# What timm knows of the weights a network began with, untrue of those it has now.
_OUTDATED = (
    *("tag", "custom_load", "test_input_size", "test_crop_pct"),
    *("label_names", "label_descriptions", "label_offset"),
)
_ONE, _SEVERAL = "single_label_classification", "multi_label_classification"


@dataclass(frozen=True)
class _Described:
    """What of timm's config.json, or its pretrained_cfg, tells the classes."""

    num_classes: int | None = None
    label_names: list[str] | dict[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class _Config(_Described):
    """What of timm's config.json is read."""

    architecture: str
    pretrained_cfg: dict[str, Any]
    model_args: dict[str, Any] = field(default_factory=dict)
    problem_type: str | None = None


def config_of(classifier: Classifier, beside: Path, license: str | None) -> dict[str, Any]:  # noqa: A002
    """What timm's config.json says of a classifier.

    Args:
        classifier: To describe.
        beside: timm writes before it is read: in a folder beside this file, which goes again.
        license: Of the weights; None says nothing of one.
    """
    model: Any = copy.deepcopy(classifier.model)
    # As safetensors wants it.
    model.to("cpu", memory_format=torch.contiguous_format)
    origin = model.pretrained_cfg
    model.pretrained_cfg = {
        **origin,
        **dict.fromkeys(_OUTDATED),
        **classifier.preprocessing,
        "num_classes": len(classifier.classes),
        # That of the network's first weights, if it had any, is not that of these.
        "license": license,
    }
    if tuple(origin["input_size"]) != tuple(classifier.preprocessing["input_size"]):
        model.pretrained_cfg["pool_size"] = None
    # As transformers calls them.
    kind = {"problem_type": _SEVERAL if classifier.multi_label else _ONE}
    with folder_beside(beside) as folder:
        timm.models.save_for_hf(model, str(folder), model_config={"label_names": classifier.classes} | kind)
        config: Any = records.parse((folder / "config.json").read_bytes())
    # timm adds what its factory was told: how weights began, which nobody loads, and the number of classes again,
    # which transformers refuses there.
    return config | {"model_args": classifier.model_arguments}


def metadata_of(config: Any, record: dict[str, Any] | None) -> dict[str, Any]:
    """Turn timm's config.json into the metadata of our own checkpoints, which `stored.assemble` checks further.

    Args:
        config: Of anybody, parsed.
        record: What acmix wrote into it; None if it did not, or another program has saved weights of its own since.

    Raises:
        InputError: If it lacks what timm needs too, or contradicts itself. The message is the fault alone.
    """
    try:
        found = records.read(_Config, config, others=True)
        described = records.value(_Described, found.pretrained_cfg, "pretrained_cfg", others=True)
    except InputError as fault:
        raise InputError(f"its config.json is not timm's: {fault}") from fault
    if not found.pretrained_cfg:
        raise InputError("its config.json is not timm's: pretrained_cfg is empty")
    number = described.num_classes if found.num_classes is None else found.num_classes
    if number is None or number < 1:
        raise InputError(f"num_classes must be at least 1, got {number!r}")
    arguments = {"num_classes": number, **found.model_args}
    if (told := arguments.pop("num_classes")) != number:
        raise InputError(f"num_classes is {number}, but {told!r} in model_args")
    names = found.label_names or described.label_names or {}
    if isinstance(names, dict):
        names = [names.get(str(index), str(index)) for index in range(number)]
    if len(names) != number:
        raise InputError(f"num_classes is {number}, but label_names holds {len(names)}")
    # timm's own weights have no digests, as in version 1.
    unsealed: dict[str, Any] = {"format_version": 1, "training": {}, "versions": {}}
    unsealed |= {"multi_label": True} if found.problem_type == _SEVERAL else {}
    record = unsealed if record is None else record
    if found.problem_type not in (None, _SEVERAL if record.get("multi_label") else _ONE):
        raise InputError(
            f"its problem_type is {found.problem_type!r}, and its record says otherwise, or it is no classifier"
        )
    return {
        **record,
        "model_name": found.architecture,
        "model_arguments": arguments,
        "classes": names,
        "preprocessing": resolve_data_config({}, pretrained_cfg=found.pretrained_cfg),
    }
