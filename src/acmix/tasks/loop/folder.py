"""A run folder while one run works in it: made, locked for all others, told why the run ended."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from acmix import storage
from acmix.errors import InputError
from acmix.tasks.loop import run
from acmix.tasks.loop.progress import Reporting
from acmix.tasks.loop.resuming import resumable_state
from acmix.tasks.loop.settings import LoopSettings


@contextmanager
def at_work(
    output: Path,
    config: Mapping[str, Any],
    settings: LoopSettings,
    fabric: Fabric,
    reporting: Reporting,
    *,
    resume: bool,
) -> Iterator[dict[str, Any] | None]:
    """Keep a folder for a run that begins or goes on; where it ends by an error, stopped.json says so.

    Args:
        output: The run folder, made if missing.
        config: What config.json is if the run begins now; of a run that goes on, what may be other
            now is written anew: where data lie, what started the processes, and `run.ASKED`.
        settings: Of the run.
        fabric: The processes that train, launched; the first one writes, and locks the folder for all.
        reporting: Whom to tell.
        resume: Continue the run in it.

    Yields:
        The state to continue from; None for a run that begins.

    Raises:
        InputError: If the folder cannot be used, see `run.prepare_folder` and `resumable_state`, or another run is at
            work in it.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {output} cannot be made: {error.strerror or error}") from error
    with _alone(fabric, output):
        run.prepare_folder(output, resume=resume, epochs=settings.epochs)
        state = resumable_state(output, config, type(settings)) if resume else None
        # Every process has looked at the folder before one writes to it.
        fabric.barrier()
        if fabric.is_global_zero:
            _begin(output, config, resume=resume)
        try:
            yield state
        except BaseException as error:
            if fabric.is_global_zero and not isinstance(error, InputError):
                _record_stop(output, error, reporting)
            raise


@contextmanager
def _alone(fabric: Fabric, output: Path) -> Iterator[None]:
    """Keep other runs from a folder, which the first process locks for all."""
    with storage.held(output) if fabric.is_global_zero else nullcontext() as free:
        if not fabric.broadcast(free):
            raise InputError(
                f"output {output} is of a run that goes on in another process; wait until it has ended, or end it"
            )
        yield


def _begin(output: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Write the configuration of a new run; a run that continues is not stopped, and its data may lie elsewhere now."""
    moved = {key: config[key] for key in ("data", "taken", "launcher", *run.ASKED)}
    try:
        run.write_json(output / run.CONFIG, run.read_json(output / run.CONFIG) | moved if resume else {**config})
        (output / run.STOPPED).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"output {output} cannot be written: {error.strerror or error}") from error


def _record_stop(output: Path, error: BaseException, reporting: Reporting) -> None:
    """Keep why a run ended; that must not hide the error itself, least of all when the disk is full."""
    try:
        run.write_json(output / run.STOPPED, {"kind": type(error).__name__, "reason": str(error)})
    except OSError as fault:
        if reporting.on_problem is not None:
            reporting.on_problem(f"{output / run.STOPPED} cannot be written: {fault.strerror or fault}")
    if reporting.on_stop is not None:
        reporting.on_stop()
