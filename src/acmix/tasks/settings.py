"""The settings of a training run and the check of their values."""

from dataclasses import dataclass
from typing import Literal

import torch
from timm.optim import list_optimizers

from acmix.errors import InputError
from acmix.models.names import nearest

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the result of a training run; a run can be resumed only under equal settings.

    Attributes:
        model: timm's name of the network.
        epochs: Passes over the training images.
        batch_size: Images an update.
        optimizer: timm's name of the optimiser.
        learning_rate: Highest rate, reached after the warm-up; a cosine takes it to zero.
        weight_decay: Of weights; biases, norms and the operator's two rates are not decayed.
        warmup_epochs: Epochs of linear rise; None is a tenth of epochs.
        label_smoothing: Share of the target spread over all classes, 0 to below 1.
        image_size: Side of the input in pixels; None is the model's own.
        precision: float32, or automatic mixed precision in bfloat16 or float16.
        seed: Of weights, order, augmentation and the split.
        val_fraction: Share held out where DATA has no validation folder.
        deterministic: Refuse operations without a deterministic implementation.
    """

    model: str
    epochs: int = 30
    batch_size: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_epochs: int | None = None
    label_smoothing: float = 0.1
    image_size: int | None = None
    precision: Precision = "float32"
    seed: int = 0
    val_fraction: float = 0.2
    deterministic: bool = False

    def check(self) -> None:
        """Check every value that does not need the data or the network.

        Raises:
            InputError: If one is out of range.
        """
        warmup = self.warmup_epochs or 0
        rules = (
            ("epochs", self.epochs >= 1, "at least 1", self.epochs),
            ("batch_size", self.batch_size >= 1, "at least 1", self.batch_size),
            ("learning_rate", 0 < self.learning_rate < float("inf"), "positive", self.learning_rate),
            ("weight_decay", 0 <= self.weight_decay < float("inf"), "at least 0", self.weight_decay),
            ("warmup_epochs", 0 <= warmup < self.epochs, f"0 to below epochs = {self.epochs}", warmup),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "0 to below 1", self.label_smoothing),
            ("seed", 0 <= self.seed < 2**32, "0 to below 2**32", self.seed),
        )
        for name, holds, rule, value in rules:
            if not holds:
                raise InputError(f"{name} must be {rule}, got {value}")
        known = [str(name) for name in list_optimizers()]
        if self.optimizer not in known:
            near = nearest(self.optimizer, known) or "sgd, adamw, lamb"
            raise InputError(f"unknown optimizer {self.optimizer!r}; the nearest names are {near}")
        if self.precision == "float16" and not torch.accelerator.is_available():
            raise InputError("precision float16 needs an accelerator; choose bfloat16 or float32")
