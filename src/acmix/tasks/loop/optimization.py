"""What settings mean for updates: what a network keeps and averages, optimiser and schedule, all of them timm's."""

from collections.abc import Callable
from inspect import signature
from typing import Any, cast

from timm.layers import convert_sync_batchnorm
from timm.optim import create_optimizer_v2, get_optimizer_class
from timm.scheduler import create_scheduler_v2
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from acmix.errors import InputError
from acmix.tasks.loop.freezing import freeze
from acmix.tasks.loop.settings import LoopSettings


def prepare_for_training(model: nn.Module, settings: LoopSettings) -> None:
    """Change a network in place as settings ask: parts frozen, activations recomputed, batch norms over all processes.

    Raises:
        InputError: If the network cannot recompute its activations, or has no such parts.
    """
    if settings.freeze is not None:
        freeze(model, settings.freeze, settings.model)
    if settings.recompute:
        try:
            cast("Any", model).set_grad_checkpointing()
        except (AttributeError, AssertionError) as error:
            raise InputError(f"model {settings.model!r} cannot recompute activations; leave recompute out") from error
    if settings.synchronize_norms:
        convert_sync_batchnorm(model)


def make_optimizer(model: nn.Module, settings: LoopSettings, learning_rate: float) -> Optimizer:
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
    optimizer: Optimizer, settings: LoopSettings, learning_rate: float, updates_per_epoch: int
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
