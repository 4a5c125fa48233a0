"""The loop: updates, epochs, states. Fabric distributes it; everything random is a function of seed and position."""

import math
import time
from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers import TensorBoardLogger
from timm.utils import distribute_bn
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict

from acmix.errors import InputError, PreemptedError, TrainingError
from acmix.paths import operators_of
from acmix.tasks.loop import states
from acmix.tasks.loop.distribution import summed
from acmix.tasks.loop.interruption import Interruption
from acmix.tasks.loop.learner import Learner
from acmix.tasks.loop.measures import EpochRow, stale_epochs
from acmix.tasks.loop.optimization import WHOLE
from acmix.tasks.loop.progress import Reporting
from acmix.tasks.loop.run import PROBLEMS, RateRow, RunFiles
from acmix.tasks.loop.settings import LoopSettings
from acmix.tasks.loop.task import Batches, Task
from acmix.tasks.loop.updates import NAMED, Updates

_LOG_EVERY = 50


class Training:
    """One run.

    Args:
        fabric: The processes, launched.
        model: The network, the same in every process.
        task: What it learns.
        batches: What it learns from, and is validated with.
        settings: The run's settings.
        files: The run folder.
        reporting: Whom to tell.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        task: Task,
        batches: Batches,
        settings: LoopSettings,
        files: RunFiles,
        reporting: Reporting,
    ) -> None:
        self.fabric, self.task, self.settings, self.files, self.reporting = fabric, task, settings, files, reporting
        self.validation = batches.validation
        self.learner = Learner(fabric, model, task, settings, batches.sampler.update_sizes)
        self.updates = Updates(fabric, self.learner, batches, self._tell_problem)
        self.logger = TensorBoardLogger(files.output, name="tensorboard", version="") if fabric.is_global_zero else None
        self._saved_at = 0.0
        self._interruption = Interruption()

    def run(self) -> None:
        """Train to the last epoch, or as many as there is patience for.

        Raises:
            TrainingError: If the run has to stop; its message says why.
            PreemptedError: If a signal asked it to; the state is saved.
            KeyboardInterrupt: If a person did; the state is saved.
        """
        with self._interruption:
            # A disk that is full or slow shows at once, and whatever happens next can be resumed.
            if not self.files.rows:
                self._save_state()
            self._saved_at = time.monotonic()
            try:
                while self.updates.epoch < self.settings.epochs and not self._is_out_of_patience():
                    self._train_epoch()
                    with self.updates.sums.measure("validation"):
                        found = self._validate()
                    self._finish_epoch(found)
            finally:
                self._close_log()

    def _is_out_of_patience(self) -> bool:
        """Whether too many epochs in a row were no better; the first process has their rows."""
        patience = self.settings.patience
        if patience is None:
            return False
        return self.fabric.broadcast(stale_epochs(self.files.rows, self.files.measures) >= patience)

    def _close_log(self) -> None:
        """End TensorBoard's thread; that must not hide why a run stopped."""
        if self.logger is not None:
            try:
                self.logger.finalize("finished")
            except OSError as error:
                self._say(f"TensorBoard's log is incomplete: {error.strerror or error}")

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where a state of `acmix.tasks.loop.states` left off.

        Raises:
            InputError: If the state is of another version, which kept other parts.
        """
        try:
            self.updates.restore(state)
            self.files.rows, self.files.rates = state["rows"], state["rates"]
        except (KeyError, TypeError) as error:
            raise InputError(f"the state is of another version of acmix ({error}); continue with that one") from error

    def _save_state(self) -> None:
        with self.updates.sums.measure("saving"):
            content = self.updates.state() | {"rows": self.files.rows, "rates": self.files.rates}
            if self.fabric.is_global_zero:
                keep, advice = self.reporting.keep_states, self.files.advice
                states.save(self.files.output, self.updates.count, content, keep=keep, advice=advice)
            self.fabric.barrier()
        self._saved_at = time.monotonic()

    def _train_epoch(self) -> None:
        for stop, save in self.updates.rest_of_epoch(self._tell_others):
            self._give_up_if_hopeless()
            self._tell()
            if stop > 0:
                self._stop()
            if save > 0:
                self._save_state()

    def _tell_others(self) -> tuple[bool, bool]:
        """Whether this process was asked to stop, and whether a state is due by the first one's clock."""
        due = time.monotonic() - self._saved_at > 60 * self.reporting.save_minutes
        return self._interruption.received is not None, due and self.fabric.is_global_zero

    def _give_up_if_hopeless(self) -> None:
        """Stop where too many updates in a row have failed, or too many images cannot be read."""
        updates, problems = self.updates, self.files.output / PROBLEMS
        if (failures := updates.failures) >= self.settings.most_failures:
            updates.failures = 0
            self._save_state()
            raise TrainingError(
                f"{failures} updates in a row without finite loss and gradients, the last in epoch "
                f"{updates.epoch + 1}; their images are in {problems}; the weights before "
                "them are kept; a lower learning_rate, clip_norm=1 or another precision may help"
            )
        unreadable, images = [*updates.unreadable.values()], updates.batches.sampler.count
        if len(unreadable) > self.settings.most_unreadable * images / self.fabric.world_size:
            listed = "; ".join(unreadable[:NAMED]) + ("; ..." if len(unreadable) > NAMED else "")
            raise TrainingError(
                f"{len(unreadable)} of {images} images cannot be read, more than the share "
                f"most_unreadable = {self.settings.most_unreadable}: {listed}; all are in {problems}"
            )

    def _tell(self) -> None:
        progress = self.updates.progress()
        if self.reporting.on_update is not None and self.fabric.is_global_zero:
            self.reporting.on_update(progress)
        if self.logger is not None and self.updates.count % _LOG_EVERY == 0:
            names = ("loss", "learning_rate", "images_per_second", "waiting")
            self.logger.log_metrics({name: getattr(progress, name) for name in names}, self.updates.count)

    def _tell_problem(self, problem: dict[str, Any], sentence: str) -> None:
        self.files.report_problem(problem)
        self._say(sentence)

    def _say(self, sentence: str) -> None:
        if self.reporting.on_problem is not None:
            self.reporting.on_problem(sentence)

    def _stop(self) -> None:
        """Save and end, as the signal asked."""
        self._save_state()
        received = self._interruption.received
        name = "another process" if received is None else received.name
        message = (
            f"stopped by {name} in epoch {self.updates.epoch + 1} after update {self.updates.update} of "
            f"{len(self.updates.sizes)}; the state is saved, {self.files.advice}"
        )
        raise KeyboardInterrupt(message) if name == "SIGINT" else PreemptedError(message)

    @torch.no_grad()
    def _validate(self) -> Mapping[str, float]:
        """What the task measures, over all processes."""
        average = self.learner.average
        network: nn.Module = self.learner.model if average is None else average.module
        if self.fabric.world_size > 1:
            # The first process's statistics are those that states keep.
            distribute_bn(network, self.fabric.world_size, reduce=False)
        network.eval()
        for number, batch in enumerate(self.validation, 1):
            # Fabric knows nothing of the average.
            with self.fabric.autocast():
                self.task.measure(network, self.fabric.to_device(batch))
            stop = torch.tensor(float(self._interruption.received is not None), device=self.fabric.device)
            if summed(self.fabric, stop) > 0:
                self._stop()
            if self.reporting.on_validation is not None and self.fabric.is_global_zero:
                self.reporting.on_validation(self.updates.epoch + 1, number, len(self.validation))
        found = {name: float(value) for name, value in self.task.metrics.compute().items()}
        self.task.metrics.reset()
        if lost := [name for name, value in found.items() if not math.isfinite(value)]:
            raise TrainingError(
                f"{', '.join(lost)} after epoch {self.updates.epoch + 1} not finite: weights have overflowed, and the "
                "epoch is not kept; begin anew with a lower learning_rate, clip_norm=1 or another precision"
            )
        return found

    def _finish_epoch(self, found: Mapping[str, float]) -> None:
        sums = self.updates.sums
        row = {"epoch": self.updates.epoch + 1, "train_loss": sums.loss / max(1, sums.learned), **found}
        row |= {"learning_rate": self.learner.learning_rate} | sums.row()
        self.updates.next_epoch()
        network = self.learner.network
        with self.updates.sums.measure("saving"):
            weights = cast("Mapping[str, Tensor]", get_model_state_dict(network, options=WHOLE))
            if self.fabric.is_global_zero:
                self.files.write_epoch(row, _rates(row, network, weights), weights)
        if self.logger is not None:
            named = {name: value for name, value in row.items() if name != "epoch"}
            self.logger.log_metrics(named, self.updates.count)
            self.logger.save()
        self._save_state()
        if self.reporting.on_epoch is not None and self.fabric.is_global_zero:
            self.reporting.on_epoch(row)


def _rates(row: EpochRow, network: nn.Module, weights: Mapping[str, Tensor]) -> list[RateRow]:
    """The two rates of every ACmix layer that has them among its weights: processes may hold the network in parts.

    Rates that are computed, of a parametrisation for instance, have no row.
    """
    return [
        {
            "epoch": row["epoch"],
            "layer": name,
            "attention": float(weights[f"{name}.rate_attention"]),
            "convolution": float(weights[f"{name}.rate_convolution"]),
        }
        for name in operators_of(network)
        if f"{name}.rate_attention" in weights and f"{name}.rate_convolution" in weights
    ]
