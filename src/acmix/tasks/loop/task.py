"""The seam between the loop and what is trained: the loop draws, steps, counts and saves; a task knows the rest."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection

from acmix.data.sampling import EpochSampler


class Batch(Protocol):
    """What the loop knows of a batch of training images, a dataclass whose tensors Fabric moves to the device.

    Attributes:
        names: Of the images that were read.
        unreadable: Name and reason of every image that another one replaced.
        seconds: Spent on reading, over all processes that read.
    """

    names: list[str]
    unreadable: list[tuple[str, str]]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Where the batches of one process come from.

    Attributes:
        training: Gives `Batch`es.
        sampler: The batch sampler of training: which image is drawn when.
        validation: As many batches as in any other process, of what the task's `measure` takes.
    """

    training: DataLoader[Any]
    sampler: EpochSampler
    validation: DataLoader[Any]


class Task(Protocol):
    """A kind of training: what a batch teaches, and what a validation finds.

    Attributes:
        metrics: By the names of `acmix.tasks.loop.measures`, on the device: add up what `measure` gives them, over all
            processes.
    """

    metrics: MetricCollection

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Mean loss of a training batch on the device; what is random in it comes from torch's generator."""
        ...

    def measure(self, network: nn.Module, batch: Any) -> None:
        """Add a validation batch on the device to the metrics."""
        ...
