"""The one display of progress: what a command is doing, how far it is, and how long that will take."""

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from acmix.cli.display.tables import duration
from acmix.errors import counted, printable

Item = TypeVar("Item")
# Seconds until the first plain line, and between two: what is done by then needs none.
_FIRST, _BETWEEN = 5.0, 10.0
# And between two drawings of a line without a thread.
_DRAWN = 0.5
# Below so many columns the bar is short.
_WIDE = 120


class ProgressLine:
    """A live line on stderr where a person looks on; otherwise plain lines on stderr, one in ten seconds at most.

    Args:
        doing: What is done, in a few words: "validating", "measuring kernels".
        total: How much there is to do.
        noun: What is counted, in the singular: "image", "training".
        done: How much of it was done before.
        measuring: What is counted are seconds of measuring: those that are not done are those that are left, and no
            thread runs beside what is measured; `advance` draws the line.
    """

    def __init__(self, doing: str, total: float, noun: str, *, done: float = 0, measuring: bool = False) -> None:
        self.doing, self.total, self.noun = printable(doing), total, noun
        self._begun_with, self.done = done, done
        self._note = ""
        self._began = time.monotonic()
        self._next = self._began + _FIRST
        # What a command prints above the line is not wrapped, or it could not be copied.
        console = Console(stderr=True, soft_wrap=True)
        self._live = sys.stderr.isatty() and not console.is_dumb_terminal
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=40 if console.width >= _WIDE else 20),
            _State(self),
            console=console,
            expand=True,
            transient=True,
            # What a command prints on the same terminal meanwhile stands above the line.
            redirect_stdout=sys.stdout.isatty(),
            auto_refresh=not measuring,
            disable=not self._live,
        )
        self._drawn = self._began if measuring else None
        self._task = self._bar.add_task(self.doing, total=total)
        self._bar.update(self._task, completed=done)

    def __enter__(self) -> Self:
        """Begin to show."""
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the terminal clean."""
        self._bar.stop()

    def advance(self, amount: float = 1, note: str | None = None) -> None:
        """Say that more is done.

        Args:
            amount: How much more, maybe none.
            note: What else is to be said, at the end of the line; None leaves it as it is.
        """
        self.done += amount
        self._note = self._note if note is None else note
        if self._live:
            self._bar.update(self._task, completed=self.done)
            if self._drawn is not None and time.monotonic() >= self._drawn + _DRAWN:
                self._drawn = time.monotonic()
                self._bar.refresh()
        elif self.done < self.total and time.monotonic() >= self._next:
            self._next = time.monotonic() + _BETWEEN
            sys.stderr.write(f"{self.doing}: {self.state()}\n")
            sys.stderr.flush()

    def state(self) -> str:
        """How far it is: "1,200 of 5,000 images, 0:00:35 left".

        Seconds of measuring need no estimate of the seconds left.
        """
        parts = [f"{int(self.done):,} of {counted(int(self.total), self.noun)}"]
        if self._drawn is None and (new := self.done - self._begun_with):
            left = (time.monotonic() - self._began) / new * (self.total - self.done)
            parts.append(f"{duration(left)} left")
        return ", ".join([*parts, self._note] if self._note else parts)


class _State(ProgressColumn):
    """The words beside a bar, made anew whenever the line is drawn."""

    def __init__(self, line: ProgressLine) -> None:
        self.line = line
        # It takes what the others leave.
        super().__init__(Column(ratio=1, no_wrap=True, overflow="ellipsis"))

    def render(self, task: Task) -> Text:
        """Of a `ProgressLine`; there is one task."""
        del task
        return Text(self.line.state())


@contextmanager
def working(doing: str = "loading PyTorch") -> Iterator[None]:
    """Show what is done for as long as nobody knows, and for how long it has been: live, or as one line after a while.

    Args:
        doing: What is done, in a few words.
    """
    console = Console(stderr=True)
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        columns = TextColumn("{task.description}", markup=False), TimeElapsedColumn()
        with Bar(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
            bar.add_task(printable(doing), total=None)
            yield
        return
    timer = threading.Timer(_FIRST, lambda: sys.stderr.write(f"{printable(doing)}\n"))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def track(items: Iterable[Item], doing: str, total: int, noun: str = "image") -> Iterator[Item]:
    """The `acmix.progress.Progress` of the command line."""
    with ProgressLine(doing, total, noun) as line:
        for item in items:
            yield item
            line.advance()
