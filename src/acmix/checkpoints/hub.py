"""Classifiers in the format of the Hugging Face hub, which is timm's: config.json, model.safetensors, a model card."""

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData, snapshot_download
from huggingface_hub.errors import HTTPError
from timm.data import resolve_data_config
from torch import nn

from acmix import records
from acmix.checkpoints import sealed
from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.files import WEIGHTS, read_bytes
from acmix.checkpoints.stored import assemble
from acmix.checkpoints.trained import TrainedNetwork, running_versions
from acmix.errors import InputError
from acmix.storage import folder_beside, write_atomically

CONFIG, _CARD = "config.json", "README.md"
# The key of config.json that is ours; everything else is timm's.
_RECORD = "acmix"
# It keeps keys that it does not know, ours too, untrue of the weights that it trained and saves.
_TRANSFORMERS = "transformers_version"
# What timm knows of the weights a network began with, untrue of those it has now.
_OUTDATED = (
    *("tag", "custom_load", "test_input_size", "test_crop_pct"),
    *("label_names", "label_descriptions", "label_offset"),
)
_ONE, _SEVERAL = "single_label_classification", "multi_label_classification"
_USE = """\
## Use

With timm:

```python
import acmix.models  # registers its networks with timm
import timm

model = timm.create_model("hf-hub:USER/NAME", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
logits = model(transform(image).unsqueeze(0))  # image: of PIL, RGB
```

With acmix:

```python
import acmix

network = acmix.load("hf-hub:USER/NAME")  # or a folder
labels, probabilities = network.predict(image)  # also of paths, arrays, several
print(labels[0])
```"""
_USE_LABELS = _USE.replace(
    "logits = model(transform(image).unsqueeze(0))", "probabilities = model(transform(image).unsqueeze(0)).sigmoid()"
).replace("print(labels[0])", "print(labels[0])  # those above 0.5, a tuple")
_KINDS = ("An image classifier", "A classifier of images that may have any number of the labels, each by itself,")


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
    acmix: dict[str, Any] | None = None


def save_pretrained(classifier: Classifier, folder: str | Path, *, license: str | None = None) -> Path:  # noqa: A002
    """Write a classifier as a folder that timm and `from_pretrained` load, on disk or on the hub.

    With `acmix.models` imported, `timm.create_model("local-dir:FOLDER", pretrained=True)` loads it, and after
    `hf upload USER/NAME FOLDER` so does "hf-hub:USER/NAME". config.json holds the training record as it is, paths of
    training data and start weights included, but for the digests of the
    images that were trained on. model.safetensors holds digests: a byte that changes later is noticed.

    Args:
        classifier: What to write; its versions are set to the ones running.
        folder: Made if missing. An earlier export is replaced once the new one is complete, other files stay.
        license: Of the weights, in the words of the hub ("apache-2.0", "cc-by-nc-4.0", "other"); the card and
            config.json say nothing of one by default.

    Returns:
        The folder.

    Raises:
        InputError: If folder is a file, cannot be made, or holds a file of one of the three names that acmix did not
            write.
        OSError: If a file cannot be written; an earlier export is then untouched.
    """
    folder = Path(folder)
    _check_target(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {folder} cannot be made: {error.strerror or error}; give another one") from error
    model = _described(classifier, license)
    # Images that were trained on are the checkpoint's to remember, megabytes that a page of configuration cannot hold.
    training = {key: value for key, value in classifier.training.items() if key != "trained_images"}
    record = {"format_version": classifier.format_version, "training": training, "versions": running_versions()}
    record |= classifier.marks
    # As transformers calls them.
    kind = {"problem_type": _SEVERAL if classifier.multi_label else _ONE}
    with folder_beside(folder / CONFIG) as temporary:
        # timm's own weights stay behind; these have digests, which timm and others read as ever.
        timm.models.save_for_hf(
            model, str(temporary), model_config={"label_names": classifier.classes, _RECORD: record} | kind
        )
        config: Any = records.parse((temporary / CONFIG).read_bytes())
        # timm adds what its factory was told: how weights began, which nobody loads, and the number of classes again,
        # which transformers refuses there.
        config["model_args"] = classifier.model_arguments
        write_atomically(temporary / CONFIG, json.dumps(config, indent=2))
        write_atomically(temporary / _CARD, str(_model_card(classifier, license)))
        (temporary / WEIGHTS).write_bytes(sealed.serialize(model.state_dict(), {"format": "pt"}))
        # Nothing loads a folder without config.json: whoever stops this midway never gets a mixture.
        (folder / CONFIG).unlink(missing_ok=True)
        for name in (WEIGHTS, _CARD, CONFIG):
            (temporary / name).replace(folder / name)
    return folder


def from_pretrained(source: str | Path) -> TrainedNetwork:
    """Load a classifier from a folder or the hub, onto the CPU, in evaluation mode. Nothing is run or unpickled.

    Args:
        source: A folder that `save_pretrained`, timm's `save_for_hf` or transformers wrote, "local-dir:FOLDER", or
            "hf-hub:USER/NAME", "hf-hub:USER/NAME@REVISION", which is downloaded once.

    Returns:
        The classifier; its classes are "0", "1", ... where the source names none.

    Raises:
        InputError: If a repository cannot be downloaded, a file is missing or damaged (a digest of the weights
            differs, or is gone where acmix wrote them), or config.json and weights contradict each other, name an
            unknown network or arguments other than of its shape and regularisation.
    """
    folder = _find(source)
    config = _read_config(source, folder)
    weights = read_bytes(folder / WEIGHTS, "weights")
    try:
        return assemble(_metadata(config), sealed.deserialize(weights))
    except InputError as fault:
        raise InputError(f"{source} cannot be used: {fault}; give one that save_pretrained wrote") from fault


def _check_target(folder: Path) -> None:
    """Refuse to replace what acmix did not write."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"folder {folder} is a file; give a folder")
    held = [name for name in (CONFIG, WEIGHTS, _CARD) if (folder / name).exists()]
    try:
        config = records.parse((folder / CONFIG).read_bytes()) if held else {}
        ours = _RECORD in config and _TRANSFORMERS not in config
    except (OSError, ValueError, TypeError):
        ours = False
    if held and not ours:
        raise InputError(
            f"folder {folder} must be empty or an earlier export, it holds a {held[0]} that acmix did not write; "
            "give another one"
        )


def _described(classifier: Classifier, license: str | None) -> nn.Module:  # noqa: A002
    """A copy of the network as safetensors wants it, configured as the classifier it has become."""
    model: Any = copy.deepcopy(classifier.model)
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
    return model


def _model_card(classifier: Classifier, license: str | None) -> ModelCard:  # noqa: A002
    training = classifier.training
    several = classifier.multi_label
    column, metric, title = ("val_map", "mAP", "") if several else ("val_top1", "accuracy", " top-1")
    best = training.get("metrics", {}).get(column)
    # Names alone: a published page need not tell where on a disk they lie.
    data = Path(training.get("data", {}).get("location", "unknown")).name
    start = training.get("weights", "unknown")
    result = EvalResult(
        task_type="image-classification",
        dataset_type=data,
        dataset_name=data,
        dataset_split="validation",
        metric_type=metric,
        metric_value=best,
    )
    head = ModelCardData(
        library_name="timm",
        license=license,
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "acmix", *(["multi-label"] if several else [])],
        model_name=classifier.model_name,
        eval_results=None if best is None else [result],
    )
    preprocessing = classifier.preprocessing
    facts = {
        "Network": f"`{classifier.model_name}`, {sum(p.numel() for p in classifier.model.parameters()):,} parameters",
        "Input": f"RGB, {' x '.join(map(str, preprocessing['input_size']))}",
        "Preprocessing": ", ".join(f"{key} {item}" for key, item in preprocessing.items() if key != "input_size"),
        "Trained on": f"`{data}`",
        "Started from": "fresh weights" if start is None else f"`{Path(start).name}`",
        f"Validation {metric}": "unknown" if best is None else f"{best:.2%}{title}",
        "Exported by": ", ".join(f"{library} {version}" for library, version in running_versions().items()),
    }
    record = {key: training[key] for key in ("settings", "metrics") if key in training}
    text = [
        f"# {classifier.model_name} for {len(classifier.classes)} {'labels' if several else 'classes'}",
        f"{_KINDS[several]} in timm's format, exported by acmix, an implementation of "
        "[ACmix](https://arxiv.org/abs/2111.14556): convolution and self-attention in one operator.",
        "\n".join(f"- **{name}:** {fact}" for name, fact in facts.items()),
        _USE_LABELS if several else _USE,
        "## Classes",
        _code_block(classifier.classes, indent=None),
        "## Training",
        _code_block(record, indent=2),
    ]
    return ModelCard(f"---\n{head.to_yaml()}\n---\n\n" + "\n\n".join(text) + "\n")


def _code_block(content: Any, indent: int | None) -> str:
    # JSON escapes line ends, so that no name can end the block.
    return f"```json\n{json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)}\n```"


def _find(source: str | Path) -> Path:
    """The folder that is meant, downloaded if it is on the hub."""
    scheme, _, name = str(source).partition(":")
    if scheme == "local-dir":
        return Path(name)
    if scheme != "hf-hub":
        return Path(source)
    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=[CONFIG, WEIGHTS]))
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{source} cannot be downloaded: {reason}; check the name and the network, and log in to a private "
            "repository with hf auth login"
        ) from error


def _read_config(source: str | Path, folder: Path) -> Any:
    if not folder.is_dir():
        raise InputError(f"{source} is not a folder; give one that save_pretrained wrote, or hf-hub:USER/NAME")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(
                f"{source} has no {name}; give a folder or repository that save_pretrained wrote, or timm's "
                "save_for_hf with safe_serialization=True"
            )
    try:
        return records.parse((folder / CONFIG).read_bytes())
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror or error}; check its permissions") from error
    except InputError as fault:
        raise InputError(f"{source} is damaged: its config.json is {fault}; write or download it again") from fault


def _metadata(config: Any) -> dict[str, Any]:
    """Turn timm's config.json into the metadata of our own checkpoints, which `assemble` checks further.

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
    record = unsealed if found.acmix is None or _TRANSFORMERS in config else found.acmix
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
