"""Detection as the loop sees it: what images and their objects teach, and average precision."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from acmix.checkpoints.detector import detections
from acmix.data.annotated import AnnotatedImages
from acmix.models.answers import any_lost, watched_answers
from acmix.tasks.detection.figures import Found, compare, encoded_masks, rows_of

_ALWAYS = ("map", "map_50", "map_75")
# -1 where the images have no objects of that size.
_OF_SIZES = ("map_small", "map_medium", "map_large")


@dataclass
class Batch:
    """Augmented images of one forward pass, and what is in them.

    Attributes:
        images: `(3, H, W)` each, uint8.
        targets: Of each image boxes `(N, 4)`, labels `(N,)`, and of networks that want them masks `(N, H, W)`.
        names: Of the images that were read, in the order of the batch.
        unreadable: Name and reason of every image that another one replaced.
        seconds: Spent on reading and augmenting, over all processes that read.
    """

    images: list[Tensor]
    targets: list[dict[str, Tensor]]
    names: list[str]
    unreadable: list[tuple[str, str]]
    seconds: float

    def pin_memory(self) -> "Batch":
        """Let tensors be copied to a device while it computes."""
        self.images = [image.pin_memory() for image in self.images]
        self.targets = [{name: each.pin_memory() for name, each in target.items()} for target in self.targets]
        return self


class Detection:
    """The `acmix.tasks.loop.task.Task` of detectors.

    Args:
        images: To validate with.
        device: Of the metrics.
        masks: Whether the network gives masks, and the images have some.
    """

    def __init__(self, images: AnnotatedImages, device: torch.device, *, masks: bool) -> None:
        self._classes = images.classes
        self.metrics = MetricCollection({"coco": CocoFigures(images, masks=masks)}).to(device)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Sum of the network's losses, each a mean over images."""
        # Fabric makes 16 bits of all numbers that it hands to a network in mixed precision: boxes would be pixels off.
        targets = [target | {"boxes": target["boxes"].view(torch.int32)} for target in batch.targets]
        return torch.stack([*network(batch.images, targets).values()]).sum()

    def measure(self, network: nn.Module, batch: tuple[list[int], list[Tensor]]) -> None:
        """Keep what is found in images, by their indices."""
        indices, images = batch
        figures = cast("CocoFigures", self.metrics["coco"])
        with watched_answers(network) as lost:
            answers = network(images)
        figures.lost += any_lost(lost)
        for index, found in zip(indices, answers, strict=True):
            figures.update(
                index, {name: each.float() if each.is_floating_point() else each for name, each in found.items()}
            )


class CocoFigures(Metric):
    """COCO's figures over all processes; detections are what travels between them, as tensors.

    Args:
        images: With their objects, the same in every process.
        masks: Whether masks are compared, too.
    """

    full_state_update = False
    lost: Tensor
    rows: list[Tensor]
    masks: list[Tensor]
    lengths: list[Tensor]

    def __init__(self, images: AnnotatedImages, *, masks: bool) -> None:
        super().__init__()
        self.images, self.with_masks = images, masks
        for name in ("rows", "masks", "lengths"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.add_state("lost", default=torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, index: int, found: dict[str, Tensor]) -> None:  # pyrefly: ignore[bad-override]
        """Keep the detections of one image.

        Args:
            index: Of the image.
            found: What the network gave.
        """
        plain = detections(found, self.images.classes)
        rows = torch.from_numpy(rows_of(index, plain))
        # Not every device knows 64 bits; indices are exact up to 16 million.
        self.rows.append(rows.float().to(self.device))
        runs = encoded_masks(plain) or [] if self.with_masks else []
        octets = np.frombuffer(b"".join(runs), np.uint8).copy()
        self.masks.append(torch.from_numpy(octets).to(self.device))
        self.lengths.append(torch.tensor([len(each) for each in runs], dtype=torch.int64, device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """AP, AP50, AP75 and those of sizes that there are of boxes, AP and AP50 of masks; NaN if not all is finite."""
        rows, octets, lengths = (_joined(getattr(self, name)) for name in ("rows", "masks", "lengths"))
        found = Found(rows.double().numpy().reshape(-1, 7), _cut(octets, lengths) if self.with_masks else None)
        figures: dict[str, float] = {
            f"val_{name}": value
            for name, value in compare(self.images, found).overall.items()
            if name in _ALWAYS or (name in _OF_SIZES and value >= 0)
        }
        if self.with_masks:
            overall = compare(self.images, found, masks=True).overall
            figures |= {f"val_mask_{name}": overall[name] for name in ("map", "map_50")}
        return {name: torch.tensor(torch.nan if self.lost else value) for name, value in figures.items()}


def _joined(state: Any) -> Tensor:
    """A state, which is a list before processes have met, on the CPU."""
    return torch.cat(state).cpu() if isinstance(state, list) else state.cpu()


def _cut(octets: Tensor, lengths: Tensor) -> list[bytes]:
    whole, ends = octets.numpy().tobytes(), np.cumsum([0, *lengths.tolist()])
    return [whole[begin:end] for begin, end in pairwise(ends)]
