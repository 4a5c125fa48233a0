"""The subcommands that train: `acmix train`, and the recipes that it takes."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from acmix.cli import runs
from acmix.errors import InputError, printable

if TYPE_CHECKING:
    from acmix.tasks.settings import Settings


def train(
    data: str,
    *,
    validation: str | None = None,
    recipe: str | None = None,
    model: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    optimizer: str | None = None,
    warmup_epochs: int | None = None,
    label_smoothing: float | None = None,
    image_size: int | None = None,
    precision: Literal["float32", "bfloat16", "float16"] | None = None,
    seed: int | None = None,
    val_fraction: float | None = None,
    deterministic: bool = False,
    set: list[str] | None = None,  # noqa: A002
    print_config: bool = False,
    output: Path | None = None,
    resume: bool = False,
    requeue: bool = False,
    weights: Path | None = None,
    workers: int | None = None,
    devices: int | None = None,
    strategy: Literal["ddp", "fsdp"] = "ddp",
    save_minutes: float = 15.0,
    keep_states: int = 2,
    check_images: bool = True,
) -> int:
    """Train a classifier on a folder of images, on shards, or on digits.

    Args:
        data: Class folders, in train/ and val/ or not; shards; a saved dataset; or the bundled digits or mnist5k.
        validation: Of validation images, where DATA is a pattern of shards.
        recipe: Named settings, or a YAML file of them (default: small); see acmix recipes.
        model: timm's name of the network (default: the recipe's, or acmix_resnet14_small for digits, acmix_resnet26).
        epochs: Passes over the training images.
        batch_size: Images a process and forward pass.
        lr: Highest learning rate; a cosine takes it to zero.
        weight_decay: Of weights; biases, norms and the operator's rates are not decayed.
        optimizer: timm's name of the optimiser.
        warmup_epochs: Epochs of linear rise (default: a tenth of the epochs).
        label_smoothing: Share of the target spread over all classes.
        image_size: Side of the input in pixels (default: the model's own).
        precision: float32, or mixed precision in bfloat16 or float16.
        seed: Of weights, order, augmentation and the split.
        val_fraction: Share held out where DATA has no validation images.
        deterministic: Refuse operations without a deterministic implementation.
        set: Any setting of a recipe, written name=value; may be repeated.
        print_config: Print the settings in full, as YAML that --recipe takes, and stop.
        output: The run folder (default: the next free runs/DATA-MODEL).
        resume: Continue the unfinished run in --output where it was saved last; its settings are known.
        requeue: Begin the run in --output, or continue it: one command for all attempts of a scheduler.
        weights: Start weights, of acmix train, published, or a checkpoint of timm, Lightning or another trainer.
        workers: Processes that read images, for each that trains (default: the cores, at most 8; none for digits).
        devices: Processes that train together on this machine (default: what torchrun or SLURM started, else one).
        strategy: Each process holds the network (ddp) or a part of it (fsdp).
        save_minutes: The run can be resumed from a state at most this old.
        keep_states: How many states stay.
        check_images: Read every image once before training starts.
    """
    from acmix.data.bundled import BUNDLED
    from acmix.tasks import recipes, states
    from acmix.tasks.run import CONFIG, free_folder, read_json

    if (resume or requeue) and output is None:
        raise InputError(f"--{'resume' if resume else 'requeue'} needs --output, the folder of the run to continue")
    resume = resume or (output is not None and requeue and bool(states.paths(output)))
    options = {
        "model": model,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": lr,
        "weight_decay": weight_decay,
        "optimizer": optimizer,
        "warmup_epochs": warmup_epochs,
        "label_smoothing": label_smoothing,
        "image_size": image_size,
        "precision": precision,
        "seed": seed,
        "val_fraction": val_fraction,
        "deterministic": deterministic or None,
    }
    changes = {name: value for name, value in options.items() if value is not None}
    for assignment in set or ():
        name, value = recipes.parse_assignment(assignment)
        if name in changes:
            raise InputError(f"{name} is given twice; leave one out")
        changes[name] = value
    default = {"model": "acmix_resnet14_small" if data in BUNDLED else "acmix_resnet26"}
    if resume and recipe is None and output is not None:
        saved = read_json(output / CONFIG).get("settings") if (output / CONFIG).is_file() else None
        settings = recipes.resolve(saved if isinstance(saved, dict) else default, changes)
    else:
        settings = recipes.resolve(default | recipes.load(recipe or "small"), changes)
    if print_config:
        sys.stdout.write(recipes.as_yaml(settings))
        return 0
    output = output or free_folder(Path("runs"), f"{printable(Path(data).resolve().name)}-{settings.model}")

    fit_and_report(
        data,
        settings,
        output,
        save_minutes=save_minutes,
        keep_states=keep_states,
        validation=validation,
        resume=resume,
        weights=weights,
        workers=workers,
        check_images=check_images,
        devices=devices,
        strategy=strategy,
    )
    return 0


def fit_and_report(
    data: str,
    settings: "Settings",
    output: Path,
    *,
    save_minutes: float = 15.0,
    keep_states: int = 2,
    **options: Any,
) -> None:
    """Train as `acmix.tasks.classification.fit` does, which takes the options; show it, and leave a report."""
    from acmix.cli.display import training as display
    from acmix.tasks.classification import fit

    interactive = sys.stderr.isatty() and sys.stdout.isatty()
    with display.TrainingDisplay(settings.epochs, live=interactive) as shown:
        reporting = shown.reporting(
            save_minutes=save_minutes, keep_states=keep_states, on_stop=lambda: runs.report_stop(output)
        )
        result = fit(data, settings, output, progress=interactive, reporting=reporting, **options)
    if result is not None:
        runs.report_end(output, result.outcomes)
        display.show_training(result, data)


def recipes(*, name: str | None = None) -> int:
    """List the recipes that come with the package, or print one in full.

    Args:
        name: The recipe to print (default: list all).
    """
    from acmix.cli.display import training as display
    from acmix.tasks import recipes as shipped

    if name is None:
        display.show_recipes({recipe: shipped.load(recipe) for recipe in shipped.names()})
        return 0
    default = {"model": "acmix_resnet26"}
    sys.stdout.write(shipped.as_yaml(shipped.resolve(default | shipped.load(name), {})))
    return 0
