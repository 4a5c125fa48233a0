"""Train a classifier: timm's networks, optimisers and schedule in Lightning's loop."""

import logging
import os
import signal
import statistics
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from timm.optim import create_optimizer_v2, get_optimizer_class
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from acmix.checkpoints import load_state_dict
from acmix.checkpoints.classifier import Classifier, load_classifier, running_versions, save_classifier
from acmix.data import (
    DataRecord,
    ImageData,
    LabelledImages,
    image_loader,
    open_dataset,
    preprocessing_for,
    training_transform,
)
from acmix.data.datasets import DIGITS
from acmix.errors import InputError
from acmix.models.names import check_name
from acmix.tasks import run
from acmix.tasks.inference import Evaluation, evaluate
from acmix.tasks.networks import check_input_size, create_network, load_start_weights
from acmix.tasks.settings import Precision, Settings

_LIGHTNING_PRECISION: dict[Precision, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
    "float16": "16-mixed",
}
# More processes than this only wait for the network.
_MOST_WORKERS = 8


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a finished run achieved.

    Attributes:
        output: The run folder; `acmix.tasks.run` lists its files.
        best_top1: Highest validation accuracy, 0..1.
        best_epoch: Its epoch, counted from 1.
        epochs: Epochs trained.
        seconds: Of all epochs, validation included.
        images_per_second: Training images a second, median over the epochs.
        validation: Evaluation of best.safetensors on the validation images.
    """

    output: Path
    best_top1: float
    best_epoch: int
    epochs: int
    seconds: float
    images_per_second: float
    validation: Evaluation


class ClassificationModule(LightningModule):
    """One network under label-smoothed cross-entropy.

    Args:
        model: `(B, C, H, W)` to logits `(B, classes)`.
        settings: The run's settings.
        classes: How many classes.
        updates_per_epoch: Batches an epoch, for the schedule.
    """

    def __init__(self, model: nn.Module, settings: Settings, classes: int, updates_per_epoch: int) -> None:
        super().__init__()
        self.model, self.settings, self.updates_per_epoch = model, settings, updates_per_epoch
        self.train_criterion = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
        self.train_loss = MeanMetric()
        self.val_loss = MeanMetric()
        self.val_top1 = MulticlassAccuracy(num_classes=classes, average="micro")
        self.val_top5 = MulticlassAccuracy(num_classes=classes, average="micro", top_k=5) if classes > 5 else None

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ARG002
        """Loss of one batch, with label smoothing."""
        images, labels = args[0]
        loss = self.train_criterion(self.model(images), labels)
        self.train_loss.update(loss.detach(), weight=len(labels))
        self.log("train_loss", self.train_loss, on_step=False, on_epoch=True)
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log("learning_rate", rate, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def validation_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Loss without label smoothing, and accuracies."""
        images, labels = args[0]
        logits = self.model(images).float()
        self.val_loss.update(nn.functional.cross_entropy(logits, labels), weight=len(labels))
        self.val_top1.update(logits, labels)
        self.log("val_loss", self.val_loss)
        self.log("val_top1", self.val_top1, prog_bar=True)
        if self.val_top5 is not None:
            self.val_top5.update(logits, labels)
            self.log("val_top5", self.val_top5)

    def configure_optimizers(self) -> Any:
        """timm's optimiser without decay on one-axis parameters, and a cosine stepped every update."""
        settings = self.settings
        warmup = settings.epochs // 10 if settings.warmup_epochs is None else settings.warmup_epochs
        accepted = signature(get_optimizer_class(settings.optimizer, bind_defaults=False)).parameters
        # One kernel for all parameters, where the optimiser has one.
        options: dict[str, Any] = {"fused": True} if "fused" in accepted else {}
        optimizer = create_optimizer_v2(
            self.model,
            opt=settings.optimizer,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            **options,
        )
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched="cosine",
            num_epochs=settings.epochs,
            warmup_epochs=warmup,
            warmup_lr=settings.learning_rate / 100,
            step_on_epochs=False,
            updates_per_epoch=self.updates_per_epoch,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:  # noqa: ARG002
        """timm's schedule counts updates itself."""
        scheduler.step_update(self.global_step)


def fit(
    data: str,
    settings: Settings,
    output: Path,
    *,
    resume: bool = False,
    weights: Path | None = None,
    workers: int | None = None,
    check_images: bool = True,
    progress: bool = False,
    on_epoch: Callable[[run.EpochRow], None] | None = None,
) -> TrainingResult:
    """Train a classifier; everything is checked before the run folder is touched.

    Args:
        data: What `acmix.data.open_dataset` takes.
        settings: The run's settings.
        output: The run folder, made if missing; it must not hold a run.
        resume: Continue the unfinished run in output, which had equal settings, after its last full epoch.
        weights: Start weights, ours or published, see `load_start_weights`.
        workers: Processes that read images; None is one a core, at most 8, and none for digits.
        check_images: Decode every image once before training.
        progress: Show progress bars.
        on_epoch: Called with the row of metrics.csv after every epoch.

    Raises:
        InputError: If an argument, the data or the run folder cannot be used.
        KeyboardInterrupt: If the person stops it; the run can be resumed.
    """
    settings.check()
    if workers is not None and workers < 0:
        raise InputError(f"workers must be at least 0, got {workers}")
    run.prepare_folder(output, resume=resume)
    seed_everything(settings.seed, workers=True, verbose=False)
    check_name(settings.model)
    images = open_dataset(
        data, val_fraction=settings.val_fraction, seed=settings.seed, check_images=check_images, progress=progress
    )
    classes = images.train.classes
    model = create_network(settings.model, num_classes=len(classes))
    preprocessing = preprocessing_for(model, image_size=settings.image_size, digits=data == DIGITS)
    check_input_size(model, settings.model, preprocessing["input_size"])
    config = _config(images, settings, model, preprocessing, weights)
    if resume:
        _check_resumable(output, config)
    elif weights is not None:
        load_start_weights(model, weights)
    _make_folder(output)
    if not resume:
        run.write_json(output / run.CONFIG, config)
    classifier = Classifier(model=model, model_name=settings.model, classes=classes, preprocessing=preprocessing)
    if workers is None:
        workers = 0 if data == DIGITS else min(_MOST_WORKERS, os.cpu_count() or 1)
    files = _train(classifier, images, settings, output, config, resume, workers, progress, on_epoch)
    return _summarise(files, images.validation, settings, workers)


def _config(
    images: ImageData, settings: Settings, model: nn.Module, preprocessing: dict[str, Any], weights: Path | None
) -> dict[str, Any]:
    record = DataRecord(
        location=images.location,
        was_split=images.was_split,
        val_fraction=settings.val_fraction,
        seed=settings.seed,
        fingerprint=images.fingerprint,
    )
    return {
        "settings": asdict(settings),
        "weights": None if weights is None else str(weights),
        "data": asdict(record),
        "train_images": len(images.train),
        "validation_images": len(images.validation),
        "classes": list(images.train.classes),
        "preprocessing": {key: list(v) if isinstance(v, tuple) else v for key, v in preprocessing.items()},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": running_versions(),
    }


def _check_resumable(output: Path, config: dict[str, Any]) -> None:
    """Refuse to continue a run under other settings, with other data, or from a damaged file."""
    saved = run.read_json(output / run.CONFIG)
    changed: list[str] = []
    for part in ("settings", "data"):
        old = saved.get(part)
        if not isinstance(old, dict):
            raise InputError(f"{output / run.CONFIG} is damaged: {part} is missing")
        for key, value in config[part].items():
            if old.get(key) != value:
                changed.append(f"{key} was {old.get(key)}, is {value}")
    if saved.get("weights") != config["weights"]:
        changed.append(f"weights was {saved.get('weights')}, is {config['weights']}")
    if changed:
        raise InputError(f"resume needs the settings and data the run began with: {'; '.join(changed)}")
    load_state_dict(output / run.RESUME)


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {output} cannot be made: {error.strerror or error}") from error


def _loaders(
    classifier: Classifier, images: ImageData, settings: Settings, workers: int
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    batch_size = min(settings.batch_size, len(images.train))
    digits = images.location == DIGITS
    loader = partial(image_loader, workers=workers, persistent_workers=workers > 0)
    train = loader(
        images.train.with_transform(training_transform(classifier.preprocessing, digits=digits)),
        batch_size=batch_size,
        shuffle=True,
        # Batch normalisation cannot learn from a last batch of one image.
        drop_last=True,
    )
    validation = loader(images.validation.with_transform(classifier.transform), batch_size=settings.batch_size)
    return train, validation


def _train(
    classifier: Classifier,
    images: ImageData,
    settings: Settings,
    output: Path,
    config: dict[str, Any],
    resume: bool,
    workers: int,
    progress: bool,
    on_epoch: Callable[[run.EpochRow], None] | None,
) -> run.RunFiles:
    train, validation = _loaders(classifier, images, settings, workers)
    module = ClassificationModule(classifier.model, settings, len(classifier.classes), len(train))

    def save(path: Path, row: run.EpochRow) -> None:
        training = {key: config[key] for key in ("settings", "data", "weights")} | {"metrics": row}
        save_classifier(path, replace(classifier, training=training))

    files = run.RunFiles(output, len(train) * (train.batch_size or 1), save, on_epoch)
    state = ModelCheckpoint(
        output, filename=Path(run.RESUME).stem, save_on_train_epoch_end=True, enable_version_counter=False
    )
    callbacks: list[Callback] = [files, state]
    if progress:
        callbacks.append(RichProgressBar(leave=False))
    with _quiet():
        trainer = Trainer(
            default_root_dir=output,
            devices=1,
            precision=_LIGHTNING_PRECISION[settings.precision],
            max_epochs=settings.epochs,
            callbacks=callbacks,
            logger=TensorBoardLogger(output, name="tensorboard", version=""),
            log_every_n_steps=min(50, len(train)),
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=progress,
            deterministic=settings.deterministic,
        )
        try:
            trainer.fit(module, train, validation, ckpt_path=output / run.RESUME if resume else None, weights_only=True)
        except SystemExit:
            # Lightning turns Ctrl-C into an exit with code 1 and leaves the signal ignored.
            if not trainer.interrupted:
                raise
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from None
    return files


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's notes on hardware and its advice on worker counts off the terminal."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
            # Lightning 2.6 uses a name that torch 2.15 deprecates.
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
            # A run folder may be moved before it is resumed.
            warnings.filterwarnings("ignore", message="The dirpath has changed")
            yield
    finally:
        logger.setLevel(level)


def _summarise(files: run.RunFiles, validation: LabelledImages, settings: Settings, workers: int) -> TrainingResult:
    """Evaluate the best checkpoint as a user would load it, and write summary.json."""
    evaluation = evaluate(
        load_classifier(files.output / run.BEST), validation, batch_size=settings.batch_size, workers=workers
    )
    result = TrainingResult(
        output=files.output,
        best_top1=evaluation.top1,
        best_epoch=int(files.best["epoch"]),
        epochs=len(files.rows),
        seconds=sum(row["seconds"] for row in files.rows),
        images_per_second=statistics.median(row["images_per_second"] for row in files.rows),
        validation=evaluation,
    )
    run.write_json(files.output / run.SUMMARY, asdict(result) | {"output": str(files.output)})
    return result
