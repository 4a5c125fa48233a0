"""The processes of a run while it lasts: launched, quiet, deterministic if wanted."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric import Fabric

from acmix.errors import InputError, TrainingError
from acmix.tasks.loop.distribution import Strategy, lost, make_fabric
from acmix.tasks.loop.settings import LoopSettings


@contextmanager
def session(
    settings: LoopSettings, *, device: str = "auto", devices: int | None = None, strategy: Strategy = "ddp"
) -> Iterator[Fabric]:
    """Launch the processes of a run; arguments are those of `make_fabric`.

    Raises:
        InputError: As of `make_fabric`.
        TrainingError: If another process ends before all do.
    """
    with quiet(), _determinism(settings.deterministic):
        fabric = make_fabric(settings.precision, device=device, devices=devices, strategy=strategy)
        if settings.synchronize_norms and fabric.device.type == "cpu":
            raise InputError("synchronize_norms needs an accelerator: PyTorch has no synchronised batch norm for CPUs")
        try:
            fabric.launch()
            yield fabric
        except RuntimeError as error:
            if (gone := lost(error)) is not None:
                raise TrainingError(gone) from error
            raise


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's notes on hardware and processes off the terminal."""
    # Both write what Fabric says, whichever was imported last.
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("fabric", "pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Of convolutions with one input channel a group.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """Refuse operations without a deterministic implementation, if wanted."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        # What cuBLAS asks for.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
