"""What settings mean for updates: optimiser and schedule, both timm's."""

from collections.abc import Callable
from inspect import signature
from typing import Any

from timm.optim import create_optimizer_v2, get_optimizer_class
from timm.scheduler import create_scheduler_v2
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from acmix.tasks.loop.settings import Settings


def make_optimizer(model: nn.Module, settings: Settings, learning_rate: float) -> Optimizer:
    """timm's optimiser without decay on one-axis parameters, rates falling with depth if the settings say so."""
    accepted = signature(get_optimizer_class(settings.optimizer, bind_defaults=False)).parameters
    # One kernel for all parameters, where the optimiser has one; not all of them take parts of parameters.
    whole = not any(isinstance(parameter, DTensor) for parameter in model.parameters())
    options: dict[str, Any] = {"fused": True} if "fused" in accepted and whole else {}
    return create_optimizer_v2(
        model,
        opt=settings.optimizer,
        lr=learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        layer_decay=settings.layer_decay,
        **options,
    )


def make_schedule(
    optimizer: Optimizer, settings: Settings, learning_rate: float, updates_per_epoch: int
) -> Callable[[int], None]:
    """A linear rise and a cosine, as a function that sets the rates for the update after so many."""
    warmup = settings.epochs // 10 if settings.warmup_epochs is None else settings.warmup_epochs
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=settings.epochs,
        warmup_epochs=warmup,
        warmup_lr=learning_rate * settings.warmup_start,
        step_on_epochs=False,
        updates_per_epoch=updates_per_epoch,
    )
    return scheduler.step_update
