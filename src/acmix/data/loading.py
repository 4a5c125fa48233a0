"""Batches of labelled images."""

import signal
from typing import Any

import torch
from torch.utils.data import DataLoader

from acmix.data.datasets import LabelledImages


def image_loader(images: LabelledImages, *, batch_size: int, workers: int = 0, **options: Any) -> DataLoader[Any]:
    """A `DataLoader` of images in batches.

    Args:
        images: Images whose transform gives tensors.
        batch_size: Images a batch.
        workers: Processes that read images; 0 reads in this one.
        **options: Options of `DataLoader`.
    """
    return DataLoader(
        images,
        batch_size=batch_size,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_interrupts_to_parent,
        **options,
    )


def _leave_interrupts_to_parent(_: int) -> None:
    # A terminal sends Ctrl-C to every process; the one that trains ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
