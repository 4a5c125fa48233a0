"""What a run tells while it trains, and the sums over an epoch that this is made of."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from acmix.errors import InputError, check_least
from acmix.tasks.loop.measures import EpochRow

# Parts of an epoch whose seconds are recorded, in the order in which they come.
PARTS = ("waiting", "forward", "backward", "optimizer", "validation", "saving")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is after an update.

    Attributes:
        epoch: Counted from 1.
        epochs: That there will be.
        update: Of this epoch, counted from 1.
        updates: Of this epoch.
        loss: Mean training loss of this epoch so far.
        learning_rate: Of the update.
        images_per_second: Of this epoch so far, over all processes.
        loader_images_per_second: What this process's readers could deliver if nothing waited for the network.
        waiting: Share of the time that the network waited for images.
        seconds_left: Of all epochs, validation not included.
    """

    epoch: int
    epochs: int
    update: int
    updates: int
    loss: float
    learning_rate: float
    images_per_second: float
    loader_images_per_second: float
    waiting: float
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """Whom to tell, and how often to save.

    Attributes:
        on_epoch: Called with every row of metrics.csv.
        on_update: Called after every update.
        on_validation: Called after every batch of a validation with the epoch, the batches so far and all there are.
        on_start: Called before training with what the run is made of, in words: images, network, device, output.
        on_problem: Called with a sentence about a problem that does not stop the run.
        on_stop: Called in the first process when an error or a signal ends the run, its state saved where it can be.
        save_minutes: A state is saved when the last one is as old, besides the one after every epoch; 0 saves after
            every update.
        keep_states: How many stay, at least 1: without a state nothing can be resumed.

    Raises:
        InputError: If save_minutes or keep_states breaks its rule.
    """

    on_epoch: Callable[[EpochRow], None] | None = None
    on_update: Callable[[Progress], None] | None = None
    on_validation: Callable[[int, int, int], None] | None = None
    on_start: Callable[[Mapping[str, str]], None] | None = None
    on_problem: Callable[[str], None] | None = None
    on_stop: Callable[[], None] | None = None
    save_minutes: float = 15.0
    keep_states: int = 2

    def __post_init__(self) -> None:
        """Check what is a number."""
        if not 0 <= self.save_minutes < float("inf"):
            raise InputError(f"save_minutes must be a number of minutes, at least 0, got {self.save_minutes}")
        check_least(1, keep_states=self.keep_states)


@dataclass
class EpochSums:
    """Sums over the updates of an epoch so far.

    Attributes:
        loss: Of the images of the updates that were not skipped.
        learned: Those images.
        images: Of all updates.
        seconds: Of all updates.
        read_images: Read for this process.
        read_seconds: That took, over all processes that read for it.
        parts: Seconds by part of the work, by the clock of the processor. An accelerator works on its own: forward is
            handing work to it, backward ends with the loop's look at the loss and holds the wait for it. Saving is what
            came after the row before: that epoch's checkpoints and state, then the states within this epoch.
    """

    loss: float = 0.0
    learned: int = 0
    images: int = 0
    seconds: float = 0.0
    read_images: int = 0
    read_seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the seconds that the block takes to a part."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.parts[part] += time.perf_counter() - began

    def row(self) -> EpochRow:
        """Time and speed of the epoch, as in metrics.csv."""
        return {
            "seconds": self.seconds + self.parts["validation"],
            "images_per_second": self.images / self.seconds,
            "waiting": self.parts["waiting"] / self.seconds,
        } | {f"{part}_seconds": self.parts[part] for part in PARTS}
