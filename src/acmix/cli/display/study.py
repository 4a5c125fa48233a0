"""What `acmix study` shows."""

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from rich import get_console

from acmix.cli.display.progress import ProgressLine
from acmix.cli.display.tables import print_wide

if TYPE_CHECKING:
    from acmix.study import Study, Trained, Watching


class StudyDisplay(ExitStack):
    """One line for a finished training of a study; below them how far the study is, and the time left of all of it.

    Args:
        score: What networks are compared by, in words.
    """

    def __init__(self, score: str) -> None:
        super().__init__()
        self._score = score
        self._line: ProgressLine | None = None
        # Of the present training, as a share of it.
        self._shown = 0.0
        self._pretrained = ""

    def __enter__(self) -> Self:
        """Begin to show, once there is something to tell."""
        return self

    def watching(self) -> "Watching":
        """Whom a study tells of its progress."""
        from acmix.study import Watching
        from acmix.study.training import PRETRAINED

        self._pretrained = PRETRAINED
        return Watching(on_start=self._start, on_update=self._show_update, on_trained=self._show_trained)

    def _start(self, finished: int, trainings: int) -> None:
        self._line = self.enter_context(ProgressLine("study", trainings, "training", done=finished))

    def _show_update(self, name: str, seed: int, progress: Any) -> None:
        # What all of a seed start from is no training of the study: it is named, not counted.
        counted = name != self._pretrained
        share = counted * (progress.epoch - 1 + progress.update / progress.updates) / progress.epochs
        note = f"{name}, seed {seed}: epoch {progress.epoch} of {progress.epochs}, loss {progress.loss:.4f}"
        self._advance(share, note)

    def _show_trained(self, trained: "Trained") -> None:
        self._advance(1.0, "")
        self._shown = 0.0
        get_console().print(
            f"seed {trained.seed:>3}  {trained.variant:<18}  {self._score} {trained.accuracy:7.2%}  "
            f"{trained.seconds:.1f} s",
            highlight=False,
        )

    def _advance(self, share: float, note: str) -> None:
        if self._line is not None:
            self._line.advance(share - self._shown, note)
        self._shown = share


def show_study(study: "Study", *, as_markdown: bool) -> None:
    """Show a study: as tables on a terminal, as Markdown where that is wanted, and in a file or a pipe."""
    from acmix.study import as_markdown as written
    from acmix.study.page import parts

    if as_markdown or not sys.stdout.isatty():
        sys.stdout.write(written(study))
        return
    console = get_console()
    for part in parts(study):
        if isinstance(part, str):
            console.print(part.replace("`", ""), highlight=False, markup=False)
            console.print()
        else:
            print_wide("", part.headings, part.rows, named=part.named, numbers=True)
