"""The subcommands of `acmix study`."""

import sys
from pathlib import Path
from typing import Annotated, Any

from acmix.cli import outputs
from acmix.cli.settings import COMMON, changes
from acmix.cli.wording import SettingsOf
from acmix.errors import InputError, check_least
from acmix.shell import command
from acmix.storage import write_atomically
from acmix.study.kinds import KINDS, kind_of

_SETTINGS = SettingsOf(
    tuple(kind.settings for kind in KINDS.values()),
    COMMON,
    without=("quiet_shifts", "acmix_stages", "patience", "multi_label"),
)


def run(
    data: str,
    *,
    validation: str | None = None,
    variants: str | None = None,
    seeds: int = 5,
    pretrain_epochs: int | None = None,
    pretrain_learning_rate: float | None = None,
    recipe: str | None = None,
    set: list[str] | None = None,  # noqa: A002
    output: Path | None = None,
    workers: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    seconds: float = 30.0,
    **changed: Annotated[Any, _SETTINGS],
) -> int:
    """Train networks that differ in the operator alone, with several seeds each; the same command continues.

    Args:
        data: As in training, digits or mnist5k for instance; classes of images, or boxes around objects in them.
        validation: Validation images, where they are not part of DATA.
        variants: Names of networks, comma-separated (default: those of docs/study.md for the model).
        seeds: Trainings of each network, at least 2.
        pretrain_epochs: Let all networks of a seed start from one with 3x3 convolutions that was trained so long:
            operators start warm, and the other settings are of what follows.
        pretrain_learning_rate: Of that training (default: that of what follows).
        recipe: Named settings, or a YAML file of them; see acmix recipes (default: small, of boxes detection_small).
        set: The same as the option of that name, written name=value; may be repeated.
        output: The folder of the study (default: runs/study-DATA).
        workers: Processes that read images (default: the cores, at most 8; none for bundled digits).
        device: auto, cpu, cuda, cuda:1 (any number) or mps.
        threads: Threads of PyTorch (default: PyTorch's own choice).
        seconds: Time to spend on timing forward passes, and on forward and backward passes.
        changed: Settings of all trainings; the model, of detectors the backbone, is by default acmix_resnet14_small.
    """
    kind = kind_of(data, recipe)
    settings = kind.choose(recipe, changes(kind.settings, changed, set))
    _use_threads(threads)
    rate = settings.learning_rate if pretrain_learning_rate is None else pretrain_learning_rate
    if pretrain_epochs is None and pretrain_learning_rate is not None:
        raise InputError("--pretrain-learning-rate is for --pretrain-epochs; give both, or none")
    output = output or Path("runs") / f"study-{Path(data).resolve().name}"
    outputs.check_folder("--output", output)
    from acmix.cli.display import progress
    from acmix.cli.display import study as display

    with progress.working():
        from acmix import study

    names = None if variants is None else [name.strip() for name in variants.split(",")]
    with display.StudyDisplay(kind.scores[0].title) as shown:
        done = study.run_study(
            data,
            settings,
            output,
            variants=names,
            seeds=seeds,
            pretraining=None
            if pretrain_epochs is None
            else study.Pretraining(epochs=pretrain_epochs, learning_rate=rate),
            validation=validation,
            workers=workers,
            device=device,
            seconds=seconds,
            watching=shown.watching(),
        )
    following = command("study show", output / study.RESULTS, plot="study.svg")
    sys.stdout.write("\n")
    display.show_study(done, as_markdown=False)
    sys.stdout.write(f"\n{following}\n")
    return 0


def time(results: Path, *, device: str = "auto", threads: int | None = None, seconds: float = 30.0) -> int:
    """Time all networks of a study anew, on a machine that does nothing else; nothing is trained.

    Args:
        results: The study.json of acmix study run, or the folder that holds it; it is written anew.
        device: auto, cpu, cuda, cuda:1 (any number) or mps.
        threads: Threads of PyTorch (default: PyTorch's own choice).
        seconds: Time to spend on timing forward passes, and on forward and backward passes.
    """
    from acmix.cli.display import progress
    from acmix.cli.display import study as display

    with progress.working("timing all networks"):
        _use_threads(threads)
        from acmix import study

        timed = study.time_study(_file(results, study.RESULTS), device=device, seconds=seconds)
    display.show_study(timed, as_markdown=False)
    return 0


def show(results: Path, *, plot: Path | None = None, table: Path | None = None, markdown: bool = False) -> int:
    """Draw tables and plot of a study anew from its results; nothing is trained.

    Args:
        results: The study.json of acmix study run, or the folder that holds it.
        plot: A PNG or SVG file for plots of accuracy against cost and over epochs, and of the rates of layers.
        table: A Markdown file for the tables (default: the terminal).
        markdown: Print Markdown on a terminal, too; a pipe and a file always get it.
    """
    outputs.check_file("--plot", plot, outputs.PICTURES)
    outputs.check_file("--table", table)
    from acmix.cli.display import progress
    from acmix.cli.display import study as display

    with progress.working():
        from acmix import study

    loaded = study.load_study(_file(results, study.RESULTS))
    text = study.as_markdown(loaded)
    if plot is not None:
        from acmix.pages import studies

        write_atomically(plot, studies.plot(plot.suffix[1:], study.summarise(loaded), loaded.batch))
    if table is None:
        display.show_study(loaded, as_markdown=markdown)
    else:
        write_atomically(table, text)
    return 0


def _file(given: Path, name: str) -> Path:
    return given / name if given.is_dir() else given


def _use_threads(threads: int | None) -> None:
    if threads is None:
        return
    check_least(1, threads=threads)
    import torch

    torch.set_num_threads(threads)
