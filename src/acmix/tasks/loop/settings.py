"""Settings that every kind of training has, and the check of names, types and values.

The command line makes options of them, so that names and help stand once: this module loads without timm.
"""

import re
import typing
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, Literal

from acmix import records
from acmix.errors import InputError, nearest

Precision = Literal["float32", "bfloat16", "float16"]
RateScaling = Literal["linear", "square_root"]
# A setting, whether its value may be, and which may.
Rule = tuple[str, bool, str]


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """What decides the result of a training run; a run can be resumed only under equal settings.

    Each kind of training adds its own.

    Attributes:
        model: Name of the network.
        epochs: Passes over the training images.
        batch_size: Images a process and forward pass; an update takes batch_size x accumulate x processes of them.
        accumulate: Forward passes an update, whose gradients are added.
        optimizer: timm's name of the optimiser.
        momentum: Of optimisers that have one; adamw for instance has none.
        learning_rate: Highest rate, reached after the warm-up; a cosine takes it to zero.
        learning_rate_batch: Images an update that learning_rate is meant for; it is scaled to those that there are.
            None does not scale.
        learning_rate_scaling: Scale with the number of images, or with its square root.
        weight_decay: Of weights; biases, norms and the operator's two rates are not decayed.
        layer_decay: Factor on the learning rate from each layer to the one before it, 0 to 1; None for equal rates.
        warmup_epochs: Epochs of linear rise; by default a tenth of epochs.
        warmup_start: Learning rate at the start of the warm-up, a share of the highest.
        clip_norm: Largest norm of an update's gradients; None does not clip.
        average_decay: Of the moving average of weights that is validated and kept as best; None keeps no average.
        synchronize_norms: Batch norms take their statistics over all processes.
        recompute: Recompute activations in the backward pass: less memory, a third more time.
        precision: float32, or automatic mixed precision in bfloat16 or float16.
        seed: Of weights, order, augmentation and the split.
        val_fraction: Share held out where DATA has no validation images.
        deterministic: Refuse operations without a deterministic implementation.
        most_failures: Updates in a row without finite loss and gradients after which the run stops.
        most_unreadable: Share of unreadable training images above which the run stops.
    """

    model: str
    epochs: int = 30
    batch_size: int = 64
    accumulate: int = 1
    optimizer: str = "adamw"
    momentum: float = 0.9
    learning_rate: float = 1e-3
    learning_rate_batch: int | None = None
    learning_rate_scaling: RateScaling = "linear"
    weight_decay: float = 0.05
    layer_decay: float | None = None
    warmup_epochs: int | None = None
    warmup_start: float = 0.01
    clip_norm: float | None = None
    average_decay: float | None = None
    synchronize_norms: bool = False
    recompute: bool = False
    precision: Precision = "float32"
    seed: int = 0
    val_fraction: float = 0.2
    deterministic: bool = False
    most_failures: int = 10
    most_unreadable: float = 0.01

    def check(self) -> None:
        """Check every value that does not need the data or the network.

        Raises:
            InputError: If one is out of range.
        """
        from timm.optim import list_optimizers

        infinity = float("inf")
        warmup = self.warmup_epochs or 0
        # Of an optional value None is always allowed.
        rules: tuple[Rule, ...] = (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("accumulate", self.accumulate >= 1, "at least 1"),
            ("momentum", 0 <= self.momentum < 1, "0 to below 1"),
            ("learning_rate", 0 < self.learning_rate < infinity, "positive"),
            ("learning_rate_batch", self.learning_rate_batch is None or self.learning_rate_batch >= 1, "at least 1"),
            ("weight_decay", 0 <= self.weight_decay < infinity, "at least 0"),
            ("layer_decay", self.layer_decay is None or 0 < self.layer_decay <= 1, "above 0, at most 1"),
            ("warmup_epochs", 0 <= warmup < self.epochs, f"0 to below epochs = {self.epochs}"),
            ("warmup_start", 0 <= self.warmup_start <= 1, "0 to 1"),
            ("clip_norm", self.clip_norm is None or 0 < self.clip_norm < infinity, "positive"),
            ("average_decay", self.average_decay is None or 0 < self.average_decay < 1, "between 0 and 1"),
            ("seed", 0 <= self.seed < 2**32, "0 to below 2**32"),
            ("most_failures", self.most_failures >= 1, "at least 1"),
            ("most_unreadable", 0 <= self.most_unreadable <= 1, "0 to 1"),
        )
        self._hold(rules)
        known = [str(name) for name in list_optimizers()]
        if self.optimizer not in known:
            near = nearest(self.optimizer, known) or "sgd, adamw, lamb"
            raise InputError(f"unknown optimizer {self.optimizer!r}; the nearest names are {near}")
        if self.precision == "float16" and not _has_accelerator():
            raise InputError("precision float16 needs an accelerator; choose bfloat16 or float32")
        if self.synchronize_norms and not _has_accelerator():
            raise InputError("synchronize_norms needs an accelerator: PyTorch has no synchronised batch norm for CPUs")

    def _hold(self, rules: Iterable[Rule]) -> None:
        """Refuse the first setting whose rule, the last of the three in words, does not hold."""
        for name, holds, rule in rules:
            if not holds:
                raise InputError(f"{name} must be {rule}, got {getattr(self, name)}")

    def scaled_learning_rate(self, images: int) -> float:
        """The highest learning rate for so many images an update."""
        if self.learning_rate_batch is None:
            return self.learning_rate
        factor = images / self.learning_rate_batch
        return self.learning_rate * (factor if self.learning_rate_scaling == "linear" else factor**0.5)


def _has_accelerator() -> bool:
    import torch

    return torch.accelerator.is_available()


_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)
_hints = cache(typing.get_type_hints)


def defaults(kind: type[LoopSettings]) -> dict[str, Any]:
    """What a record means that an earlier version wrote, without the settings added since."""
    return {field.name: field.default for field in fields(kind) if field.default is not MISSING}


def check_setting(settings: type[LoopSettings], name: str, value: Any) -> Any:
    """Check the name and the type of one setting that comes from a person or a file.

    Returns:
        The value; an integer as a float where a float is meant.

    Raises:
        InputError: If there is no such setting, naming the nearest, or the value is of another type.
    """
    hints = _hints(settings)
    if name not in hints:
        near = nearest(name, hints)
        raise InputError(
            f"there is no setting {name!r}; "
            + (f"the nearest are {near}" if near else "acmix recipes --name small has all")
        )
    hint = hints[name]
    if isinstance(value, str) and float in (typing.get_args(hint) or (hint,)) and _NUMBER.fullmatch(value):
        # YAML takes 1e-3, without a point, for text.
        value = float(value)
    return records.value(hint, value, name)
