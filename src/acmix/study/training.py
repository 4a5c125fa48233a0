"""One training of a study, in a folder of its own until it is finished."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric, seed_everything
from safetensors.torch import load, save
from torch import Tensor, nn

from acmix.checkpoints.files import LAST
from acmix.data.datasets import OpenedData
from acmix.errors import PreemptedError
from acmix.storage import write_atomically
from acmix.study.kinds import Kind
from acmix.study.pretrained import Pretraining, start_from
from acmix.study.results import CONVOLUTION, Trained
from acmix.study.variants import VARIANTS, rates
from acmix.tasks.loop import run, states
from acmix.tasks.loop.execute import execute
from acmix.tasks.loop.measures import EpochRow
from acmix.tasks.loop.progress import Progress, Reporting
from acmix.tasks.loop.settings import LoopSettings

# What is told of the network that others start from.
PRETRAINED = "pretrained"


@dataclass(frozen=True, kw_only=True)
class Watching:
    """Whom to tell of a study's progress.

    Attributes:
        on_start: Called with the number of trainings that are finished and of all.
        on_update: Called with network, seed and progress after every update.
        on_trained: Called with every finished training.
    """

    on_start: Callable[[int, int], None] | None = None
    on_update: Callable[[str, int, Progress], None] | None = None
    on_trained: Callable[[Trained], None] | None = None


@dataclass(frozen=True)
class Trainer:
    """Trains networks with one seed.

    Attributes:
        kind: Of the training.
        images: Split by that seed.
        output: The folder of the study.
        workers: Processes that read images; None as in training.
        fabric: Where it computes.
        watching: Whom to tell.
    """

    kind: Kind
    images: OpenedData[Any]
    output: Path
    workers: int | None
    fabric: Fabric
    watching: Watching

    def train(self, name: str, settings: LoopSettings, start: Mapping[str, Tensor] | None) -> Trained:
        """Train a network, from its last state if there is one.

        Args:
            name: Of the variant.
            settings: With the seed.
            start: Weights of a network with 3x3 convolutions to start from; None starts afresh.

        Raises:
            TrainingError: If the training had to stop, `PreemptedError` because a scheduler asked it to.
            KeyboardInterrupt: If the person stops it.
        """
        network = self._network(name, settings)
        if start is not None:
            start_from(network, start)
        folder, rows = self._execute(name, network, settings)
        shutil.rmtree(folder)
        first, *others = self.kind.scores
        return Trained(
            variant=name,
            seed=settings.seed,
            accuracy=rows[-1][first.name],
            curve=[row[first.name] for row in rows],
            train_loss=rows[-1]["train_loss"],
            rates=rates(network),
            seconds=sum(row["seconds"] for row in rows),
            scores={each.name: rows[-1][each.name] for each in others if each.name in rows[-1]},
        )

    def pretrained(self, settings: LoopSettings, pretraining: Pretraining) -> dict[str, Tensor]:
        """Weights of the network with 3x3 convolutions; trained if that was not yet done.

        Args:
            settings: Of what follows, with the seed.
            pretraining: What is else in this one.

        Raises:
            TrainingError: As `train`.
            KeyboardInterrupt: If the person stops it.
        """
        path = pretrained_weights(self.output, settings.seed)
        if not path.exists():
            own = replace(settings, **asdict(pretraining))
            network = self._network(CONVOLUTION, own)
            folder, _ = self._execute(PRETRAINED, network, own, _keep)
            (folder / LAST).replace(path)
            shutil.rmtree(folder)
        return load(path.read_bytes())

    def _network(self, name: str, settings: LoopSettings) -> nn.Module:
        seed_everything(settings.seed, workers=True, verbose=False)
        return VARIANTS[name].build(self.kind.shape(settings, len(self.images.train.classes)))

    def _execute(
        self,
        name: str,
        network: nn.Module,
        settings: LoopSettings,
        write: Callable[[Path, EpochRow, Mapping[str, Tensor]], None] = lambda *_: None,
    ) -> tuple[Path, list[EpochRow]]:
        prepared = self.kind.room.prepare(network, self.images, settings, self.fabric, workers=self.workers)
        folder = self.output / "running" / f"{name}-{settings.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        saved = states.paths(folder)
        files = run.RunFiles(folder, prepared.measures, write, "repeat the same command")

        def tell(progress: Progress) -> None:
            if self.watching.on_update is not None:
                self.watching.on_update(name, settings.seed, progress)

        reporting = Reporting(on_update=tell, keep_states=1, save_minutes=5)
        try:
            state = states.read(saved[-1]) if saved else None
            execute(prepared, self.fabric, files, state, reporting)
        except (KeyboardInterrupt, PreemptedError) as error:
            stopped = f"{name}, seed {settings.seed}, was stopped and is saved"
            raise type(error)(stopped) from error
        return folder, files.rows


def pretrained_weights(output: Path, seed: int) -> Path:
    """The file of the network that all others of a seed start from."""
    return output / f"{PRETRAINED}-{seed}.safetensors"


def _keep(path: Path, _: EpochRow, weights: Mapping[str, Tensor]) -> None:
    write_atomically(path, save({name: tensor.cpu().contiguous() for name, tensor in weights.items()}))
