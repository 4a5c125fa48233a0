"""Settings that every kind of training has.

Options, help, listings, documents and errors are made of what stands here once: this module loads without timm.
"""

from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Literal

from acmix.errors import InputError, meant
from acmix.tasks.loop.fields import Range, check_setting

Precision = Literal["float32", "bfloat16", "float16"]
RateScaling = Literal["linear", "square_root"]


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
        patience: Epochs without a better first measure (top-1 of classifiers) after which the run stops.
        freeze: Stages behind the stem that stay as they are with it (0 is the stem alone), or names of parts, or
            patterns of such, separated by commas.
        synchronize_norms: Batch norms take their statistics over all processes.
        recompute: Recompute activations in the backward pass: less memory, a third more time.
        precision: float32, or automatic mixed precision in bfloat16 or float16.
        seed: Of weights, order, augmentation and the split.
        val_fraction: Share held out where DATA has no validation images.
        deterministic: Refuse operations without a deterministic implementation.
        most_failures: Updates in a row without finite loss and gradients after which the run stops.
        most_unreadable: Share of unreadable training images above which the run stops.
    """

    task: ClassVar[str]

    model: str
    epochs: Annotated[int, Range(1)] = 30
    batch_size: Annotated[int, Range(1)] = 64
    accumulate: Annotated[int, Range(1)] = 1
    optimizer: str = "adamw"
    momentum: Annotated[float, Range(0, 1, below=True)] = 0.9
    learning_rate: Annotated[float, Range(0, above=True)] = 1e-3
    learning_rate_batch: Annotated[int | None, Range(1)] = None
    learning_rate_scaling: RateScaling = "linear"
    weight_decay: Annotated[float, Range(0)] = 0.05
    layer_decay: Annotated[float | None, Range(0, 1, above=True)] = None
    warmup_epochs: Annotated[int | None, Range(0)] = None
    warmup_start: Annotated[float, Range(0, 1)] = 0.01
    clip_norm: Annotated[float | None, Range(0, above=True)] = None
    average_decay: Annotated[float | None, Range(0, 1, above=True, below=True)] = None
    patience: Annotated[int | None, Range(1)] = None
    freeze: Annotated[int | str | None, Range(0)] = None
    synchronize_norms: bool = False
    recompute: bool = False
    precision: Precision = "float32"
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    val_fraction: Annotated[float, Range(0, 1, above=True, below=True)] = 0.2
    deterministic: bool = False
    most_failures: Annotated[int, Range(1)] = 10
    most_unreadable: Annotated[float, Range(0, 1)] = 0.01

    @property
    def network(self) -> str:
        """What is trained, in words."""
        return self.model

    def check(self) -> None:
        """Check every value that does not need the data or the network.

        Raises:
            InputError: If one is out of range.
        """
        from timm.optim import list_optimizers

        for field in fields(self):
            check_setting(type(self), field.name, getattr(self, field.name))
        if (self.warmup_epochs or 0) >= self.epochs:
            raise InputError(
                f"warmup_epochs must be 0 to below epochs = {self.epochs}, got {self.warmup_epochs}; that of a recipe "
                "stays until it is set, too"
            )
        known = [str(name) for name in list_optimizers()]
        if self.optimizer not in known:
            others = meant(self.optimizer, known, ("sgd", "adamw", "lamb"))
            raise InputError(f"optimizer {self.optimizer!r} is unknown to timm; {others}")
        if self.precision == "float16" and not _has_accelerator():
            raise InputError("precision float16 needs an accelerator; choose bfloat16 or float32")
        if self.synchronize_norms and not _has_accelerator():
            raise InputError("synchronize_norms needs an accelerator: PyTorch has no synchronised batch norm for CPUs")

    def scaled_learning_rate(self, images: int) -> float:
        """The highest learning rate for so many images an update."""
        if self.learning_rate_batch is None:
            return self.learning_rate
        factor = images / self.learning_rate_batch
        return self.learning_rate * (factor if self.learning_rate_scaling == "linear" else factor**0.5)


def _has_accelerator() -> bool:
    import torch

    return torch.accelerator.is_available()
