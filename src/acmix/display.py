"""What the command line shows: rich tables for people, JSON for programs."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from rich import box, get_console
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from acmix.errors import printable

if TYPE_CHECKING:
    from acmix.accounting import Account, Cost, NetworkCost
    from acmix.bench import Comparison, LayerBounds, Scaling
    from acmix.data import EvaluationImages
    from acmix.data.checking import DataReport, PartReport
    from acmix.data.datasets import Parts
    from acmix.data.writing import WrittenSplit
    from acmix.study import Trained, Watching
    from acmix.tasks.comparison import RunComparison
    from acmix.tasks.inference import Evaluation, Prediction


# A wider confusion matrix is not read on a terminal; --json has it.
_WIDEST_MATRIX = 20
# What bounds the time of a kernel (`acmix.bench.bounds`).
_BOUNDS = ("bytes", "products", "instructions")
# Faults of one kind that are named on a terminal; --json names all.
_NAMED = 5


def show_account(name: str, account: "Account", *, as_json: bool) -> None:
    """Show `acmix info`."""
    if as_json:
        parts = {"network": account.network, "twin": account.twin}
        costs = {key: asdict(cost) | {"total": asdict(cost.total)} for key, cost in parts.items()}
        _print_json({"model": name, "input_size": account.input_size} | costs)
        return
    table = _table(f"{name}, input {' x '.join(map(str, account.input_size))}")
    for heading in ("part", "parameters", "multiply-adds", "parameters", "multiply-adds"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part in ("projection", "attention", "convolution", "other", "total"):
        table.add_row(part, *_cells(account.network, part), *_cells(account.twin, part), end_section=part == "other")
    table.caption = "left: this network; right: the same network with convolutions in place of the operator"
    get_console().print(table)
    for kind, count in account.network.uncounted.items():
        get_console().print(f"multiply-adds of {kind} ({count:,} parameters) are not counted")


def _cells(cost: "NetworkCost", part: str) -> tuple[str, str]:
    value: Cost = getattr(cost, part)
    return f"{value.parameters / 1e6:.3f} M", f"{value.multiply_adds / 1e6:,.1f} M"


def show_recipes(recipes: Mapping[str, Mapping[str, Any]]) -> None:
    """Show `acmix recipes`."""
    table = _table("recipes, for acmix train DATA --recipe NAME")
    names = {"model": "model", "epochs": "epochs", "optimizer": "optimizer", "learning_rate": "rate"}
    for heading in ("recipe", *names.values()):
        left = heading in ("recipe", "model")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for recipe, settings in recipes.items():
        table.add_row(recipe, *(str(settings.get(name, "any" if name == "model" else "")) for name in names))
    table.caption = "acmix recipes --name NAME prints one in full"
    get_console().print(table)


class TrainingDisplay:
    """One line for a finished epoch; above them, where a person looks on, a live line of the present one.

    Args:
        epochs: How many there will be.
        live: Whether a person looks on.
    """

    def __init__(self, epochs: int, *, live: bool) -> None:
        self.epochs = epochs
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[state]}"),
            console=get_console(),
            transient=True,
            disable=not live,
        )
        self._task = self._bar.add_task("", visible=False, state="")

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the terminal clean."""
        self._bar.stop()

    def reporting(self, **options: Any) -> Any:
        """The `acmix.tasks.progress.Reporting` that shows a run here."""
        from acmix.tasks.progress import Reporting

        return Reporting(
            on_epoch=self._show_epoch,
            on_update=self._show_update,
            on_note=self._show_note,
            on_problem=self._show_problem,
            **options,
        )

    def _show_epoch(self, row: Mapping[str, float]) -> None:
        get_console().print(
            f"epoch {row['epoch']:>3.0f}/{self.epochs}  train loss {row['train_loss']:.4f}  "
            f"val loss {row['val_loss']:.4f}  val top-1 {row['val_top1']:7.2%}  {row['seconds']:.1f} s",
            highlight=False,
        )

    def _show_update(self, progress: Any) -> None:
        loads = f"loader {progress.loader_images_per_second:,.0f}/s"
        state = (
            f"loss {progress.loss:.4f}  rate {progress.learning_rate:.2e}  {progress.images_per_second:,.0f} images/s  "
            f"{loads}, waits {progress.waiting:.0%}  {_duration(progress.seconds_left)} left"
        )
        self._bar.update(
            self._task,
            visible=True,
            description=f"epoch {progress.epoch}/{self.epochs}",
            completed=progress.update,
            total=progress.updates,
            state=state,
        )

    def _show_note(self, sentence: str) -> None:
        get_console().print(sentence, highlight=False, markup=False, soft_wrap=True)

    def _show_problem(self, sentence: str) -> None:
        Console(stderr=True).print(sentence, highlight=False, markup=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def show_training(result: Any, data: str) -> None:
    """Show what a `acmix.tasks.classification.TrainingResult` achieved, where it lies and what to type next."""
    table = _table("Training finished", show_header=False)
    table.add_row("best top-1", f"{result.best_top1:.2%} in epoch {result.best_epoch} of {result.epochs}")
    table.add_row("time", f"{result.seconds:.1f} s, {result.images_per_second:,.0f} images/s")
    for name, meaning in (
        ("best.safetensors", "best checkpoint"),
        ("last.safetensors", "last checkpoint"),
        ("report.html", "report"),
        ("metrics.csv", "every epoch"),
        ("summary.json", "this summary, confusion matrix"),
        ("config.json", "settings, versions"),
        ("tensorboard", "tensorboard --logdir"),
    ):
        table.add_row(meaning, str(result.output / name))
    console = get_console()
    console.print(table)
    console.print("next:", style="bold")
    # Plain text: a command must not be wrapped, or it cannot be copied.
    sys.stdout.write(f"acmix validate {result.output / 'best.safetensors'} {data}\n")


def show_runs(comparison: "RunComparison", *, as_json: bool) -> None:
    """Show `acmix compare`: facts, then the settings in which the runs differ; unfinished runs stand out."""
    if as_json:
        _print_json(asdict(comparison))
        return
    table = _table(f"{len(comparison.runs)} runs")
    table.add_column("")
    for run in comparison.runs:
        table.add_column(escape(run.run), style=None if run.finished else "yellow", overflow="fold")
    for name, cells in comparison.facts.items():
        table.add_row(name, *map(escape, cells))
    table.add_row("", *("" for _ in comparison.runs))
    table.add_row("[bold]where they differ[/]" if comparison.differing else "they do not differ")
    for name, values in comparison.differing.items():
        table.add_row(escape(name), *(escape(str(value)) for value in values))
    get_console().print(table)


def show_evaluation(evaluation: "Evaluation", found: "EvaluationImages", *, as_json: bool) -> None:
    """Show `acmix validate`."""
    if as_json:
        _print_json(asdict(evaluation) | found.facts)
        return
    console = get_console()
    # Plain text: paths must not be wrapped, or they cannot be copied.
    sys.stdout.write(f"measured: {found.measured}\n")
    if found.trained_on:
        sys.stdout.write(f"left out: {found.trained_on:,} images that the network was trained on\n")
    if found.changed:
        sys.stdout.write(f"left out: {found.changed:,} images that changed since the network was trained on them\n")
    sys.stdout.writelines(f"note: {note}\n" for note in found.notes)
    top5 = "" if evaluation.top5 is None else f", top-5 {evaluation.top5:.2%}"
    console.print(f"{evaluation.images:,} images: top-1 {evaluation.top1:.2%}{top5}", highlight=False, style="bold")
    scores = _table("per class")
    for heading in ("class", "images", "recall", "precision", "F1"):
        scores.add_column(heading, justify="left" if heading == "class" else "right")
    for score in evaluation.classes:
        percents = (f"{value:.2%}" for value in (score.recall, score.precision, score.f1))
        scores.add_row(escape(score.name), str(score.images), *percents)
    console.print(scores)
    if len(evaluation.classes) > _WIDEST_MATRIX:
        console.print(f"confusion matrix of {len(evaluation.classes)} classes: see --json")
        return
    matrix = _table("confusion matrix (row: true, column: predicted)")
    matrix.add_column("")
    for score in evaluation.classes:
        matrix.add_column(escape(score.name), justify="right")
    for score, row in zip(evaluation.classes, evaluation.confusion_matrix, strict=True):
        matrix.add_row(escape(score.name), *(str(count) if count else "." for count in row))
    console.print(matrix)


def show_predictions(predictions: "Sequence[Prediction]", *, as_json: bool) -> None:
    """Show `acmix predict`: one line an image."""
    if as_json:
        _print_json(
            [
                {
                    "path": str(prediction.path),
                    "classes": [{"name": name, "probability": value} for name, value in prediction.scores],
                }
                for prediction in predictions
            ]
        )
        return
    for prediction in predictions:
        scores = "  ".join(f"{name} {value:.1%}" for name, value in prediction.scores)
        sys.stdout.write(f"{printable(prediction.path)}: {scores}\n")


def show_onnx(written: Any) -> None:
    """Show an `acmix.export.OnnxExport`: the file and how it compares to the network in ONNX Runtime."""
    table = _table(f"{written.path}: {written.operators:,} operators")
    for heading in ("images", "largest difference", "relative error", "of PyTorch"):
        table.add_column(heading, justify="left" if heading == "images" else "right")
    for check in written.checks:
        errors = (f"{value:.1e}" for value in (check.difference, check.error, check.own_error))
        table.add_row(" x ".join(map(str, check.shape)), *errors)
    table.caption = "ONNX Runtime against PyTorch; errors of both against float64"
    get_console().print(table)
    sys.stdout.write(f"largest difference: {written.largest_difference:.1e}\n")


def show_data_report(parts: "Parts", report: "DataReport", *, as_json: bool) -> None:
    """Show `acmix data check`."""
    if as_json:
        found = {"leaked": report.leaked, "conflicting": report.conflicting, "duplicates": report.duplicates}
        groups = {name: [[asdict(copy) for copy in group] for group in value] for name, value in found.items()}
        reports = {name: asdict(part) | {"empty": part.empty} for name, part in report.parts.items()}
        left_out = {"left_out": dict(parts.left_out.counts), "left_out_first": parts.left_out.names}
        _print_json({"data": parts.location, "sound": report.sound, "parts": reports} | groups | left_out)
        return
    table = _table(escape(parts.location))
    table.add_column("")
    for name in report.parts:
        table.add_column(name, justify="right")
    cells = [_part_cells(part) for part in report.parts.values()]
    for row in zip(*cells, strict=True):
        table.add_row(row[0][0], *(value for _, value in row))
    console = get_console()
    console.print(table)
    if len(next(iter(report.parts.values())).classes) <= _WIDEST_MATRIX:
        balance = _table("per class")
        balance.add_column("class")
        for name in report.parts:
            balance.add_column(name, justify="right")
        counts = [part.classes for part in report.parts.values()]
        for name in counts[0]:
            balance.add_row(escape(name), *(f"{count[name]:,}" for count in counts))
        console.print(balance)
    if parts.left_out.counts:
        sys.stdout.write(f"left out: {parts.left_out}\n")
    _show_faults(report)


def _part_cells(part: "PartReport") -> list[tuple[str, str]]:
    """What a part holds as (heading, value)."""
    cells = [("images", f"{part.images:,}"), ("unreadable", f"{len(part.unreadable):,}")]
    for heading, side in (("width", part.width), ("height", part.height)):
        sizes = "-" if side is None else f"{side.smallest:,} / {side.median:,} / {side.largest:,}"
        cells.append((f"{heading}, smallest / median / largest", sizes))
    for heading, counts in (("formats", part.formats), ("modes", part.modes)):
        cells.append((heading, ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "-"))
    ranked = sorted(part.classes.items(), key=lambda item: item[1])
    cells += [("classes", f"{len(ranked):,}"), ("classes without images", f"{len(part.empty):,}")]
    for heading, (name, count) in (("smallest class", ranked[0]), ("largest class", ranked[-1])):
        cells.append((heading, f"{escape(name)}: {count:,}"))
    return cells


def _show_faults(report: "DataReport") -> None:
    faults = [
        ("unreadable", [f"{fault.name}: {fault.reason}" for part in report.parts.values() for fault in part.unreadable])
    ]
    several = len(report.parts) > 1
    for heading, groups in (
        (
            f"identical files in {'several parts' if 'test' in report.parts else 'training and validation'}",
            report.leaked,
        ),
        ("identical files in different classes", report.conflicting),
        ("other identical files", report.harmless),
    ):
        lines = [
            " = ".join(f"{copy.part + ': ' if several else ''}{copy.name} ({copy.label})" for copy in group)
            for group in groups
        ]
        faults.append((heading, lines))
    # Plain text: names must not be wrapped, or they cannot be copied.
    for heading, lines in faults:
        if lines:
            sys.stdout.write(f"{heading}: {len(lines):,}\n")
            sys.stdout.writelines(f"  {line}\n" for line in lines[:_NAMED])
            if len(lines) > _NAMED:
                sys.stdout.write(f"  and {len(lines) - _NAMED:,} more: see --json\n")
    sys.stdout.write("the images are sound\n" if report.sound else "the images are NOT sound\n")


def show_shards(output: Path, written: "Mapping[str, WrittenSplit]") -> None:
    """Show what `acmix data shard` wrote and what to type next."""
    table = _table(escape(str(output)))
    for heading in ("split", "images", "shards", "MB"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for name, split in written.items():
        table.add_row(name, f"{split.images:,}", f"{split.shards:,}", f"{split.size / 1e6:,.1f}")
    get_console().print(table)
    sys.stdout.write(f"acmix train {output}\n")


class StudyDisplay:
    """One line for a finished training of a study; below them, where a person looks on, a live line of the present one.

    Args:
        live: Whether a person looks on.
    """

    def __init__(self, *, live: bool) -> None:
        self._bar = Bar(
            TextColumn("{task.completed:.0f}/{task.total:.0f} trainings"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[state]}"),
            console=get_console(),
            transient=True,
            disable=not live,
        )
        self._task = self._bar.add_task("", state="")

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the terminal clean."""
        self._bar.stop()

    def watching(self) -> "Watching":
        """Whom a study tells of its progress."""
        from acmix.study import Watching

        return Watching(on_start=self._start, on_update=self._show_update, on_trained=self._show_trained)

    def _start(self, finished: int, trainings: int) -> None:
        self._bar.update(self._task, completed=finished, total=trainings)

    def _show_update(self, name: str, seed: int, progress: Any) -> None:
        left = _duration(progress.seconds_left)
        state = f"{name}, seed {seed}: epoch {progress.epoch}, loss {progress.loss:.4f}, {left} left"
        self._bar.update(self._task, state=state)

    def _show_trained(self, trained: "Trained") -> None:
        self._bar.advance(self._task)
        get_console().print(
            f"seed {trained.seed:>3}  {trained.variant:<18}  accuracy {trained.accuracy:7.2%}  {trained.seconds:.1f} s",
            highlight=False,
        )


def show_machine(machine: dict[str, object]) -> None:
    """Show what a benchmark runs on."""
    get_console().print(
        f"{machine['processor']} ({machine['instructions']}, compiled kernels: {machine['kernels'] or 'none'}), "
        f"{machine['threads']} threads, torch {machine['torch']}; "
        f"the machine withholds {machine['withheld_share']:.0%} of a thread's time",
        highlight=False,
    )


def show_comparison(comparison: "Comparison") -> None:
    """Show one case of `acmix bench`: fastest run and median, ratios of the fastest to the baseline, memory."""
    table = _table(comparison.title)
    table.add_column("candidate", no_wrap=True)
    for heading in ("forward, ms", "ratio", "forward + backward, ms", "ratio", "memory, MB", "ratio"):
        table.add_column(heading, justify="right")
    base = comparison.candidates[comparison.baseline]
    for name, measured in comparison.candidates.items():
        cells: list[str] = []
        for timing, other in ((measured.forward, base.forward), (measured.training, base.training)):
            cells += [
                f"{1e3 * timing.fastest:.1f} ({1e3 * timing.median:.1f})",
                f"{timing.fastest / other.fastest:.2f}",
            ]
        memory = f"{measured.forward_memory / 1e6:,.0f} / {measured.training_memory / 1e6:,.0f}"
        table.add_row(name, *cells, memory, f"{measured.training_memory / base.training_memory:.2f}")
    table.caption = (
        "times: fastest of interleaved runs (median); memory: peak of the allocator, forward / forward + backward;\n"
        f"ratios to {comparison.baseline}, of the fastest runs and of the memory of forward + backward"
    )
    console = get_console()
    console.print(table)
    if "networks" in comparison.settings:
        batch = cast(int, comparison.settings["batch"])
        for name, measured in comparison.candidates.items():
            forward, training = (f"{batch / part.fastest:,.1f}" for part in (measured.forward, measured.training))
            console.print(f"{name}: {forward} images/s, {training} forward + backward", highlight=False)


def show_bounds(layer: "LayerBounds") -> None:
    """Show the kernels of one layer: the fastest launch, what it must take at least, and the share of that."""
    table = _table(layer.title)
    table.add_column("kernel, us", no_wrap=True)
    for heading in ("fastest", *_BOUNDS, "share"):
        table.add_column(heading, justify="right")
    for name, kernel in layer.kernels.items():
        least = (f"{1e6 * kernel.bounds[kind]:,.1f}" if kind in kernel.bounds else "-" for kind in _BOUNDS)
        table.add_row(name, f"{1e6 * kernel.time.fastest:,.1f}", *least, f"{kernel.share:.0%}")
    table.caption = (
        "least time of bytes, products and instructions, share of the longest; measured here:\n"
        f"{layer.rates.bytes / 1e9:,.0f} GB/s of a copy, {layer.rates.flops / 1e12:,.1f} TFLOP/s of a product"
    )
    get_console().print(table)


def show_scaling(scaling: "Scaling") -> None:
    """Show growth and the fitted exponents."""
    table = _table(f"one layer over {scaling.axis}")
    for heading in (scaling.axis, "forward, ms", "forward + backward, ms", "memory, MB"):
        table.add_column(heading, justify="right")
    for point in scaling.points:
        memory = f"{point.forward_memory / 1e6:,.0f} / {point.training_memory / 1e6:,.0f}"
        table.add_row(f"{point.count:,}", f"{1e3 * point.forward:.1f}", f"{1e3 * point.training:.1f}", memory)
    fitted = scaling.exponents
    table.add_row(
        "exponent",
        f"{fitted['forward']:.2f}",
        f"{fitted['training']:.2f}",
        f"{fitted['forward_memory']:.2f} / {fitted['training_memory']:.2f}",
    )
    get_console().print(table)


def _table(title: str, **options: Any) -> Table:
    return Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE, **options)


def _print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
