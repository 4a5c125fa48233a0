"""Train a classifier: everything is checked first, then `acmix.tasks.loop.training` runs."""

import logging
import os
import statistics
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric, seed_everything
from torch import nn

from acmix import storage
from acmix.checkpoints.classifier import Classifier, load_classifier, running_versions, save_classifier
from acmix.data import (
    DataRecord,
    EvaluationImages,
    ImageData,
    image_loader,
    open_dataset,
    preprocessing_for,
    training_loader,
    training_transform,
)
from acmix.data.bundled import BUNDLED
from acmix.data.sampling import EpochSampler, evaluation_batches
from acmix.errors import InputError, TrainingError
from acmix.models.names import check_name
from acmix.tasks.classification.checks import Checked, check_images_together, resumable_state
from acmix.tasks.classification.inference import Evaluation, Outcome, classify, tally
from acmix.tasks.classification.networks import (
    check_batches,
    check_input_size,
    create_network,
    load_start_weights,
    prepare_for_training,
)
from acmix.tasks.loop import run, states
from acmix.tasks.loop.distribution import Strategy, make_fabric
from acmix.tasks.loop.progress import Reporting
from acmix.tasks.loop.settings import Settings
from acmix.tasks.loop.training import Training

# More processes than this only wait for the network.
_MOST_WORKERS = 8


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a finished run achieved.

    Attributes:
        output: The run folder; `acmix.tasks.loop.run` lists its files.
        best_top1: Highest validation accuracy, 0..1.
        best_epoch: Its epoch, counted from 1.
        epochs: Epochs trained.
        seconds: Of all epochs, validation included.
        images_per_second: Training images a second, median over the epochs.
        validation: Evaluation of best.safetensors on the validation images.
        outcomes: What it made of each of them, in their order.
    """

    output: Path
    best_top1: float
    best_epoch: int
    epochs: int
    seconds: float
    images_per_second: float
    validation: Evaluation
    outcomes: list[Outcome]


def fit(
    data: str,
    settings: Settings,
    output: Path,
    *,
    validation: str | None = None,
    resume: bool = False,
    weights: Path | None = None,
    workers: int | None = None,
    check_images: bool = True,
    progress: bool = False,
    devices: int | None = None,
    strategy: Strategy = "ddp",
    reporting: Reporting | None = None,
) -> TrainingResult | None:
    """Train a classifier; everything is checked before the run folder is touched.

    Args:
        data: What `acmix.data.open_dataset` takes.
        settings: The run's settings.
        output: The run folder, made if missing; it must not hold a run.
        validation: Of validation images, where DATA holds none: shards, for instance.
        resume: Continue the unfinished run in output, which had equal settings, at the update after its last state.
        weights: Start weights, ours, published or of another trainer, see `load_start_weights`.
        workers: Processes that read images, for each that trains; None shares the cores among them, at most 8 each,
            and is none for bundled digits.
        check_images: Decode every image once before training.
        progress: Show a progress bar while checking.
        devices: Processes on this machine, see `acmix.tasks.loop.distribution.make_fabric`.
        strategy: How processes share the network, see there.
        reporting: Whom to tell of progress, and how often to save.

    Returns:
        What the run achieved; None in all processes but the first.

    Raises:
        InputError: If an argument, the data or the run folder cannot be used.
        TrainingError: If the run had to stop, `PreemptedError` because a scheduler asked it to.
        KeyboardInterrupt: If the person stops it; the run can be resumed.
    """
    settings.check()
    if workers is not None and workers < 0:
        raise InputError(f"workers must be at least 0, got {workers}")
    check_name(settings.model)
    run.prepare_folder(output, resume=resume)
    with quiet(), determinism(settings.deterministic), ExitStack() as locked:
        fabric = make_fabric(settings.precision, devices=devices, strategy=strategy)
        fabric.launch()
        first = fabric.is_global_zero
        seed_everything(settings.seed, workers=True, verbose=False)
        images = open_dataset(
            data,
            validation=validation,
            val_fraction=settings.val_fraction,
            seed=settings.seed,
            check_images=False,
            progress=progress and first,
        )
        checked = check_images_together(images, fabric, progress=progress and first) if check_images else Checked()
        if checked.copies:
            images.taken["copies"] = f"{checked.copies:,} validation images are training images, see acmix data check"
        classes = images.train.classes
        arguments = {"block_args": {"quiet_shifts": True}} if settings.quiet_shifts else {}
        model = create_network(
            settings.model,
            num_classes=len(classes),
            drop_rate=settings.drop_rate,
            drop_path_rate=settings.drop_path,
            **arguments,
        )
        preprocessing = preprocessing_for(
            model, image_size=settings.image_size, crop_share=settings.crop_share, digits=data in BUNDLED
        )
        check_input_size(model, settings.model, preprocessing["input_size"])
        sampler = training_sampler(images, settings, fabric)
        check_batches(model, settings, preprocessing["input_size"], sampler.update_sizes, fabric.world_size)
        config = _config(images, settings, model, preprocessing, weights, fabric.world_size)
        config |= {"updates_an_epoch": len(sampler.update_sizes), "contents": checked.contents}
        if weights is not None and not resume:
            started = load_start_weights(model, weights)
            config["start_weights"] = started
            if first and reporting is not None and reporting.on_note:
                reporting.on_note(started)
        prepare_for_training(model, settings)
        _make_folder(output)
        locked.enter_context(_alone(fabric, output))
        run.prepare_folder(output, resume=resume)
        state = resumable_state(output, config) if resume else None
        # Every process has looked at the folder before one writes to it.
        fabric.barrier()
        if first:
            _begin(output, config, resume=resume)
        classifier = Classifier(
            model=model,
            model_name=settings.model,
            classes=classes,
            preprocessing=preprocessing,
            model_arguments=arguments,
        )
        workers = reading_processes(data, fabric) if workers is None else workers

        def save(path: Path, row: run.EpochRow, weights: Any) -> None:
            training = {key: config[key] for key in ("settings", "data", "weights", "taken")}
            training |= {"metrics": row, "trained_images": checked.trained.to_record()}
            save_classifier(path, replace(classifier, training=training), weights)

        files = run.RunFiles(output, save)
        reporting = reporting or Reporting()
        if first and reporting.on_note is not None:
            for name, words in images.taken.items():
                reporting.on_note(f"{name}: {words}")
        try:
            train_classifier(classifier, images, settings, files, state, workers, fabric, sampler, reporting)
        except BaseException as error:
            if first and not isinstance(error, InputError):
                _record_stop(output, error, reporting)
            raise
    try:
        return _summarise(files, images, settings, workers) if first else None
    except OSError as error:
        raise _explained(error, files) from error


def training_sampler(images: ImageData, settings: Settings, fabric: Fabric) -> EpochSampler:
    """What each process draws of the training images, a function of the seed alone."""
    return EpochSampler(
        len(images.train),
        # An image is not drawn twice to fill a batch.
        batch_size=min(settings.batch_size, len(images.train)),
        accumulate=settings.accumulate,
        processes=fabric.world_size,
        rank=fabric.global_rank,
        seed=settings.seed,
        repeats=settings.repeats,
        shard_lengths=images.train.shard_lengths,
        prefetch=images.train.prefetch,
    )


def reading_processes(data: str, fabric: Fabric) -> int:
    """How many processes read images for each that trains: its share of the cores, none for bundled digits."""
    share = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", fabric.world_size))
    return 0 if data in BUNDLED else max(1, min(_MOST_WORKERS, share))


def _config(
    images: ImageData,
    settings: Settings,
    model: nn.Module,
    preprocessing: dict[str, Any],
    weights: Path | None,
    processes: int,
) -> dict[str, Any]:
    record = DataRecord.of(images, val_fraction=settings.val_fraction, seed=settings.seed)
    return {
        "settings": asdict(settings),
        "processes": processes,
        "images_an_update": settings.batch_size * settings.accumulate * processes,
        "weights": None if weights is None else str(weights),
        "data": asdict(record),
        "taken": images.taken,
        "train_images": len(images.train),
        "validation_images": len(images.validation),
        "classes": list(images.train.classes),
        "preprocessing": {key: list(v) if isinstance(v, tuple) else v for key, v in preprocessing.items()},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": running_versions(),
    }


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {output} cannot be made: {error.strerror or error}") from error


@contextmanager
def _alone(fabric: Fabric, output: Path) -> Iterator[None]:
    """Keep other runs from a folder, which the first process locks for all."""
    with storage.held(output) if fabric.is_global_zero else nullcontext() as free:
        if not fabric.broadcast(free):
            raise InputError(
                f"output {output} is of a run that goes on in another process; wait until it has ended, or end it"
            )
        yield


def _begin(output: Path, config: dict[str, Any], *, resume: bool) -> None:
    """Write the configuration of a new run; a run that continues is not stopped, and its data may lie elsewhere now."""
    moved = {key: config[key] for key in ("data", "taken")}
    try:
        run.write_json(output / run.CONFIG, run.read_json(output / run.CONFIG) | moved if resume else config)
        (output / run.STOPPED).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"output {output} cannot be written: {error.strerror or error}") from error


def train_classifier(
    classifier: Classifier,
    images: ImageData,
    settings: Settings,
    files: run.RunFiles,
    state: dict[str, Any] | None,
    workers: int,
    fabric: Fabric,
    sampler: EpochSampler,
    reporting: Reporting,
) -> None:
    """Train a network in a run folder that exists, to the last epoch.

    Args:
        classifier: The network with its classes and preprocessing.
        images: To train on and to validate with.
        settings: The run's settings.
        files: What is written in the run folder.
        state: Of `acmix.tasks.loop.states`, to continue from; None begins.
        workers: Processes that read images.
        fabric: The processes that train, launched.
        sampler: Of `training_sampler`.
        reporting: Whom to tell of progress, and how often to save.

    Raises:
        InputError: If the state is of another version.
        TrainingError: If the run had to stop, `PreemptedError` because a scheduler asked it to.
        KeyboardInterrupt: If the person stops it.
    """
    transform = training_transform(
        classifier.preprocessing,
        digits=images.location in BUNDLED,
        random_augment=settings.random_augment,
        random_erase=settings.random_erase,
    )
    loader = training_loader(images.train, sampler, transform, seed=settings.seed, workers=workers)
    batches = evaluation_batches(
        len(images.validation),
        batch_size=settings.batch_size,
        processes=fabric.world_size,
        rank=fabric.global_rank,
    )
    validation = image_loader(
        images.validation.with_transform(classifier.transform), batch_sampler=batches, workers=workers
    )
    training = Training(
        fabric,
        classifier.model,
        settings,
        len(classifier.classes),
        loader,
        sampler,
        validation,
        files,
        reporting,
    )
    if state is not None:
        training.restore(state)
    try:
        training.run()
    except (OSError, RuntimeError, InputError) as error:
        raise _explained(error, files) from error


def _record_stop(output: Path, error: BaseException, reporting: Reporting) -> None:
    """Keep why a run ended; that must not hide the error itself, least of all when the disk is full."""
    try:
        run.write_json(output / run.STOPPED, {"kind": type(error).__name__, "reason": str(error)})
    except OSError as fault:
        if reporting.on_problem is not None:
            reporting.on_problem(f"{output / run.STOPPED} cannot be written: {fault.strerror or fault}")
    if reporting.on_stop is not None:
        reporting.on_stop()


def _explained(error: Exception, files: run.RunFiles) -> Exception:
    """What a person can do about a failure; the failure itself where we do not know."""
    lines = str(error).splitlines() or [type(error).__name__]
    kept = f"{paths[-1]} is kept" if (paths := states.paths(files.output)) else "no state was saved yet"
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in lines[0]:
        return TrainingError(
            f"out of memory: {lines[0]}; halve batch_size and double accumulate, which learns the same, "
            f"or set recompute=true; {kept}"
        )
    if "DataLoader worker" in lines[0] and isinstance(error, RuntimeError):
        return TrainingError(
            f"a process that reads images died ({lines[0]}), often for want of memory; use fewer --workers; "
            f"{kept}, {files.advice}"
        )
    if isinstance(error, InputError):
        # From a process that reads images, with its traceback around it.
        return TrainingError(f"{lines[-1].removeprefix('acmix.errors.InputError: ')}; {kept}")
    if isinstance(error, OSError):
        return TrainingError(f"{error.filename or 'a file'}: {error.strerror or lines[0]}; {kept}, {files.advice}")
    return error


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Refuse operations without a deterministic implementation, if wanted."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        # What cuBLAS asks for.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's notes on hardware and processes off the terminal."""
    # Both write what Fabric says, whichever was imported last.
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("fabric", "pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Of convolutions with one input channel a group.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _summarise(files: run.RunFiles, images: ImageData, settings: Settings, workers: int) -> TrainingResult:
    """Evaluate the best checkpoint as a user would load it, and write summary.json."""
    classifier = load_classifier(files.output / run.BEST)
    outcomes = list(classify(classifier, images.validation, batch_size=settings.batch_size, workers=workers))
    evaluation = tally(outcomes, classifier.classes)
    result = TrainingResult(
        output=files.output,
        best_top1=evaluation.top1,
        best_epoch=int(files.best["epoch"]),
        epochs=len(files.rows),
        seconds=sum(row["seconds"] for row in files.rows),
        images_per_second=statistics.median(row["images_per_second"] for row in files.rows),
        validation=evaluation,
        outcomes=outcomes,
    )
    found = EvaluationImages(images=images.validation, measured=images.measured)
    summary = vars(result) | {"output": str(files.output), "validation": asdict(evaluation) | found.facts}
    del summary["outcomes"]
    run.write_json(files.output / run.SUMMARY, summary)
    return result
