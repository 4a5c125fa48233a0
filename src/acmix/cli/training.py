"""The subcommands that train: `acmix train`, and the recipes that it takes."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from acmix.cli import python
from acmix.cli.settings import COMMON, changes
from acmix.cli.wording import SettingsOf
from acmix.errors import InputError, printable
from acmix.tasks.kinds import KINDS, kind_named, kind_of

# Options of train are the settings of all kinds.
_SETTINGS = SettingsOf(tuple(kind.settings for kind in KINDS.values()), COMMON)


def train(
    data: str,
    *,
    validation: str | None = None,
    recipe: str | None = None,
    set: list[str] | None = None,  # noqa: A002
    print_config: bool = False,
    output: Path | None = None,
    resume: bool = False,
    requeue: bool = False,
    extend: Path | None = None,
    weights: Path | None = None,
    workers: int | None = None,
    device: str = "auto",
    devices: int | None = None,
    strategy: Literal["ddp", "fsdp"] = "ddp",
    save_minutes: float = 15.0,
    keep_states: int = 2,
    check_images: bool = True,
    **changed: Annotated[Any, _SETTINGS],
) -> int:
    """Train a network on a folder of images, on shards, or on digits; what DATA is says which kind of network.

    Args:
        data: Class folders, in train/ and val/ or not; a CSV file of image names and labels; shards; a saved dataset;
            IDX files; or digits or mnist5k.
        validation: Of validation images, where DATA is a pattern of shards.
        recipe: Named settings, or a YAML file of them (default: small); see acmix recipes.
        set: The same as the option of that name, written name=value; may be repeated.
        print_config: Print the settings in full, as YAML that --recipe takes, and stop.
        output: The run folder (default: the next free runs/DATA-MODEL).
        resume: Continue the unfinished run in --output where it was saved last; its settings are known.
        requeue: Begin the run in --output, or continue it, unless it is finished: one command for all attempts of a
            scheduler.
        extend: Go on from the last state of this run, finished or not, in --output: to more --epochs, for instance.
        weights: Start weights, of acmix train, published, or a checkpoint of timm, Lightning or another trainer.
        workers: Processes that read images, for each that trains (default: the cores, at most 8; none for digits).
        device: auto, cpu, cuda, cuda:1 (any number) or mps.
        devices: Processes that train together on this machine (default: what torchrun or SLURM started, else one).
        strategy: Each process holds the network (ddp) or a part of it (fsdp).
        save_minutes: The run can be resumed from a state at most this old.
        keep_states: How many states stay.
        check_images: Read every image once before training starts.
        changed: Settings of the recipe.
    """
    if sys.stderr.isatty():
        # At once: what comes next loads for seconds.
        sys.stderr.write(f"acmix train: reading {printable(data)}\n")
    from acmix.tasks.loop import recipes, states

    if requeue and output is None:
        raise InputError("output must be given: the folder of the run to begin or to continue")
    resume = resume or (output is not None and requeue and bool(states.paths(output)))
    kind = kind_of(data, recipe, output if resume else extend)
    kind.check_names([*changed, *(assignment.partition("=")[0] for assignment in set or ())])
    own = changes(kind.settings, changed, set)
    if requeue and output is not None and python.is_done(output, own):
        sys.stdout.write(f"{python.what_continues(output)}\n")
        return 0
    if print_config:
        _, settings, _ = python.plan(data, output, recipe, own, resume=resume, extend=extend)
        sys.stdout.write(recipes.as_yaml(settings))
        return 0
    python.train(
        data,
        output=output,
        recipe=recipe,
        validation=validation,
        resume=resume,
        extend=extend,
        weights=weights,
        workers=workers,
        device=device,
        devices=devices,
        strategy=strategy,
        save_minutes=save_minutes,
        keep_states=keep_states,
        check_images=check_images,
        quiet=False,
        **own,
    )
    return 0


def recipes(*, name: str | None = None, settings: bool = False, markdown: bool = False) -> int:
    """List the recipes that come with the package, print one in full, or list all settings.

    Args:
        name: The recipe to print (default: list all).
        settings: List the settings: what each may be, its default, what it means.
        markdown: With --settings: as Markdown, the table of docs/settings.md.
    """
    from acmix.cli.display import training as display
    from acmix.tasks.loop import recipes as shipped

    if (name is not None and settings) or (markdown and not settings):
        raise InputError("--settings stands without --name, --markdown with --settings")
    known = [(recipe, shipped.task_of(recipe)) for recipe in shipped.names()]
    if settings:
        display.show_settings(_SETTINGS, as_markdown=markdown)
    elif name is None:
        display.show_recipes({recipe: (task, shipped.load(recipe, KINDS[task].settings)) for recipe, task in known})
    else:
        sys.stdout.write(shipped.as_yaml(kind_named(shipped.task_of(name)).choose("", name, {})))
    return 0
