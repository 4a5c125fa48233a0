"""What settings mean for learning: loss, mixed images, optimiser, schedule and average, all of them libraries' own."""

from collections.abc import Callable
from inspect import signature
from typing import Any

from timm.loss import BinaryCrossEntropy
from timm.optim import create_optimizer_v2, get_optimizer_class
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torchvision.transforms import v2

from acmix.tasks.loop.settings import Settings


def training_loss(settings: Settings) -> nn.Module:
    """Mean loss of logits `(B, classes)` and labels `(B,)` or, of mixed images, shares `(B, classes)`."""
    if settings.loss == "binary_cross_entropy":
        return BinaryCrossEntropy(settings.label_smoothing, target_threshold=settings.loss_threshold)
    return nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)


def mixing(settings: Settings, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """MixUp, CutMix or one of both for each batch: images and labels `(B,)` to images and shares `(B, classes)`."""
    kinds = [
        kind(alpha=alpha, num_classes=classes)
        for kind, alpha in ((v2.MixUp, settings.mixup), (v2.CutMix, settings.cutmix))
        if alpha > 0
    ]
    return v2.RandomChoice(kinds) if kinds else None


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
