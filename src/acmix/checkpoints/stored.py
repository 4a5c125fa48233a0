"""Trained networks of every kind out of files: their metadata say which."""

from pathlib import Path
from typing import Any

from acmix import records
from acmix.checkpoints import sealed
from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.detector import Detector
from acmix.checkpoints.loading import load_weights
from acmix.checkpoints.segmenter import Segmenter
from acmix.checkpoints.trained import FORMAT_VERSION, Format, Metadata, TrainedNetwork, read_trained, unusable
from acmix.errors import InputError, in_one_line

KINDS: dict[str, type[TrainedNetwork]] = {kind.task: kind for kind in (Classifier, Detector, Segmenter)}


def load_trained(path: str | Path) -> TrainedNetwork:
    """Read what `save_trained` wrote, onto the CPU, in evaluation mode.

    Raises:
        InputError: If the file is missing, truncated, changed in any byte, not a safetensors file, not a trained
            network, of a newer format, or contradicts itself (metadata of the wrong type, an unknown network, weights
            of another network).
    """
    metadata, content = read_trained(Path(path))
    try:
        return assemble(metadata, content)
    except InputError as fault:
        raise unusable(path, fault) from fault


def assemble(content: Any, weights: sealed.Content) -> TrainedNetwork:
    """Make a trained network of metadata that nobody has checked, on the CPU, in evaluation mode.

    Args:
        content: What `save_trained` stores beside the weights.
        weights: Exactly the network's weights; with digests, unless the metadata are of a version that had none.

    Raises:
        InputError: If the metadata breaks its rules, the weights are of another network or without their digests. The
            message is the fault alone: the caller knows where both came from.
    """
    kind, metadata = read_metadata(content)
    metadata = kind.check(metadata)
    if metadata.format_version > 1 and not weights.sealed:
        raise InputError("its digests are gone: it was changed since it was written")
    try:
        trained = kind.build(metadata)
        load_weights(trained.model, weights.tensors)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        reason = in_one_line(error)
        raise InputError(f"its weights or arguments do not fit {metadata.model_name}: {reason}") from error
    trained.model.eval()
    return trained


def read_metadata(content: Any) -> tuple[type[TrainedNetwork], Metadata]:
    """The kind that metadata are of, and all of them.

    Raises:
        InputError: If they are of a newer format or kind, or a part has the wrong type. The message is the fault alone.
    """
    # Another version may hold other parts.
    found = records.read(Format, content, others=True)
    if not 1 <= found.format_version <= FORMAT_VERSION:
        raise InputError(
            f"it has format version {found.format_version}, this acmix reads 1 to {FORMAT_VERSION} (upgrade acmix)"
        )
    if found.task not in KINDS:
        raise InputError(f"it is of the task {found.task!r}, this acmix knows {', '.join(KINDS)} (upgrade acmix)")
    return KINDS[found.task], records.read(Metadata, content, others=True)
