"""What a person can do about what ends a run."""

from acmix.devices import has_no_memory
from acmix.errors import InputError, TrainingError
from acmix.tasks.loop import states
from acmix.tasks.loop.distribution import lost
from acmix.tasks.loop.run import RunFiles


def explained(error: Exception, files: RunFiles) -> Exception:
    """What a person can do about a failure; the failure itself where we do not know."""
    lines = str(error).splitlines() or [type(error).__name__]
    kept = f"{paths[-1]} is kept" if (paths := states.paths(files.output)) else "no state was saved yet"
    if has_no_memory(error):
        return TrainingError(
            f"out of memory: {lines[0]}; halve batch_size and double accumulate, which learns the same, "
            f"or set recompute=true; {kept}"
        )
    if "DataLoader worker" in lines[0] and isinstance(error, RuntimeError):
        return TrainingError(
            f"a process that reads images died ({lines[0]}), often for want of memory; use fewer --workers; "
            f"{kept}, {files.advice}"
        )
    if (gone := lost(error)) is not None:
        return TrainingError(f"{gone}; {kept}, {files.advice}")
    if isinstance(error, InputError):
        # From a process that reads images, with its traceback around it.
        return TrainingError(f"{lines[-1].removeprefix('acmix.errors.InputError: ')}; {kept}")
    if isinstance(error, OSError):
        return TrainingError(f"{error.filename or 'a file'}: {error.strerror or lines[0]}; {kept}, {files.advice}")
    return error
