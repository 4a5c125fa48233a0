"""Train what is prepared, in a run folder that exists."""

from collections.abc import Mapping
from typing import Any

from lightning.fabric import Fabric

from acmix.errors import InputError
from acmix.tasks.loop.failures import explained
from acmix.tasks.loop.prepared import Prepared
from acmix.tasks.loop.progress import Reporting
from acmix.tasks.loop.run import RunFiles
from acmix.tasks.loop.training import Training


def execute(
    prepared: Prepared, fabric: Fabric, files: RunFiles, state: Mapping[str, Any] | None, reporting: Reporting
) -> None:
    """Train to the last epoch.

    Args:
        prepared: What is trained.
        fabric: The processes that train, launched.
        files: What is written in the run folder.
        state: Of `acmix.tasks.loop.states`, to continue from; None begins.
        reporting: Whom to tell of progress, and how often to save.

    Raises:
        InputError: If the state is of another version.
        TrainingError: If the run had to stop, `PreemptedError` because a scheduler asked it to.
        KeyboardInterrupt: If the person stops it.
    """
    task, batches = prepared.task(fabric.device), prepared.batches(fabric)
    training = Training(fabric, prepared.trained.model, task, batches, prepared.settings, files, reporting)
    if state is not None:
        training.restore(state)
    try:
        training.run()
    except (OSError, RuntimeError, InputError) as error:
        raise explained(error, files) from error
