"""`acmix.train`, and what the command does beside it."""

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acmix.cli import outputs, runs, stopping
from acmix.errors import InputError, printable
from acmix.progress import silent
from acmix.shell import command

if TYPE_CHECKING:
    from acmix.tasks.kinds import Kind
    from acmix.tasks.loop.distribution import Strategy
    from acmix.tasks.loop.results import TrainingResult
    from acmix.tasks.loop.settings import LoopSettings


def train(
    data: str | Path,
    *,
    output: str | Path | None = None,
    recipe: str | Path | None = None,
    validation: str | Path | None = None,
    resume: bool = False,
    extend: str | Path | None = None,
    weights: str | Path | None = None,
    workers: int | None = None,
    device: str = "auto",
    devices: int | None = None,
    strategy: "Strategy" = "ddp",
    save_minutes: float = 15.0,
    keep_states: int = 2,
    check_images: bool = True,
    quiet: bool | None = None,
    **settings: Any,
) -> "TrainingResult | None":
    """Train a network: the command `acmix train`, with the same rules, defaults, run folder and report.

        import acmix

        result = acmix.train("digits", output="runs/first", epochs=2, image_size=16, batch_size=64, learning_rate=0.003)
        print(f"{result.best:.1%} in epoch {result.best_epoch}, report: {result.output / 'report.html'}")

        # Longer, as a run of its own that goes on from the first one's state.
        longer = acmix.train("digits", output="runs/longer", extend="runs/first", epochs=3)
        assert longer.epochs == 3

        # The best checkpoint, ready to use: acmix.load("runs/longer") is the same.
        classifier = longer.load()
        labels, probabilities = classifier.predict(acmix.data.export_digits("digits", count=3))
        print(labels, probabilities.shape)

    Args:
        data: A folder of class folders, in train/ and val/ or not, of shards, of a saved dataset or of IDX files; a CSV
            file of image names and labels, or a folder of such; "digits" or "mnist5k".
        output: The run folder; by default the next free runs/DATA-MODEL.
        recipe: Named settings, or a YAML file of them; by default "small". `acmix recipes` lists them.
        validation: Of validation images, where they are not part of the data.
        resume: Continue the unfinished run in output where it was saved last; its settings are known.
        extend: Go on from the last state of this run, finished or not: to more epochs, for instance.
        weights: Start weights, of ours, published, or a checkpoint of another trainer.
        workers: Processes that read images; by default the cores, at most 8, none for digits.
        device: Where it computes: "auto", "cpu", "cuda", "cuda:1" or "mps".
        devices: Processes that train together on this machine.
        strategy: Each process holds the network ("ddp") or a part of it ("fsdp").
        save_minutes: The run can be resumed from a state at most this old.
        keep_states: How many states stay.
        check_images: Read every image once before training starts.
        quiet: Print nothing; by default it prints what the command does if it runs on a terminal, else nothing.
        **settings: Settings that win over the recipe: epochs, batch_size, ...; docs/settings.md lists all.

    Returns:
        What the run achieved; None in all processes but the first.

    Raises:
        InputError: If an argument, the data or a folder cannot be used.
        TrainingError: If the run had to stop.
    """
    options: dict[str, Any] = {"resume": resume, "workers": workers, "device": device, "devices": devices}
    options["strategy"] = strategy
    for name, path in (("extend", extend), ("weights", weights)):
        options[name] = None if path is None else Path(path)
    kind, own, folder = plan(
        str(data),
        None if output is None else Path(output),
        None if recipe is None else str(recipe),
        settings,
        resume=resume,
        extend=options["extend"],
    )
    return fit_and_report(
        kind,
        str(data),
        own,
        folder,
        quiet=not sys.stdout.isatty() if quiet is None else quiet,
        save_minutes=save_minutes,
        keep_states=keep_states,
        validation=None if validation is None else str(validation),
        check_images=check_images,
        **options,
    )


def plan(
    data: str,
    output: Path | None,
    recipe: str | None,
    changes: Mapping[str, Any],
    *,
    resume: bool,
    extend: Path | None,
) -> "tuple[Kind, LoopSettings, Path]":
    """The kind of a training, its settings and its folder, as `train` is asked for them.

    Raises:
        InputError: If there is no such recipe, a setting has the wrong name, type or range, no folder is named whose
            run should continue, or it cannot be written into.
    """
    from acmix.tasks.kinds import kind_of
    from acmix.tasks.loop.run import free_folder

    if resume and output is None:
        raise InputError("output must be given: the folder of the run to continue")
    base = output if resume else extend
    kind = kind_of(data, recipe, base)
    own = kind.choose(data, recipe, changes, base=base)
    output = output or free_folder(Path("runs"), f"{printable(Path(data).resolve().name)}-{own.model}")
    outputs.check_folder("output", output)
    return kind, own, output


def fit_and_report(
    kind: "Kind",
    data: str,
    settings: "LoopSettings",
    output: Path,
    *,
    quiet: bool = False,
    save_minutes: float = 15.0,
    keep_states: int = 2,
    **options: Any,
) -> "TrainingResult | None":
    """Train as the kind's `fit` does, which takes the options; show it, and leave a report."""
    from acmix.cli.display import progress
    from acmix.cli.display import training as display
    from acmix.tasks.loop.progress import Reporting

    saving: dict[str, Any] = {"save_minutes": save_minutes, "keep_states": keep_states}
    saving["on_stop"] = lambda: runs.report_stop(output, quiet=quiet)
    live = sys.stderr.isatty() and sys.stdout.isatty()
    shown = None if quiet else display.TrainingDisplay(settings.epochs, kind.measures, live=live)
    with stopping.telling(lambda: f"stopped; {what_continues(output)}"):
        with shown or nullcontext():
            reporting = Reporting(**saving) if shown is None else shown.reporting(**saving)
            track = silent if quiet else progress.track
            result = kind.fit(data, settings, output, progress=track, reporting=reporting, **options)
        if result is not None:
            runs.report_end(output, result.outcomes)
            if not quiet:
                display.show_training(result, data)
    return result


def is_done(output: Path, changes: Mapping[str, Any]) -> bool:
    """Whether the run in a folder is finished, under settings that do not contradict what is asked for now."""
    from acmix.tasks.loop import run

    if not (output / run.SUMMARY).is_file():
        return False
    settings = run.read_config(output)["settings"]
    return all(settings.get(name) == value for name, value in changes.items())


def what_continues(output: Path) -> str:
    """What there is to do about a run that a person stopped at any moment, as a command."""
    from acmix.tasks.loop import run, states

    if (output / run.SUMMARY).is_file():
        return f"the run is finished; its report: {command('report', output)}"
    if (output / run.CONFIG).is_file() and states.paths(output):
        return f"continue with: {run.continuing(output, run.read_config(output))}"
    return "nothing was trained yet"
