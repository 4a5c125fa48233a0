"""What `acmix study` shows."""

from typing import TYPE_CHECKING, Any, Self

from rich import get_console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from acmix.cli.display.tables import duration

if TYPE_CHECKING:
    from acmix.study import Trained, Watching


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
        left = duration(progress.seconds_left)
        state = f"{name}, seed {seed}: epoch {progress.epoch}, loss {progress.loss:.4f}, {left} left"
        self._bar.update(self._task, state=state)

    def _show_trained(self, trained: "Trained") -> None:
        self._bar.advance(self._task)
        get_console().print(
            f"seed {trained.seed:>3}  {trained.variant:<18}  accuracy {trained.accuracy:7.2%}  {trained.seconds:.1f} s",
            highlight=False,
        )
