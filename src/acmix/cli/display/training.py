"""What `acmix train` and `acmix recipes` show."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rich import get_console
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column

from acmix.cli.display.tables import duration, make_table, print_wide
from acmix.errors import printable
from acmix.shell import command

if TYPE_CHECKING:
    from acmix.cli.wording import SettingsOf
    from acmix.tasks.loop.measures import Measure
    from acmix.tasks.loop.results import TrainingResult

# Columns from which the bar is long, and seconds between two lines in a file.
_WIDE, _BETWEEN = 120, 60.0


def show_recipes(recipes: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
    """Show `acmix recipes`: task and settings by name."""
    names = {"task": "task", "model": "model", "epochs": "epochs", "optimizer": "optimizer", "learning_rate": "rate"}
    rows = [
        [recipe, *(str({"model": "any", "task": task, **settings}.get(name, "")) for name in names)]
        for recipe, (task, settings) in recipes.items()
    ]
    print_wide("recipes, for acmix train DATA --recipe NAME", ["recipe", *names.values()], rows)
    get_console().print("acmix recipes --name NAME prints one in full", highlight=False)


def show_settings(options: "SettingsOf", *, as_markdown: bool) -> None:
    """Show `acmix recipes --settings`."""
    meanings = [
        (each, f"Of {tasks}: {each.help}" if tasks else each.help)
        for name in options.settings
        for tasks, each in options.meanings(name)
    ]
    if as_markdown:
        rows = [(f"`{each.name}`", each.values, each.default_in_words, meaning) for each, meaning in meanings]
        lines = [("setting", "values", "default", "meaning"), ("---",) * 4, *rows]
        sys.stdout.write("".join(f"| {' | '.join(cells)} |\n" for cells in lines))
        return
    table = make_table("settings, for acmix train DATA --SETTING VALUE and for recipes")
    for heading in ("setting", "values", "meaning"):
        table.add_column(heading, no_wrap=heading == "setting")
    for each, meaning in meanings:
        table.add_row(*map(escape, (each.name, each.in_words, meaning)))
    get_console().print(table)


class TrainingDisplay:
    """One line for a finished epoch; above them, where a person looks on, a live line of the present one.

    Elsewhere, in a file for instance, a line a minute says how far a long epoch is.

    Args:
        epochs: How many there will be.
        measures: Of the kind of training.
        live: Whether a person looks on.
    """

    def __init__(self, epochs: int, measures: "Sequence[Measure]", *, live: bool) -> None:
        self.measures = measures
        self.epochs, self._live, self._told = epochs, live, time.monotonic()
        self._bar = Bar(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20 if get_console().width >= _WIDE else 8),
            TextColumn("{task.fields[state]}", table_column=Column(no_wrap=True)),
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
            on_validation=self._show_validation,
            on_start=self._show_start,
            on_problem=self._show_problem,
            **options,
        )

    def _show_epoch(self, row: Mapping[str, float]) -> None:
        self._told = time.monotonic()
        # What comes next, another epoch or measuring the best checkpoint, has a line of its own.
        self._bar.update(self._task, visible=False)
        validated = ", ".join(
            each.described(row[each.name]) for each in self.measures if each.name in row and not each.optional
        )
        line = [f"training loss {row['train_loss']:.4f}", f"validation {validated}", f"{row['seconds']:.1f} s"]
        get_console().print(f"epoch {row['epoch']:>3.0f}/{self.epochs}", *line, sep="  ", highlight=False)

    def _show_update(self, progress: Any) -> None:
        # The most wanted first: a narrow terminal shows what fits.
        parts = [
            f"{progress.update}/{progress.updates}",
            f"loss {progress.loss:.4f}",
            f"{duration(progress.seconds_left)} left",
            f"{progress.images_per_second:,.0f} images/s",
            f"rate {progress.learning_rate:.2e}",
            f"loader {progress.loader_images_per_second:,.0f}/s, waits {progress.waiting:.0%}",
        ]
        self._show_line(progress.epoch, parts, progress.update, progress.updates)

    def _show_validation(self, epoch: int, batch: int, batches: int) -> None:
        self._show_line(epoch, [f"validating {batch}/{batches}"], batch, batches)

    def _show_line(self, number: int, parts: list[str], done: int, total: int) -> None:
        epoch = f"epoch {number}/{self.epochs}"
        if not self._live:
            if time.monotonic() >= self._told + _BETWEEN:
                self._told = time.monotonic()
                Console(stderr=True).print(epoch, *parts, sep="  ", highlight=False, soft_wrap=True)
            return
        width = get_console().width
        room = width - len(epoch) - (20 if width >= _WIDE else 8) - 2
        while len("  ".join(parts)) > room and len(parts) > 1:
            parts.pop()
        self._bar.update(
            self._task,
            visible=True,
            description=epoch,
            completed=done,
            total=total,
            state="  ".join(parts),
        )

    def _show_start(self, facts: Mapping[str, str]) -> None:
        for name, fact in facts.items():
            get_console().print(f"{name}: {fact}", highlight=False, markup=False, soft_wrap=True)

    def _show_problem(self, sentence: str) -> None:
        Console(stderr=True).print(sentence, highlight=False, markup=False, soft_wrap=True)


def show_training(result: "TrainingResult", data: str) -> None:
    """Show what a training achieved, where it lies and what to type next."""
    table = make_table("Training finished", show_header=False)
    table.add_row(f"best {result.measure}", f"{result.best:.2%} in epoch {result.best_epoch} of {result.epochs}")
    if result.stopped_early is not None:
        table.add_row("stopped early", result.stopped_early)
    table.add_row("time", f"{result.seconds:.1f} s, {result.images_per_second:,.0f} images/s")
    # Names alone: a path would be broken where the terminal ends.
    for name, meaning in (
        ("best.safetensors", "best checkpoint"),
        ("last.safetensors", "last checkpoint"),
        ("report.html", "report"),
        ("metrics.csv", "every epoch"),
        ("summary.json", "this summary, by class"),
        ("config.json", "settings, versions"),
        ("tensorboard", "logs, for tensorboard --logdir"),
    ):
        table.add_row(meaning, name)
    console = get_console()
    console.print(table)
    sys.stdout.write(f"all of it in {printable(result.output)}\n")
    console.print("next:", style="bold")
    # Plain text: a command must not be wrapped, or it cannot be copied.
    sys.stdout.write(command("validate", result.output / "best.safetensors", data) + "\n")
