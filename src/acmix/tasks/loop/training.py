"""The loop: updates, epochs, states. Fabric distributes it; everything random is a function of seed and position."""

import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers import TensorBoardLogger
from timm.utils import distribute_bn
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from acmix.data.loading import Batch
from acmix.data.sampling import EpochSampler
from acmix.errors import InputError, PreemptedError, TrainingError
from acmix.nn import ACmix
from acmix.tasks.loop import states
from acmix.tasks.loop.distribution import summed
from acmix.tasks.loop.interruption import Interruption
from acmix.tasks.loop.learner import WHOLE, Learner
from acmix.tasks.loop.progress import EpochSums, Progress, Reporting
from acmix.tasks.loop.run import EpochRow, RateRow, RunFiles
from acmix.tasks.loop.settings import Settings

_LOG_EVERY = 50
_NAMED = 5


class Training:
    """One run.

    Args:
        fabric: The processes, launched.
        model: `(B, C, H, W)` to logits `(B, classes)`, the same in every process.
        settings: The run's settings.
        classes: How many classes.
        loader: Of the training images.
        sampler: The loader's batch sampler.
        validation: Batches of validation images and labels of this process.
        files: The run folder.
        reporting: Whom to tell.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        settings: Settings,
        classes: int,
        loader: DataLoader[Batch],
        sampler: EpochSampler,
        validation: DataLoader[Any],
        files: RunFiles,
        reporting: Reporting,
    ) -> None:
        self.fabric, self.settings, self.files, self.reporting = fabric, settings, files, reporting
        self.loader, self.sampler, self.validation = loader, sampler, validation
        self.learner = Learner(fabric, model, settings, classes, sampler.update_sizes)
        metrics: dict[str, Any] = {"val_loss": MeanMetric()}
        for count in (1, 5) if classes > 5 else (1,):
            metrics[f"val_top{count}"] = MulticlassAccuracy(num_classes=classes, average="micro", top_k=count)
        self.metrics = MetricCollection(metrics, compute_groups=False).to(fabric.device)
        self.logger = TensorBoardLogger(files.output, name="tensorboard", version="") if fabric.is_global_zero else None
        self.epoch = self.update = self._failures = 0
        self._sums = EpochSums()
        self._unreadable: dict[str, str] = {}
        self._saved_at = 0.0
        self._interruption = Interruption()

    @property
    def updates(self) -> int:
        """Updates since the run began."""
        return self.epoch * len(self.sampler.update_sizes) + self.update

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            TrainingError: If the run has to stop; its message says why.
            PreemptedError: If a signal asked it to; the state is saved.
            KeyboardInterrupt: If a person did; the state is saved.
        """
        with self._interruption:
            # A disk that is full or slow shows at once, and whatever happens next can be resumed.
            if self.updates == 0:
                self._save_state()
            self._saved_at = time.monotonic()
            try:
                while self.epoch < self.settings.epochs:
                    self._train_epoch()
                    with self._sums.measure("validation"):
                        found = self._validate()
                    self._finish_epoch(found)
            finally:
                self._close_log()

    def _close_log(self) -> None:
        """End TensorBoard's thread; that must not hide why a run stopped."""
        if self.logger is not None:
            try:
                self.logger.finalize("finished")
            except OSError as error:
                self._tell_problem(f"TensorBoard's log is incomplete: {error.strerror or error}")

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where a state of `acmix.tasks.loop.states` left off.

        Raises:
            InputError: If the state is of another version, which kept other parts.
        """
        try:
            self.learner.restore(state)
            self.epoch, self.update, self._failures = state["epoch"], state["update"], state["failures"]
            self._sums = EpochSums(**state["sums"])
            self._unreadable = state["unreadable"]
            self.files.rows, self.files.rates = state["rows"], state["rates"]
        except (KeyError, TypeError) as error:
            raise InputError(f"the state is of another version of acmix ({error}); continue with that one") from error

    def _save_state(self) -> None:
        with self._sums.measure("saving"):
            content = self._state()
            if self.fabric.is_global_zero:
                keep, advice = self.reporting.keep_states, self.files.advice
                states.save(self.files.output, self.updates, content, keep=keep, advice=advice)
            self.fabric.barrier()
        self._saved_at = time.monotonic()

    def _state(self) -> dict[str, Any]:
        return self.learner.state() | {
            "updates": self.updates,
            "epoch": self.epoch,
            "update": self.update,
            "failures": self._failures,
            "sums": vars(self._sums),
            "unreadable": self._unreadable,
            "rows": self.files.rows,
            "rates": self.files.rates,
        }

    def _train_epoch(self) -> None:
        sizes = self.sampler.update_sizes
        self.learner.model.train()
        self.sampler.start_at(self.epoch, self.update)
        batches = iter(self.loader) if self.update < len(sizes) else iter(())
        while self.update < len(sizes):
            began = time.perf_counter()
            size = sizes[self.update]
            stop, save = self._learn(batches, size)
            self.update += 1
            self._sums.images += size
            self._sums.seconds += time.perf_counter() - began
            self._tell()
            if stop:
                self._stop()
            if save:
                self._save_state()

    def _learn(self, batches: Iterator[Batch], size: int) -> tuple[bool, bool]:
        """One update of `size` images over all processes; whether to stop after it, and whether to save."""
        drawn = (self._next(batches) for _ in range(self.settings.accumulate))
        update = self.learner.learn(drawn, size, self.updates, self._tell_others, self._sums.measure)
        if update.fault is not None:
            self._report_failure(update.fault, update.names)
        if update.learned:
            self._failures = 0
            self._sums.loss += update.loss * size
            self._sums.learned += size
        else:
            self._count_failure()
        stop, save = update.told
        return stop > 0, save > 0

    def _tell_others(self) -> tuple[bool, bool]:
        """Whether this process was asked to stop, and whether a state is due by the first one's clock."""
        due = time.monotonic() - self._saved_at > 60 * self.reporting.save_minutes
        return self._interruption.received is not None, due and self.fabric.is_global_zero

    def _count_failure(self) -> None:
        """Stop where too many updates in a row have failed."""
        self._failures += 1
        failures = self._failures
        if failures >= self.settings.most_failures:
            self.update, self._failures = self.update + 1, 0
            self._save_state()
            raise TrainingError(
                f"{failures} updates in a row without finite loss and gradients, the last in epoch "
                f"{self.epoch + 1}; their images are in {self.files.output / 'problems.jsonl'}; the weights before "
                "them are kept; a lower learning_rate, clip_norm=1 or another precision may help"
            )

    def _report_failure(self, what: str, names: list[str]) -> None:
        place = {"epoch": self.epoch + 1, "update": self.update + 1, "process": self.fabric.global_rank}
        self.files.report_problem({"problem": f"{what} not finite", **place, "images": names})
        listed = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        self._tell_problem(
            f"epoch {self.epoch + 1}, update {self.update + 1}: {what} not finite; update skipped {listed}"
        )

    def _next(self, batches: Iterator[Batch]) -> Batch:
        sums = self._sums
        with sums.measure("waiting"):
            batch = next(batches)
        sums.read_seconds += batch.seconds
        sums.read_images += len(batch.names)
        for name, reason in batch.unreadable:
            if name not in self._unreadable:
                self._unreadable[name] = reason
                self.files.report_problem({"problem": "unreadable", "image": name, "reason": reason})
                self._tell_problem(f"{reason}; another image takes its place")
        most = self.settings.most_unreadable * self.sampler.count / self.fabric.world_size
        if len(self._unreadable) > most:
            listed = "; ".join([*self._unreadable.values()][:_NAMED]) + (
                "; ..." if len(self._unreadable) > _NAMED else ""
            )
            raise TrainingError(
                f"{len(self._unreadable)} of {self.sampler.count} images cannot be read, more than the share "
                f"most_unreadable = {self.settings.most_unreadable}: {listed}; all are in "
                f"{self.files.output / 'problems.jsonl'}"
            )
        return batch

    def _tell(self) -> None:
        sums, updates = self._sums, len(self.sampler.update_sizes)
        left = updates * self.settings.epochs - self.updates
        progress = Progress(
            epoch=self.epoch + 1,
            update=self.update,
            updates=updates,
            loss=sums.loss / max(1, sums.learned),
            learning_rate=self.learner.learning_rate,
            images_per_second=sums.images / sums.seconds,
            loader_images_per_second=sums.read_images * max(1, self.loader.num_workers) / sums.read_seconds,
            waiting=sums.parts["waiting"] / sums.seconds,
            seconds_left=left * sums.seconds / self.update,
        )
        if self.reporting.on_update is not None and self.fabric.is_global_zero:
            self.reporting.on_update(progress)
        if self.logger is not None and self.updates % _LOG_EVERY == 0:
            names = ("loss", "learning_rate", "images_per_second", "waiting")
            self.logger.log_metrics({name: getattr(progress, name) for name in names}, self.updates)

    def _tell_problem(self, sentence: str) -> None:
        if self.reporting.on_problem is not None:
            self.reporting.on_problem(sentence)

    def _stop(self) -> None:
        """Save and end, as the signal asked."""
        self._save_state()
        received = self._interruption.received
        name = "another process" if received is None else received.name
        message = (
            f"stopped by {name} in epoch {self.epoch + 1} after update {self.update} of "
            f"{len(self.sampler.update_sizes)}; the state is saved, {self.files.advice}"
        )
        raise KeyboardInterrupt(message) if name == "SIGINT" else PreemptedError(message)

    @torch.no_grad()
    def _validate(self) -> Mapping[str, float]:
        """Loss without label smoothing, and accuracies, over all processes."""
        average = self.learner.average
        network: nn.Module = self.learner.model if average is None else average.module
        if self.fabric.world_size > 1:
            # The first process's statistics are those that states keep.
            distribute_bn(network, self.fabric.world_size, reduce=False)
        network.eval()
        for images, labels in self.validation:
            images, labels = self.fabric.to_device((images, labels))
            with self.fabric.autocast() if average is not None else nullcontext():
                logits = network(images).float()
            loss = nn.functional.cross_entropy(logits, labels)
            self.metrics["val_loss"].update(loss, weight=len(labels))
            for name, metric in self.metrics.items():
                if name != "val_loss":
                    metric.update(logits, labels)
            stop = torch.tensor(float(self._interruption.received is not None), device=self.fabric.device)
            if summed(self.fabric, stop) > 0:
                self._stop()
        found = {name: float(value) for name, value in self.metrics.compute().items()}
        self.metrics.reset()
        return found

    def _finish_epoch(self, found: Mapping[str, float]) -> None:
        sums = self._sums
        row = {"epoch": self.epoch + 1, "train_loss": sums.loss / max(1, sums.learned), **found}
        row |= {"learning_rate": self.learner.learning_rate} | sums.row()
        self.epoch, self.update, self._sums = self.epoch + 1, 0, EpochSums()
        network = self.learner.network
        with self._sums.measure("saving"):
            weights = cast("Mapping[str, Tensor]", get_model_state_dict(network, options=WHOLE))
            if self.fabric.is_global_zero:
                self.files.write_epoch(row, _rates(row, network, weights), weights)
        if self.logger is not None:
            self.logger.log_metrics({name: value for name, value in row.items() if name != "epoch"}, self.updates)
            self.logger.save()
        self._save_state()
        if self.reporting.on_epoch is not None and self.fabric.is_global_zero:
            self.reporting.on_epoch(row)


def _rates(row: EpochRow, network: nn.Module, weights: Mapping[str, Tensor]) -> list[RateRow]:
    """The two rates of every ACmix layer, out of whole weights: processes may hold the network in parts."""
    return [
        {
            "epoch": row["epoch"],
            "layer": name,
            "attention": float(weights[f"{name}.rate_attention"]),
            "convolution": float(weights[f"{name}.rate_convolution"]),
        }
        for name, module in network.named_modules()
        if isinstance(module, ACmix)
    ]
