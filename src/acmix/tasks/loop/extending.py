"""Runs that go on from another's last state: to more epochs, in a folder of their own."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acmix.errors import InputError
from acmix.tasks.loop import run, states
from acmix.tasks.loop.resuming import EXTENDABLE, changed_conditions
from acmix.tasks.loop.settings import LoopSettings


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a run began that goes on from another.

    Attributes:
        run: The other run's folder.
        epoch: Epochs of the state.
        update: Updates of the next epoch, too.
        digest: SHA-256 of the state's file.
    """

    run: str
    epoch: int
    update: int
    digest: str

    def __str__(self) -> str:
        """In words."""
        within = f" and update {self.update} of the next" if self.update else ""
        return f"{self.run} after epoch {self.epoch}{within} (state {self.digest[:12]})"


def extension(other: Path, config: Mapping[str, Any], settings: LoopSettings) -> tuple[dict[str, Any], Origin]:
    """The state to go on from, without the rows of the other run, and what to write down of it.

    Args:
        other: The folder of a run, finished or not.
        config: What config.json of the new run would be.
        settings: Of the new run.

    Raises:
        InputError: If there is no such run or state, network, data or settings differ that may not, a file of the run
            is damaged, or it is as far as the new run would go.
    """
    if not (other / run.CONFIG).is_file() or not (found := states.paths(other)):
        raise InputError(f"extend {other} is no run with a state; give the --output folder of acmix train")
    saved = run.read_config(other)
    may = {*EXTENDABLE, "weights"}
    if changed := [text for name, text in changed_conditions(saved, config, type(settings)).items() if name not in may]:
        raise InputError(
            f"extend {other} needs its network, data and settings but for {', '.join(EXTENDABLE)}: {'; '.join(changed)}"
        )
    state = states.read(found[-1])
    digest = hashlib.sha256(found[-1].read_bytes()).hexdigest()
    origin = Origin(run=str(other), epoch=state["epoch"], update=state["update"], digest=digest)
    if origin.epoch >= settings.epochs:
        raise InputError(f"epochs must be more than the {origin.epoch} that {other} has trained, got {settings.epochs}")
    return state | {"rows": [], "rates": []}, origin
