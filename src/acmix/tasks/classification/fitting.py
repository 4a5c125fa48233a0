"""Train a classifier in a run folder: everything is checked first, then `acmix.tasks.loop` runs."""

import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from lightning.fabric import Fabric, seed_everything

from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.opening import load
from acmix.data import EvaluationImages, ImageData, open_dataset
from acmix.errors import InputError, counted
from acmix.models.names import check_name
from acmix.progress import Progress, silent
from acmix.tasks.classification.checks import Checked, check_images_together
from acmix.tasks.classification.execute import execute
from acmix.tasks.classification.inference import Evaluation, Outcome, classify, tally
from acmix.tasks.classification.measures import MEASURES
from acmix.tasks.classification.networks import load_start_weights
from acmix.tasks.classification.prepare import Prepared, configuration, fresh_network, prepare
from acmix.tasks.classification.settings import Settings
from acmix.tasks.loop import freezing, run
from acmix.tasks.loop.distribution import Strategy
from acmix.tasks.loop.extending import Origin, extension
from acmix.tasks.loop.failures import explained
from acmix.tasks.loop.folder import at_work
from acmix.tasks.loop.measures import stale_epochs
from acmix.tasks.loop.progress import Reporting
from acmix.tasks.loop.session import session


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a finished run achieved.

    Attributes:
        output: The run folder; `acmix.tasks.loop.run` lists its files.
        best_top1: Highest validation accuracy, 0..1.
        best_epoch: Its epoch, counted from 1.
        epochs: Epochs trained, those of a run from which it went on among them.
        stopped_early: Why it did not train all that were asked for; None if it did.
        seconds: Of all epochs, validation included.
        images_per_second: Training images a second, median over the epochs.
        validation: Evaluation of best.safetensors on the validation images.
        outcomes: What it made of each of them, in their order.
    """

    output: Path
    best_top1: float
    best_epoch: int
    epochs: int
    stopped_early: str | None
    seconds: float
    images_per_second: float
    validation: Evaluation
    outcomes: list[Outcome]

    def load(self) -> Classifier:
        """The best checkpoint, ready to use."""
        return load(self.output / run.BEST)


def fit(
    data: str,
    settings: Settings,
    output: Path,
    *,
    validation: str | None = None,
    resume: bool = False,
    extend: Path | None = None,
    weights: Path | None = None,
    workers: int | None = None,
    check_images: bool = True,
    progress: Progress = silent,
    device: str = "auto",
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
        extend: The folder of a run, finished or not, from whose last state this run goes on, in a folder of its own;
            settings may differ in `acmix.tasks.loop.resuming.EXTENDABLE`. Where resume is set it has gone on already.
        weights: Start weights, ours, published or of another trainer, see `load_start_weights`.
        workers: Processes that read images, for each that trains; None shares the cores among them, at most 8 each,
            and is none for bundled digits.
        check_images: Decode every image once before training.
        progress: Shows how far checking is.
        device: Where it computes, see `acmix.devices.find_device`.
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
    if extend is not None and weights is not None:
        raise InputError(f"weights {weights} cannot be: the run goes on with those of {extend}; leave one out")
    run.prepare_folder(output, resume=resume, epochs=settings.epochs)
    reporting = reporting or Reporting()
    with session(settings, device=device, devices=devices, strategy=strategy) as fabric:
        seed_everything(settings.seed, workers=True, verbose=False)
        progress = progress if fabric.is_global_zero else silent
        images, checked = _open(data, validation, settings, fabric, check_images=check_images, progress=progress)
        network, arguments = fresh_network(settings, len(images.train.classes))
        started = None if weights is None or resume else load_start_weights(network, weights)
        prepared = prepare(network, images, settings, fabric, arguments=arguments, workers=workers)
        config = configuration(prepared, fabric.world_size, weights=weights, contents=checked.contents)
        config |= {"device": device, "strategy": strategy}
        record = {key: config[key] for key in ("settings", "data", "weights", "taken")}
        prepared = replace(prepared, record=record | {"trained_images": checked.trained.to_record()})
        if started is not None:
            config["start_weights"] = started
        state = None
        if extend is not None and not resume:
            state, origin = extension(extend, config, settings)
            config["extends"] = asdict(origin)
        with at_work(output, config, settings, fabric, reporting, resume=resume) as saved:
            advice = f"continue with: {run.continuing(output, config)}"
            files = run.RunFiles(output, MEASURES, prepared.save, advice)
            if fabric.is_global_zero and reporting.on_start is not None:
                reporting.on_start(_facts(prepared, fabric, files, resumed=resume))
            execute(prepared, fabric, files, saved or state, reporting)
    try:
        return _summarise(files, prepared, fabric.device) if fabric.is_global_zero else None
    except OSError as error:
        raise explained(error, files) from error


def _open(
    data: str, validation: str | None, settings: Settings, fabric: Fabric, *, check_images: bool, progress: Progress
) -> tuple[ImageData, Checked]:
    """The images, and what reading each of them once told."""
    images = open_dataset(
        data,
        validation=validation,
        val_fraction=settings.val_fraction,
        seed=settings.seed,
        check_images=False,
        progress=progress,
    )
    checked = check_images_together(images, fabric, progress=progress) if check_images else Checked()
    if checked.copies:
        images.taken["copies"] = f"{checked.copies:,} validation images are training images, see acmix data check"
    return images, checked


def _facts(prepared: Prepared, fabric: Fabric, files: run.RunFiles, *, resumed: bool) -> dict[str, str]:
    """What the run is made of, in words."""
    config = run.read_json(files.output / run.CONFIG)
    settings, sampler, network = prepared.settings, prepared.sampler, prepared.classifier.model
    parameters = sum(parameter.numel() for parameter in network.parameters())
    channels, height, width = prepared.classifier.preprocessing["input_size"]
    threads = counted(torch.get_num_threads(), "thread")
    device = f"{fabric.device}, {threads}" if fabric.device.type == "cpu" else str(fabric.device)
    processes = "" if fabric.world_size == 1 else f", {counted(fabric.world_size, 'process')}"
    updates, images = counted(len(sampler.update_sizes), "update"), counted(max(sampler.update_sizes), "image")
    facts = prepared.images.taken | {
        "network": f"{settings.model}, {parameters:,} parameters, images of {channels} x {height} x {width}",
        "device": f"{device}{processes}, {settings.precision}",
        "epochs": f"{settings.epochs} of {updates}, {images} each, {settings.optimizer}",
        "output": str(files.output),
    }
    if (started := config.get("start_weights")) is not None:
        facts["weights"] = started.removeprefix("weights ")
    if (origin := config.get("extends")) is not None:
        facts["goes on from"] = str(Origin(**origin))
    if (weights := prepared.class_weights) is not None:
        ends = [
            f"{weights[label]:.3g} ({prepared.classifier.classes[label]})"
            for label in (int(weights.argmin()), int(weights.argmax()))
        ]
        facts["class weights"] = f"{settings.class_weights}, {ends[0]} to {ends[1]}"
    if (frozen := freezing.described(network)) is not None:
        facts["frozen"] = (
            frozen if config["weights"] or origin else f"{frozen}, with fresh weights; --weights gives others"
        )
    if resumed:
        facts["continues"] = f"where {files.output} was saved last"
    return facts


def _summarise(files: run.RunFiles, prepared: Prepared, device: torch.device) -> TrainingResult:
    """Evaluate the best checkpoint as a user would load it, and write summary.json."""
    classifier = load(files.output / run.BEST, device=device)
    images, batch_size = prepared.images, prepared.settings.batch_size
    outcomes = list(classify(classifier, images.validation, batch_size=batch_size, workers=prepared.workers))
    evaluation = tally(outcomes, classifier.classes)
    result = TrainingResult(
        output=files.output,
        best_top1=evaluation.top1,
        best_epoch=int(files.best["epoch"]),
        epochs=int(files.rows[-1]["epoch"]),
        stopped_early=_why_early(files, prepared.settings),
        seconds=sum(row["seconds"] for row in files.rows),
        images_per_second=statistics.median(row["images_per_second"] for row in files.rows),
        validation=evaluation,
        outcomes=outcomes,
    )
    found = EvaluationImages(images=images.validation, measured=images.measured)
    summary = vars(result) | {"output": str(files.output), "validation": asdict(evaluation) | found.facts}
    del summary["outcomes"]
    if (origin := run.read_json(files.output / run.CONFIG).get("extends")) is not None:
        summary["extends"] = origin
    run.write_json(files.output / run.SUMMARY, summary)
    return result


def _why_early(files: run.RunFiles, settings: Settings) -> str | None:
    """Why the run ended before its last epoch; None if it did not."""
    if files.rows[-1]["epoch"] == settings.epochs:
        return None
    stale = stale_epochs(files.rows, files.measures)
    return f"{counted(stale, 'epoch')} without a better {files.measures[0].title}, patience = {settings.patience}"
