import io
import re
import sys
import threading

import pytest

from acmix.cli.display import progress


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    # Other tests take it away.
    monkeypatch.setattr(progress, "_FIRST", 5.0)
    return clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def make_terminal(monkeypatch, kind="xterm"):
    """A terminal in the place of stderr; a fixture would do so before pytest captures the test's own."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", kind)
    return sys.stderr


def slowly(clock, seconds, count):
    for index in range(count):
        clock.now += seconds
        yield index


def test_lines_in_a_file_say_what_how_far_and_how_long(clock, capsys):
    assert list(progress.track(slowly(clock, 1.0, 25), "validating", 25)) == [*range(25)]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "validating: 5 of 25 images, 0:00:20 left",
        "validating: 15 of 25 images, 0:00:10 left",
    ]


def test_what_is_quick_says_nothing(clock, capsys):
    assert len(list(progress.track(slowly(clock, 0.001, 1000), "validating", 1000))) == 1000
    assert capsys.readouterr() == ("", "")


def test_time_left_counts_what_was_done_here(clock, capsys):
    with progress.ProgressLine("training", 10, "training", done=8) as line:
        clock.now += 20
        line.advance(1, "third network")
        clock.now += 20
        line.advance()
    assert capsys.readouterr().err == "training: 9 of 10 trainings, 0:00:20 left, third network\n"


@pytest.mark.parametrize("columns", [80, 200])
def test_a_line_on_a_terminal_fits_and_goes(monkeypatch, columns):
    terminal = make_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", str(columns))
    with progress.ProgressLine("checking images", 1_281_167, "image") as line:
        line.advance(640_000, "x" * 300)
        line._bar.refresh()
        drawn = terminal.getvalue()
    lines = [line for line in progress_lines(drawn) if "checking" in line]
    assert lines
    assert all(len(line) <= columns for line in lines)
    assert "640,000 of 1,281,167 images, 0:00:0" in lines[-1]
    # The line is erased at the end.
    assert terminal.getvalue().endswith("\x1b[2K")


def progress_lines(drawn):
    """What stands on each line, without colours and movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn).replace("\r", "\n").split("\n")


def test_a_terminal_that_moves_no_cursor_gets_plain_lines(monkeypatch, clock):
    terminal = make_terminal(monkeypatch, "dumb")
    list(progress.track(slowly(clock, 6.0, 2), "reading\nimages", 2))
    assert terminal.getvalue() == "reading\\nimages: 1 of 2 images, 0:00:06 left\n"


def test_measuring_draws_between_runs_and_has_no_thread(clock, monkeypatch):
    terminal = make_terminal(monkeypatch)
    # Of others one may end meanwhile.
    threads = set(threading.enumerate())
    with progress.ProgressLine("measuring", 10, "second", measuring=True) as line:
        assert set(threading.enumerate()) <= threads
        drawn = len(terminal.getvalue())
        line.advance(3)
        assert len(terminal.getvalue()) == drawn
        clock.now += 1
        line.advance(2)
        assert "5 of 10 seconds" in terminal.getvalue()[drawn:]
    assert "left" not in terminal.getvalue()


def test_work_of_unknown_length_shows_for_how_long_it_has_been(monkeypatch):
    terminal = make_terminal(monkeypatch)
    with progress.working("exporting"):
        pass
    assert "exporting 0:00:00" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())


def test_work_of_unknown_length_is_one_line_in_a_file(monkeypatch, capsys):
    with progress.working("exporting"):
        pass
    monkeypatch.setattr(progress, "_FIRST", 0.0)
    written = threading.Event()
    monkeypatch.setattr(sys.stderr, "write", lambda text: (sys.stdout.write(text), written.set()))
    with progress.working("exporting"):
        assert written.wait(10)
    assert capsys.readouterr().out == "exporting\n"


def test_what_is_printed_above_the_line_is_not_broken(monkeypatch):
    terminal = make_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdout", Terminal())
    with progress.ProgressLine("predicting", 2, "image"):
        sys.stdout.write("a/path [b]that is[/b] much longer than the terminal is wide.png: cat 99.9%\n")
    lines = [line.rstrip() for line in progress_lines(terminal.getvalue())]
    assert "a/path [b]that is[/b] much longer than the terminal is wide.png: cat 99.9%" in lines
