"""Train in a run folder, whatever the kind: everything is checked first, then the loop runs."""

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric, seed_everything
from torch import nn

from acmix.checkpoints.opening import load
from acmix.data import EvaluationImages
from acmix.data.datasets import OpenedData
from acmix.devices import multiplies_bfloat16
from acmix.errors import InputError, check_least, counted
from acmix.progress import Progress, silent
from acmix.tasks.loop import freezing, run
from acmix.tasks.loop.checks import Checked, checked_images
from acmix.tasks.loop.distribution import Strategy, launcher
from acmix.tasks.loop.execute import execute
from acmix.tasks.loop.extending import Origin, extension
from acmix.tasks.loop.failures import explained
from acmix.tasks.loop.folder import at_work
from acmix.tasks.loop.measures import stale_epochs
from acmix.tasks.loop.prepared import Prepared, configuration, writer
from acmix.tasks.loop.progress import Reporting
from acmix.tasks.loop.results import TrainingResult
from acmix.tasks.loop.session import session
from acmix.tasks.loop.settings import LoopSettings

# What follows a precision.
_SLOW = ", for which PyTorch knows no instructions of this processor: float32 is faster"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a person asks of a training beside data and settings.

    Attributes:
        resume: Continue the unfinished run in the folder, which had equal settings, at the update after its last state.
        extend: The folder of a run, finished or not, from whose last state this run goes on, in a folder of its own;
            settings may differ in `acmix.tasks.loop.resuming.EXTENDABLE`. Where resume is set it has gone on already.
        weights: The file of start weights.
        workers: Processes that read images, for each that trains; None leaves it to the kind.
        check_images: Decode every image once before training.
        progress: Shows how far checking is, and measuring the best checkpoint.
        device: Where it computes, see `acmix.devices.find_device`.
        devices: Processes on this machine, see `acmix.tasks.loop.distribution.make_fabric`.
        strategy: How processes share the network, see there.
        reporting: Whom to tell of progress, and how often to save.
    """

    resume: bool = False
    extend: Path | None = None
    weights: Path | None = None
    workers: int | None = None
    check_images: bool = True
    progress: Progress = silent
    device: str = "auto"
    devices: int | None = None
    strategy: Strategy = "ddp"
    reporting: Reporting | None = None

    @property
    def start_weights(self) -> Path | None:
        """Those that are to be loaded: a run that goes on has its own."""
        return None if self.resume else self.weights

    def check(self) -> None:
        """Raise InputError if options contradict each other."""
        check_least(0, workers=self.workers)
        if self.extend is not None and self.weights is not None:
            raise InputError(
                f"weights {self.weights} cannot be: the run goes on with those of {self.extend}; leave one out"
            )


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a kind of training does before the loop runs; `fit` is the door that it opens in its `fitting.py`.

    Attributes:
        check: Refuses settings, or an installation, that cannot be used whatever the data are.
        open: Images of DATA to train on and to validate with, by the settings; options are `validation`,
            `check_images` and `progress`.
        network: Fresh, by settings and the number of classes.
        load: Lays a file of start weights into the network, and says in a sentence what was taken.
        prepare: Checks that the network can be trained on the images; options are `workers`.
    """

    check: Callable[[Any], None]
    open: Callable[..., OpenedData[Any]]
    network: Callable[[Any, int], nn.Module]
    load: Callable[[Any, Path], str]
    prepare: Callable[..., Prepared]

    def fit(
        self,
        data: str,
        settings: LoopSettings,
        output: Path,
        *,
        validation: str | None = None,
        **options: Any,
    ) -> TrainingResult | None:
        """Train in a run folder; everything is checked before it is touched.

        Args:
            data: What the kind opens: `acmix.data.open_dataset`, `acmix.data.annotated.open_annotated`,
                `acmix.data.masks.opening.open_masked`.
            settings: The run's settings.
            output: The run folder, made if missing; it must not hold a run, unless it is resumed.
            validation: Of validation images, in place of those in data; of a classifier where data has none.
            **options: Those of `Options`; of weights see the kind's `load_start_weights`.

        Returns:
            What the run achieved; None in all processes but the first.

        Raises:
            InputError: If an argument, the data or the run folder cannot be used.
            TrainingError: If the run had to stop, `PreemptedError` because a scheduler asked it to.
            KeyboardInterrupt: If the person stops it; the run can be resumed.
        """
        asked = Options(**options)
        settings.check()
        asked.check()
        self.check(settings)
        run.prepare_folder(output, resume=asked.resume, epochs=settings.epochs)

        def begin(fabric: Fabric) -> _Begun:
            progress = asked.progress if fabric.is_global_zero else silent
            images = self.open(data, settings, validation=validation, check_images=False, progress=progress)
            checked = checked_images(images, fabric, check_images=asked.check_images, progress=progress)
            network = self.network(settings, len(images.train.classes))
            started = None if asked.start_weights is None else self.load(network, asked.start_weights)
            prepared = self.prepare(network, images, settings, fabric, workers=asked.workers)
            return _Begun(prepared=prepared, checked=checked, started=started)

        return _train(begin, settings, output, asked)


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """What a kind has made of data and settings.

    Attributes:
        prepared: What is trained.
        checked: What reading all images told.
        started: What was taken from the file of start weights, in a sentence; None if there is none.
    """

    prepared: Prepared
    checked: Checked
    started: str | None


def _train(
    begin: Callable[[Fabric], _Begun], settings: LoopSettings, output: Path, options: Options
) -> TrainingResult | None:
    """Begin in every process, take the run folder, and run the loop."""
    reporting = options.reporting or Reporting()
    with session(settings, device=options.device, devices=options.devices, strategy=options.strategy) as fabric:
        seed_everything(settings.seed, workers=True, verbose=False)
        begun = begin(fabric)
        prepared, config = begun.prepared, _configuration(begun, fabric, options, reporting)
        state = None
        if options.extend is not None and not options.resume:
            state, origin = extension(options.extend, config, settings)
            config["extends"] = asdict(origin)
        with at_work(output, config, settings, fabric, reporting, resume=options.resume) as saved:
            advice = f"continue with: {run.continuing(output, config)}"
            record = {key: config[key] for key in ("settings", "data", "weights", "taken")}
            record |= {"trained_images": begun.checked.trained.to_record()}
            files = run.RunFiles(output, prepared.measures, writer(prepared.trained, record), advice)
            if fabric.is_global_zero and reporting.on_start is not None:
                reporting.on_start(_facts(prepared, fabric, files, resumed=options.resume))
            execute(prepared, fabric, files, saved or state, reporting)
    try:
        return _summarise(files, prepared, fabric.device, options.progress) if fabric.is_global_zero else None
    except OSError as error:
        raise explained(error, files) from error


def _configuration(begun: _Begun, fabric: Fabric, options: Options, reporting: Reporting) -> dict[str, Any]:
    """What config.json holds."""
    asked = vars(options) | vars(reporting)
    config = configuration(begun.prepared, fabric.world_size) | {
        "weights": None if options.weights is None else str(options.weights),
        "contents": begun.checked.contents,
        "launcher": launcher(),
        **{name: asked[name] for name in run.ASKED},
    }
    return config if begun.started is None else config | {"start_weights": begun.started}


def _facts(prepared: Prepared, fabric: Fabric, files: run.RunFiles, *, resumed: bool) -> dict[str, str]:
    """What the run is made of, in words."""
    config = run.read_json(files.output / run.CONFIG)
    settings, sampler, network = prepared.settings, prepared.sampler, prepared.trained.model
    own = dict(prepared.facts)
    threads = counted(torch.get_num_threads(), "thread")
    device = f"{fabric.device}, {threads}" if fabric.device.type == "cpu" else str(fabric.device)
    slow = settings.precision == "bfloat16" and fabric.device.type == "cpu" and not multiplies_bfloat16()
    processes = "" if fabric.world_size == 1 else f", {counted(fabric.world_size, 'process')}"
    updates, images = counted(len(sampler.update_sizes), "update"), counted(max(sampler.update_sizes), "image")
    facts = prepared.images.taken | {
        "network": f"{settings.network}, {config['parameters']:,} parameters, images of {own.pop('images')}",
        "device": f"{device}{processes}, {settings.precision}{_SLOW if slow else ''}",
        "epochs": f"{settings.epochs} of {updates}, {images} each, {settings.optimizer}",
        "output": str(files.output),
    }
    if (started := config.get("start_weights")) is not None:
        facts["weights"] = started.removeprefix("weights ")
    if (origin := config.get("extends")) is not None:
        facts["goes on from"] = str(Origin(**origin))
    facts |= own
    if (frozen := freezing.described(network)) is not None:
        facts["frozen"] = (
            frozen if config["weights"] or origin else f"{frozen}, with fresh weights; --weights gives others"
        )
    if resumed:
        facts["continues"] = f"where {files.output} was saved last"
    return facts


def _summarise(files: run.RunFiles, prepared: Prepared, device: torch.device, progress: Progress) -> TrainingResult:
    """Evaluate the best checkpoint as a user would load it, and write summary.json."""
    images = prepared.images
    best = load(files.output / run.BEST, device=device)
    outcomes = list(progress(prepared.outcomes(best), "measuring the best", len(images.validation)))
    evaluation = prepared.evaluate(best, outcomes)
    result = TrainingResult(
        output=files.output,
        task=prepared.settings.task,
        measure=files.measures[0].title,
        best=evaluation.first,
        best_epoch=int(files.best["epoch"]),
        epochs=int(files.rows[-1]["epoch"]),
        stopped_early=_why_early(files, prepared.settings),
        seconds=sum(row["seconds"] for row in files.rows),
        images_per_second=statistics.median(row["images_per_second"] for row in files.rows),
        validation=evaluation,
        outcomes=outcomes,
    )
    found = EvaluationImages(images=images.validation, measured=images.measured)
    summary = vars(result) | {"output": str(files.output), "validation": asdict(result.validation) | found.facts}
    del summary["outcomes"]
    if (origin := run.read_json(files.output / run.CONFIG).get("extends")) is not None:
        summary["extends"] = origin
    run.write_json(files.output / run.SUMMARY, summary)
    return result


def _why_early(files: run.RunFiles, settings: LoopSettings) -> str | None:
    """Why the run ended before its last epoch; None if it did not."""
    if files.rows[-1]["epoch"] == settings.epochs:
        return None
    stale = stale_epochs(files.rows, files.measures)
    return f"{counted(stale, 'epoch')} without a better {files.measures[0].title}, patience = {settings.patience}"
