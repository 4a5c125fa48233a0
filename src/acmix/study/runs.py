"""Train every network of a study with every seed; what is finished is kept, what is interrupted continues."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from acmix import storage
from acmix.bench import machine
from acmix.bench.comparison import Candidate, forward_call, training_call
from acmix.bench.measure import time_interleaved
from acmix.data.datasets import OpenedData
from acmix.errors import InputError, check_least, meant
from acmix.study.kinds import KINDS, Kind
from acmix.study.networks import Shape
from acmix.study.pretrained import Pretraining, start_from
from acmix.study.results import CONVOLUTION, Measured, Study, load_study, save_study
from acmix.study.training import Trainer, Watching, pretrained_weights
from acmix.study.variants import VARIANTS, usual_variants
from acmix.tasks.loop.distribution import make_fabric
from acmix.tasks.loop.fields import defaults
from acmix.tasks.loop.recipes import resolve
from acmix.tasks.loop.session import quiet, session
from acmix.tasks.loop.settings import LoopSettings

RESULTS = "study.json"
# Where data lie is no matter of what they are, which their fingerprint says.
_PLACES = ("location", "validation_location")
# Settings that would make one network of a study of all, and how networks of a study are named instead.
_OF_ONE = {"quiet_shifts": "quiet-shifts", "acmix_stages": "last-stage for instance"}


def run_study(
    data: str,
    settings: LoopSettings,
    output: Path,
    *,
    variants: Sequence[str] | None = None,
    seeds: int = 5,
    pretraining: Pretraining | None = None,
    validation: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    seconds: float = 30.0,
    watching: Watching | None = None,
) -> Study:
    """Train networks that differ in the operator alone, then time them in turn in this process.

    Trainings with one seed share split, order, augmentation and batches. The same call continues an unfinished study,
    an interrupted training at its last state, and extends a finished one by networks and seeds. A study.json alone, put
    into an empty folder, is continued by the same call, wherever its data lie now; of its seeds those that need more
    trainings from a pretrained network are trained anew, all networks from one.

    Args:
        data: What a training of the kind opens, see `acmix.tasks.loop.fitting.Room.fit`.
        settings: Of every training of one of `acmix.study.kinds.KINDS`; `settings.seed` is the first seed, the model or
            backbone a network with ACmix.
        output: The folder of the study, made if missing.
        variants: Names of `VARIANTS`; None for `usual_variants` of the model.
        seeds: How many, at least 2.
        pretraining: Where all networks of a seed start from one with 3x3 convolutions, trained before: how it is.
        validation: Validation images, as in training.
        workers: Processes that read images; None as in training.
        device: Where it computes, see `acmix.devices.find_device`.
        seconds: Time to spend on timing forward passes, and on forward and backward passes.
        watching: Whom to tell.

    Raises:
        InputError: If an argument or the data cannot be used, or output holds a study under other settings.
        TrainingError: If a training had to stop, `PreemptedError` because a scheduler asked it to.
        KeyboardInterrupt: If the person stops it.
    """
    settings.check()
    kind = KINDS[settings.task]
    kind.room.check(settings)
    for name, instead in _OF_ONE.items():
        if getattr(settings, name, None) not in (None, False):
            raise InputError(f"{name} makes one network of a study; leave it out, and name {instead} in variants")
    if settings.patience is not None:
        raise InputError("patience would choose the last epoch by the images that are reported; leave it out")
    variants = usual_variants(getattr(settings, kind.operators)) if variants is None else [*dict.fromkeys(variants)]
    _check(variants, seconds)
    if seeds < 2:
        raise InputError(f"seeds must be at least 2, so that there is a spread, got {seeds}")
    check_least(0, workers=workers)
    watching = watching or Watching()
    with session(settings, device=device, devices=1) as fabric, ExitStack() as held:
        facts = _look_at(kind, data, settings, variants, validation, fabric)
        shape = kind.shape(settings, facts["classes"])
        if pretraining is not None:
            _check_starts(settings, variants, pretraining, shape)
        facts["pretraining"] = None if pretraining is None else asdict(pretraining)
        held.enter_context(_alone(output))
        study = _begin(facts, settings, output, variants, shape)
        wanted = [(seed, name) for seed in range(settings.seed, settings.seed + seeds) for name in variants]
        if pretraining is not None:
            _forget_lost_starts(study, wanted, output)
        finished = {(item.seed, item.variant) for item in study.trainings} & set(wanted)
        if watching.on_start is not None:
            watching.on_start(len(finished), len(wanted))
        # Seed by seed, so that an unfinished study has whole pairs.
        for seed in sorted({seed for seed, _ in set(wanted) - finished}):
            own = replace(settings, seed=seed)
            images = _open(kind, data, own, validation, check_images=False)
            trainer = Trainer(kind, images, output, workers, fabric, watching)
            start = None if pretraining is None else trainer.pretrained(own, pretraining)
            for name in [name for name in variants if (seed, name) not in finished]:
                study.trainings.append(trainer.train(name, own, start))
                save_study(output / RESULTS, study)
                if watching.on_trained is not None:
                    watching.on_trained(study.trainings[-1])
        if any(item.forward is None for item in study.variants.values()):
            _measure(study, fabric, seconds)
            save_study(output / RESULTS, study)
    return study


def time_study(results: Path, *, device: str = "auto", seconds: float = 30.0) -> Study:
    """Time all networks of a study anew, in turn in this process, on a machine that does nothing else.

    Args:
        results: The study.json of a study; it is written anew.
        device: As in `run_study`.
        seconds: As in `run_study`.

    Raises:
        InputError: If seconds is not positive, the file is no study, or it holds a network that is unknown here.
    """
    study = load_study(results)
    _check(list(study.variants), seconds)
    with quiet():
        fabric = make_fabric(study.settings["precision"], device=device, devices=1)
        _measure(study, fabric, seconds)
    save_study(results, study)
    return study


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Make the folder of a study, and keep other studies from it."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {output} cannot be made: {error.strerror or error}") from error
    with storage.held(output) as free:
        if not free:
            raise InputError(
                f"output {output} is of a study that goes on in another process; wait until it has ended, or end it"
            )
        yield


def _check(variants: Sequence[str], seconds: float) -> None:
    for name in variants:
        if name not in VARIANTS:
            raise InputError(f"variants must be names of networks of the study, got {name!r}; {meant(name, VARIANTS)}")
    if not variants:
        raise InputError(f"variants must name at least one of {', '.join(VARIANTS)}")
    if not seconds > 0:
        raise InputError(f"seconds must be positive, got {seconds}")


def _check_starts(settings: LoopSettings, variants: Sequence[str], pretraining: Pretraining, shape: Shape) -> None:
    """Refuse what cannot start from a network with 3x3 convolutions, before that is trained."""
    replace(settings, **asdict(pretraining)).check()
    weights = VARIANTS[CONVOLUTION].build(shape).state_dict()
    for name in variants:
        try:
            start_from(VARIANTS[name].build(shape), weights)
        except InputError as error:
            raise InputError(f"variants: {name}: {error}; leave it out, or pretraining") from error


def _forget_lost_starts(study: Study, wanted: Sequence[tuple[int, str]], output: Path) -> None:
    """Take what was trained with a seed out of a study where more is wanted, and the network it started from is gone.

    Another one, of another machine perhaps, would not be the same to the last bit, and the seed no pair.
    """
    missing = set(wanted) - {(item.seed, item.variant) for item in study.trainings}
    lost = {seed for seed, _ in missing if not pretrained_weights(output, seed).exists()}
    study.trainings = [item for item in study.trainings if item.seed not in lost]


def _open(
    kind: Kind, data: str, settings: LoopSettings, validation: str | None, *, check_images: bool
) -> OpenedData[Any]:
    images = kind.room.open(data, settings, validation=validation, check_images=check_images)
    if getattr(settings, "multi_label", False) or getattr(images.train, "multi_label", False):
        raise InputError(
            f"DATA {data} gives images any number of labels; a study compares accuracies on one label each"
        )
    return images


def _look_at(
    kind: Kind, data: str, settings: LoopSettings, variants: Sequence[str], validation: str | None, fabric: Fabric
) -> dict[str, Any]:
    """What a study says of its data, every image of which is read."""
    images = _open(kind, data, settings, validation, check_images=True)
    classes = len(images.train.classes)
    # Says of what the settings ask for whether there is such a network; that of the study is none other.
    kind.room.network(settings, classes)
    network = VARIANTS[variants[0]].build(kind.shape(settings, classes))
    size = kind.input_size(kind.room.prepare(network, images, settings, fabric).trained)
    return {
        # As typed: results are passed on, and a whole path would tell of a machine.
        "location": data,
        "validation_location": validation,
        "fingerprint": images.fingerprint,
        "train_images": len(images.train),
        "validation_images": len(images.validation),
        "classes": classes,
        "input_size": list(size),
    }


def _begin(facts: dict[str, Any], settings: LoopSettings, output: Path, variants: Sequence[str], shape: Shape) -> Study:
    """The study in the folder, with room for all networks asked for; a new one if there is none."""
    shared = {name: value for name, value in asdict(settings).items() if name != "seed"}
    study = Study(data=facts, settings=shared, variants={}, task=settings.task)
    if (output / RESULTS).exists():
        study = load_study(output / RESULTS)
        if study.task != settings.task:
            raise InputError(f"{output} holds a study of {study.task}, this is {settings.task}; choose another folder")
        was, now = study.data | defaults(type(settings)) | study.settings, facts | shared
        if changed := [
            f"{name} was {was.get(name)}, is {value}"
            for name, value in now.items()
            if was.get(name) != value and name not in _PLACES
        ]:
            raise InputError(
                f"{output} holds a study under other settings: {'; '.join(changed)}; choose another folder"
            )
    if new := [name for name in variants if name not in study.variants]:
        size = tuple(facts["input_size"])
        costs = {name: VARIANTS[name].cost(shape, size) for name in [*study.variants, *new]}
        # Times are of one session, in turn: a new network has all timed again.
        study.variants = {
            name: Measured(variant.title, costs[name].parameters, costs[name].multiply_adds)
            for name, variant in VARIANTS.items()
            if name in costs
        }
    save_study(output / RESULTS, study)
    return study


def _measure(study: Study, fabric: Fabric, seconds: float) -> None:
    """Fill in times of all networks, measured in turn in the precision that they were trained in."""
    torch.manual_seed(0)
    device, kind, batch = fabric.device, KINDS[study.task], study.settings["batch_size"]
    shape = kind.shape(resolve({}, study.settings, kind.settings), study.data["classes"])
    image = torch.randn(batch, *study.data["input_size"], device=device)
    networks = {name: _answering(shape, VARIANTS[name].build(shape)).to(device) for name in study.variants}
    candidates = {name: Candidate(network, image, network) for name, network in networks.items()}
    forward = {name: _autocast(fabric, forward_call(candidate)) for name, candidate in candidates.items()}
    forward_times = time_interleaved(forward, seconds, device=device)
    training = {
        name: _autocast(fabric, training_call(candidate, input_gradient=False))
        for name, candidate in candidates.items()
    }
    training_times = time_interleaved(training, seconds, device=device)
    study.batch, study.machine = batch, machine()
    study.variants = {
        name: replace(item, forward=forward_times[name], training=training_times[name])
        for name, item in study.variants.items()
    }


def _answering(shape: Shape, network: nn.Module) -> nn.Module:
    """A network that gives one tensor, as those do that are timed."""
    called = shape.on_images(network)
    return called if called is network else _Joined(called)


class _Joined(nn.Module):
    """All that a network answers as one tensor.

    Args:
        network: Of any answers.

    Shape:
        As the network's, to `(numbers,)`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Compute the answers."""
        return torch.cat([answer.flatten() for answer in tree_leaves(self.network(images))])


def _autocast(fabric: Fabric, call: Callable[[], object]) -> Callable[[], object]:
    """A call in the precision of a training, weights cast anew each time as there."""

    def cast() -> object:
        with fabric.autocast():
            return call()

    return cast
