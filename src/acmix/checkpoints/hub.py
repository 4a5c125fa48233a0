"""Trained networks in the format of the Hugging Face hub: config.json, model.safetensors, a model card.

Of classifiers it is timm's, which others load, too; of detectors and segmenters config.json holds what our own
checkpoints do.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError

from acmix import records
from acmix.checkpoints import sealed, timm_config
from acmix.checkpoints.cards import model_card
from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.files import WEIGHTS, read_bytes
from acmix.checkpoints.stored import assemble
from acmix.checkpoints.trained import TrainedNetwork, metadata_of
from acmix.errors import InputError, in_one_line
from acmix.records import FIRST_TASK
from acmix.storage import folder_beside, write_atomically

CONFIG, _CARD = "config.json", "README.md"
# The key of config.json that is ours, and within it the digest of all of config.json.
_RECORD, _DIGEST = "acmix", "config_sha256"
# It keeps keys that it does not know, ours too, untrue of the weights that it trained and saves.
_TRANSFORMERS = "transformers_version"
# What timm's keys of config.json say of a classifier.
_TIMM = ("task", "model_name", "model_arguments", "classes", "preprocessing")


def save_pretrained(trained: TrainedNetwork, folder: str | Path, *, license: str | None = None) -> Path:  # noqa: A002
    """Write a trained network as a folder that `from_pretrained` loads, on disk or on the hub, and timm a classifier's.

    With `acmix.models` imported, `timm.create_model("local-dir:FOLDER", pretrained=True)` loads a classifier, and after
    `hf upload USER/NAME FOLDER` so does "hf-hub:USER/NAME". config.json holds the training record as it is, paths of
    training data and start weights included, but for the digests of the images that were trained on. It and
    model.safetensors hold digests: a byte that changes later is noticed.

    Args:
        trained: What to write; its versions are set to the ones running.
        folder: Made if missing. An earlier export is replaced once the new one is complete, other files stay.
        license: Of the weights, in the words of the hub ("apache-2.0", "cc-by-nc-4.0", "other"); the card and
            config.json say nothing of one by default.

    Returns:
        The folder.

    Raises:
        InputError: If folder is a file, cannot be made, or holds a file of one of the three names that acmix did not
            write, or the network has no weights, as an .onnx has none.
        OSError: If a file cannot be written; an earlier export is then untouched.
    """
    folder = Path(folder)
    _check_target(folder)
    weights = trained.model.state_dict()
    if not weights:
        raise InputError("the network's weights are not at hand, an .onnx has none; give the checkpoint it was made of")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {folder} cannot be made: {error.strerror or error}; give another one") from error
    with folder_beside(folder / CONFIG) as temporary:
        write_atomically(temporary / CONFIG, json.dumps(_config_of(trained, temporary / CONFIG, license), indent=2))
        write_atomically(temporary / _CARD, str(model_card(trained, license)))
        (temporary / WEIGHTS).write_bytes(sealed.serialize(weights, {"format": "pt"}))
        # Nothing loads a folder without config.json: whoever stops this midway never gets a mixture.
        (folder / CONFIG).unlink(missing_ok=True)
        for name in (WEIGHTS, _CARD, CONFIG):
            (temporary / name).replace(folder / name)
    return folder


def from_pretrained(source: str | Path) -> TrainedNetwork:
    """Load a trained network from a folder or the hub, onto the CPU, in evaluation mode. Nothing is run or unpickled.

    Args:
        source: A folder that `save_pretrained`, timm's `save_for_hf` or transformers wrote, "local-dir:FOLDER", or
            "hf-hub:USER/NAME", "hf-hub:USER/NAME@REVISION", which is downloaded once.

    Returns:
        The network; its classes are "0", "1", ... where the source names none.

    Raises:
        InputError: If a repository cannot be downloaded, a file is missing or damaged (a digest of config.json or of
            the weights differs, or is gone where acmix wrote them), or config.json and weights contradict each other,
            name an unknown network or arguments other than of its shape and regularisation.
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


def _config_of(trained: TrainedNetwork, file: Path, license: str | None) -> dict[str, Any]:  # noqa: A002
    """What config.json holds, its digest included."""
    # Images that were trained on are the checkpoint's to remember, megabytes that a page of configuration cannot hold.
    training = {key: value for key, value in trained.training.items() if key != "trained_images"}
    record = metadata_of(trained) | {"training": training}
    if isinstance(trained, Classifier):
        config = timm_config.config_of(trained, file, license)
        record = {key: value for key, value in record.items() if key not in _TIMM}
    else:
        licensed: dict[str, Any] = {} if license is None else {"license": license}
        config = {"architecture": trained.model_name} | licensed
    # As it is read again: JSON has no tuples.
    config = json.loads(json.dumps(config | {_RECORD: record}, allow_nan=False))
    config[_RECORD][_DIGEST] = _digest(config)
    return config


def _digest(config: dict[str, Any]) -> str:
    """Of all that config.json says, however it is laid out, but for the digest."""
    record = {key: value for key, value in config[_RECORD].items() if key != _DIGEST}
    text = json.dumps(config | {_RECORD: record}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


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
        reason = in_one_line(error)
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
    """Turn config.json into the metadata of our own checkpoints, which `assemble` checks further.

    Raises:
        InputError: If it contradicts itself, or was changed. The message is the fault alone.
    """
    held = config if isinstance(config, dict) else {}
    ours = held.get(_RECORD) is not None and _TRANSFORMERS not in held
    record = records.value(dict[str, Any] | None, held[_RECORD], _RECORD) if ours else None
    # Folders of acmix before it had one have none.
    if record is not None and record.get(_DIGEST, _digest(config)) != _digest(config):
        raise InputError("its config.json was changed since it was written")
    if record is None or record.get("task", FIRST_TASK) == FIRST_TASK:
        return timm_config.metadata_of(config, record)
    return record
