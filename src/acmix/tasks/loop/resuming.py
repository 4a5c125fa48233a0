"""Whether a run may go on: under the settings and with the data that it began with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acmix.errors import InputError
from acmix.tasks.loop import run, states
from acmix.tasks.loop.fields import defaults
from acmix.tasks.loop.settings import LoopSettings

# What a run's record says of its data by fingerprints, in words.
_FINGERPRINTS = {
    "fingerprint": "training images",
    "validation_fingerprint": "validation images",
    "contents": "contents of images",
}


# What may be other in a run that goes on from another's state: how long it is, and its schedule.
EXTENDABLE = (
    "epochs",
    "learning_rate",
    "warmup_epochs",
    "warmup_start",
    "patience",
    "most_failures",
    "most_unreadable",
)


def resumable_state(output: Path, config: Mapping[str, Any], kind: type[LoopSettings]) -> dict[str, Any]:
    """The state to continue from; a run is not continued under other settings, with other data, from a damaged file.

    Data are told by their fingerprints, and by their contents where both runs read them: they may lie elsewhere now.

    Args:
        output: The run folder.
        config: What config.json would be if the run began now.
        kind: Whose settings they are.

    Raises:
        InputError: If settings or data differ, or a file of the run is damaged.
    """
    saved = run.read_config(output)
    if changed := changed_conditions(saved, config, kind):
        advice = ""
        if changed.keys() <= {*EXTENDABLE}:
            own = {name: config["settings"][name] for name in changed}
            advice = f"; a run of its own can have that: {run.extending(output, saved, own)}"
        raise InputError(
            f"resume needs the settings and data the run began with: {'; '.join(changed.values())}{advice}"
        )
    return states.read(states.paths(output)[-1])


def changed_conditions(saved: Mapping[str, Any], config: Mapping[str, Any], kind: type[LoopSettings]) -> dict[str, str]:
    """What is not as it was in a run, in words by name.

    Args:
        saved: Its config.json, of `run.read_config`.
        config: What config.json would be of a run that began now.
        kind: Whose settings they are.
    """
    now, before = _conditions(config), _conditions({**saved, "settings": defaults(kind) | saved["settings"]})
    # What the run did not record was not known then: images that were not read, or to a version before this.
    return {
        name: f"the {_FINGERPRINTS[name]} are others"
        if name in _FINGERPRINTS
        else f"{name} was {before.get(name)}, is {value}"
        for name, value in now.items()
        if before.get(name) != value and (name in before or name not in _FINGERPRINTS)
    }


def _conditions(config: Mapping[str, Any]) -> dict[str, Any]:
    """What must be as it was when a run is resumed: the data themselves, wherever they lie."""
    data = {name: value for name, value in config["data"].items() if name not in ("location", "validation_location")}
    counted = {name: config.get(name) for name in ("weights", "processes", "train_images", "validation_images")}
    contents: dict[str, str] = {} if config.get("contents") is None else {"contents": config["contents"]}
    return config["settings"] | data | counted | contents
