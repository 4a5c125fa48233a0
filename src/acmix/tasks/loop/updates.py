"""Updates one after the other: where in a run they are, what came of them, what went wrong."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lightning.fabric import Fabric

from acmix.tasks.loop.learner import Learner
from acmix.tasks.loop.progress import EpochSums, Progress
from acmix.tasks.loop.task import Batch, Batches

# Images that a sentence names.
NAMED = 5
# A problem as problems.jsonl has it, and in a sentence.
Problem = Callable[[dict[str, Any], str], None]


class Updates:
    """A position in a run, (epoch, update), and the sums over its epoch; it needs no folder.

    Args:
        fabric: The processes, launched.
        learner: What updates change.
        batches: Where they come from.
        problem: Called with images that cannot be read and updates that are not finite.

    Attributes:
        epoch: Counted from 0.
        update: That comes next, of this epoch, counted from 0.
        failures: Updates in a row from which nothing was learned.
        unreadable: Reasons by the names of images that could not be read in this process.
        sums: Over the updates of this epoch so far.
    """

    def __init__(self, fabric: Fabric, learner: Learner, batches: Batches, problem: Problem) -> None:
        self.fabric, self.learner, self.batches, self._problem = fabric, learner, batches, problem
        self.epoch = self.update = self.failures = 0
        self.unreadable: dict[str, str] = {}
        self.sums = EpochSums()

    @property
    def sizes(self) -> Sequence[int]:
        """Images of each update of an epoch, over all processes."""
        return self.batches.sampler.update_sizes

    @property
    def count(self) -> int:
        """Updates since the run began."""
        return self.epoch * len(self.sizes) + self.update

    def rest_of_epoch(self, tell: Callable[[], Sequence[bool]]) -> Iterator[list[float]]:
        """Learn what is left of the epoch.

        Args:
            tell: See `Learner.learn`.

        Yields:
            After every update, how many processes had each of the things to tell.
        """
        self.learner.train()
        self.batches.sampler.start_at(self.epoch, self.update)
        batches = iter(self.batches.training) if self.update < len(self.sizes) else iter(())
        while self.update < len(self.sizes):
            began = time.perf_counter()
            size = self.sizes[self.update]
            drawn = (self._next(batches) for _ in range(self.learner.settings.accumulate))
            update = self.learner.learn(drawn, size, self.count, tell, self.sums.measure)
            if update.fault is not None:
                self._report(update.fault, update.names)
            self.failures = 0 if update.learned else self.failures + 1
            if update.learned:
                self.sums.loss += update.loss * size
                self.sums.learned += size
            self.update += 1
            self.sums.images += size
            self.sums.seconds += time.perf_counter() - began
            yield update.told

    def _next(self, batches: Iterator[Batch]) -> Batch:
        with self.sums.measure("waiting"):
            batch = next(batches)
        self.sums.read_seconds += batch.seconds
        self.sums.read_images += len(batch.names)
        for name, reason in batch.unreadable:
            if name not in self.unreadable:
                self.unreadable[name] = reason
                problem = {"problem": "unreadable", "image": name, "reason": reason}
                self._problem(problem, f"{reason}; another image takes its place")
        return batch

    def _report(self, what: str, names: list[str]) -> None:
        place = {"epoch": self.epoch + 1, "update": self.update + 1, "process": self.fabric.global_rank}
        listed = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
        self._problem(
            {"problem": f"{what} not finite", **place, "images": names},
            f"epoch {self.epoch + 1}, update {self.update + 1}: {what} not finite; update skipped {listed}",
        )

    def next_epoch(self) -> None:
        """Begin the next epoch, with sums of its own."""
        self.epoch, self.update, self.sums = self.epoch + 1, 0, EpochSums()

    def progress(self) -> Progress:
        """Where the run is, after at least one update of the epoch."""
        sums, updates = self.sums, len(self.sizes)
        left = updates * self.learner.settings.epochs - self.count
        return Progress(
            epoch=self.epoch + 1,
            epochs=self.learner.settings.epochs,
            update=self.update,
            updates=updates,
            loss=sums.loss / max(1, sums.learned),
            learning_rate=self.learner.learning_rate,
            images_per_second=sums.images / sums.seconds,
            loader_images_per_second=sums.read_images * max(1, self.batches.training.num_workers) / sums.read_seconds,
            waiting=sums.parts["waiting"] / sums.seconds,
            seconds_left=left * sums.seconds / self.update,
        )

    def state(self) -> dict[str, Any]:
        """Everything that updates change, whole, on the CPU."""
        return self.learner.state() | {
            "updates": self.count,
            "epoch": self.epoch,
            "update": self.update,
            "failures": self.failures,
            "sums": vars(self.sums),
            "unreadable": self.unreadable,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was called.

        Raises:
            KeyError: If a part is missing.
            TypeError: If there are other sums.
        """
        self.learner.restore(state)
        self.epoch, self.update, self.failures = state["epoch"], state["update"], state["failures"]
        self.sums, self.unreadable = EpochSums(**state["sums"]), state["unreadable"]
