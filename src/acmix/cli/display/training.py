"""What `acmix train` and `acmix recipes` show."""

import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from rich import get_console
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from acmix.cli.display.tables import duration, make_table

if TYPE_CHECKING:
    from acmix.tasks.loop.fields import Setting


def show_recipes(recipes: Mapping[str, Mapping[str, Any]]) -> None:
    """Show `acmix recipes`."""
    table = make_table("recipes, for acmix train DATA --recipe NAME")
    names = {"model": "model", "epochs": "epochs", "optimizer": "optimizer", "learning_rate": "rate"}
    for heading in ("recipe", *names.values()):
        left = heading in ("recipe", "model")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for recipe, settings in recipes.items():
        table.add_row(recipe, *(str(settings.get(name, "any" if name == "model" else "")) for name in names))
    table.caption = "acmix recipes --name NAME prints one in full"
    get_console().print(table)


def show_settings(settings: "Mapping[str, Setting]", *, as_markdown: bool) -> None:
    """Show `acmix recipes --settings`."""
    if as_markdown:
        rows = [(f"`{name}`", each.values, each.default_in_words, each.help) for name, each in settings.items()]
        lines = [("setting", "values", "default", "meaning"), ("---",) * 4, *rows]
        sys.stdout.write("".join(f"| {' | '.join(cells)} |\n" for cells in lines))
        return
    table = make_table("settings, for acmix train DATA --SETTING VALUE and for recipes")
    for heading in ("setting", "values", "meaning"):
        table.add_column(heading, no_wrap=heading == "setting")
    for name, each in settings.items():
        table.add_row(*map(escape, (name, each.in_words, each.help)))
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
        """The `acmix.tasks.loop.progress.Reporting` that shows a run here."""
        from acmix.tasks.loop.progress import Reporting

        return Reporting(
            on_epoch=self._show_epoch,
            on_update=self._show_update,
            on_start=self._show_start,
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
            f"{loads}, waits {progress.waiting:.0%}  {duration(progress.seconds_left)} left"
        )
        self._bar.update(
            self._task,
            visible=True,
            description=f"epoch {progress.epoch}/{self.epochs}",
            completed=progress.update,
            total=progress.updates,
            state=state,
        )

    def _show_start(self, facts: Mapping[str, str]) -> None:
        for name, fact in facts.items():
            get_console().print(f"{name}: {fact}", highlight=False, markup=False, soft_wrap=True)

    def _show_problem(self, sentence: str) -> None:
        Console(stderr=True).print(sentence, highlight=False, markup=False, soft_wrap=True)


def show_training(result: Any, data: str) -> None:
    """Show what a `acmix.tasks.classification.fitting.TrainingResult` achieved, where it lies and what to type next."""
    table = make_table("Training finished", show_header=False)
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
    sys.stdout.write(shlex.join(["acmix", "validate", str(result.output / "best.safetensors"), data]) + "\n")
