"""Batches of labelled images, for evaluation and for training."""

import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from acmix.data.labels import Label, target_of
from acmix.data.sampling import Draw, EpochSampler
from acmix.data.sources import ImageSource
from acmix.errors import InputError, printable

# Images tried for one that is wanted before the data set is given up.
_MOST_TRIED = 30
# Images side by side that are tried first.
_NEAR = 3


def image_loader(images: Dataset[Any], *, workers: int = 0, **options: Any) -> DataLoader[Any]:
    """A `DataLoader` of images in batches.

    Args:
        images: An `ImageSource` whose transform gives tensors, for instance.
        workers: Processes that read images; 0 reads in this one.
        **options: Options of `DataLoader`: batch_size, or batch_sampler, for instance.
    """
    return _loader(images, workers, **options)


def _loader(images: Dataset[Any], workers: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(
        images,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_work_for_parent,
        **options,
    )


def _work_for_parent(_: int) -> None:
    # A terminal sends Ctrl-C to a whole group of processes, a scheduler SIGTERM; the one that trains ends its workers.
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    torch.set_num_threads(1)


@dataclass
class Batch:
    """Augmented images of one forward pass.

    Attributes:
        images: `(B, C, H, W)`.
        labels: `(B,)`, int64; of multi-label images `(B, classes)`, float32; of masks `(B, H, W)`, int16.
        names: Of the images that were read, in the order of the batch.
        unreadable: Name and reason of every image that another one replaced.
        seconds: Spent on reading and augmenting, over all processes that read.
    """

    images: Tensor
    labels: Tensor
    names: list[str]
    unreadable: list[tuple[str, str]]
    seconds: float

    def pin_memory(self) -> "Batch":
        """Let tensors be copied to a device while it computes."""
        self.images, self.labels = self.images.pin_memory(), self.labels.pin_memory()
        return self


def replacements(index: int, count: int) -> Iterator[int]:
    """All images in the order in which they are tried for one of them, each once.

    The image itself, its neighbours, which lie in the same shard, then images spread over the whole: where a shard is
    lost the next ones lie far away.

    Args:
        index: The image that is wanted.
        count: Images there are.
    """
    yield from ((index + offset) % count for offset in range(min(_NEAR, count)))
    # Multiples of a step without a common divisor meet every image; of the golden section they lie far apart.
    step = round(0.618 * count)
    while math.gcd(step, count) != 1:
        step += 1
    offsets = (turn * step % count for turn in range(1, count))
    yield from ((index + offset) % count for offset in offsets if offset >= _NEAR)


class Examples(Protocol):
    """What is drawn from: `acmix.data.ImageSource`, for one."""

    def __len__(self) -> int:
        """Count the images."""
        ...

    def name(self, index: int) -> str:
        """What to call an image."""
        ...

    def read(self, index: int) -> Any:
        """An image with what is known of it; InputError if it cannot be read."""
        ...


@dataclass(frozen=True)
class Drawn:
    """One augmented example.

    Attributes:
        example: What the transform made.
        name: Of the image that was read.
        unreadable: Name and reason of every image that it replaced.
        seconds: Spent on reading and augmenting.
    """

    example: Any
    name: str
    unreadable: list[tuple[str, str]]
    seconds: float


class _Augmented(Dataset[Drawn]):
    """Examples under a random transform whose randomness is a function of seed, epoch and position alone."""

    def __init__(self, images: Examples, transform: Callable[[Any], Any], seed: int) -> None:
        self.images, self.transform, self.seed = images, transform, seed

    def __getitem__(self, index: Draw) -> Drawn:
        began = time.perf_counter()
        example, name, unreadable = self._read(index.index)
        with _randomness(self.seed, index.epoch, index.position):
            example = self.transform(example)
        return Drawn(example, name, unreadable, time.perf_counter() - began)

    def _read(self, index: int) -> tuple[Any, str, list[tuple[str, str]]]:
        """An example, or another one that can be read."""
        unreadable: list[tuple[str, str]] = []
        for at in islice(replacements(index, len(self.images)), _MOST_TRIED):
            name = f"image {at}"
            try:
                name = self.images.name(at)
                example = self.images.read(at)
            except InputError as error:
                unreadable.append((printable(name), str(error)))
            else:
                return example, name, unreadable
        raise InputError(
            f"{unreadable[0][0]} and {len(unreadable) - 1} in its place cannot be read: {unreadable[0][1]}"
        )


@contextmanager
def _randomness(*numbers: int) -> Iterator[None]:
    """Seed every generator that transforms draw from, and put them back."""
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_rng_state(kept[2])


def example_loader(
    images: Examples,
    sampler: EpochSampler,
    transform: Callable[[Any], Any],
    collate: Callable[[Sequence[Drawn]], Any],
    *,
    seed: int,
    workers: int = 0,
) -> DataLoader[Any]:
    """A `DataLoader` of augmented examples; one that cannot be read is replaced by another.

    Args:
        images: The training images.
        sampler: The batches of this process.
        transform: Of what `images.read` gives; may draw random numbers.
        collate: Makes a batch.
        seed: Of the augmentation.
        workers: Processes that read images; 0 reads in this one.
    """
    return _loader(_Augmented(images, transform, seed), workers, batch_sampler=sampler, collate_fn=collate)


def training_loader(
    images: ImageSource,
    sampler: EpochSampler,
    transform: Callable[[Image.Image], Any],
    *,
    seed: int,
    workers: int = 0,
) -> DataLoader[Batch]:
    """A loader of augmented images and their labels, see `example_loader`.

    Args:
        images: The training images.
        sampler: The batches of this process.
        transform: From an RGB image to a tensor `(C, H, W)`; may draw random numbers.
        seed: Of the augmentation.
        workers: Processes that read images; 0 reads in this one.
    """
    return example_loader(
        images, sampler, partial(_of_image, transform, len(images.classes)), collate, seed=seed, workers=workers
    )


def _of_image(transform: Callable[[Image.Image], Any], classes: int, example: tuple[Image.Image, Label]) -> Any:
    return transform(example[0]), target_of(example[1], classes)


def collate(drawn: Sequence[Drawn]) -> Batch:
    """A batch of examples that are an image and its label."""
    images, labels = zip(*(each.example for each in drawn), strict=True)
    return Batch(images=default_collate(list(images)), labels=default_collate(list(labels)), **gathered(drawn))


def gathered(drawn: Sequence[Drawn]) -> dict[str, Any]:
    """What every batch of drawn examples says, see `acmix.tasks.loop.task.Batch`."""
    return {
        "names": [each.name for each in drawn],
        "unreadable": [fault for each in drawn for fault in each.unreadable],
        "seconds": sum(each.seconds for each in drawn),
    }
