"""A terminal of 80 columns, into which commands are typed."""

import multiprocessing
import os
import re
import shlex
import sys
import termios
from dataclasses import dataclass
from multiprocessing.connection import wait

import pexpect

from acmix.cli import main

ROWS, COLUMNS, SECONDS = 24, 80, 300
# Imports take seconds: one process does them, and forks for every command.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["acmix.cli.commands", "timm", "lightning.fabric", "matplotlib.pyplot", "onnxruntime"])


@dataclass
class Screen:
    """What a command left on the terminal: its exit code and the lines that stay, live ones not."""

    code: int
    lines: list[str]

    @property
    def text(self):
        return "\n".join(self.lines)


class Terminal:
    """Types commands in a folder, in the environment that there is."""

    def __init__(self, folder):
        self.folder = folder

    def start(self, command):
        """In a Python of its own."""
        return pexpect.spawn(
            sys.executable,
            ["-m", "acmix", *shlex.split(command)],
            cwd=self.folder,
            dimensions=(ROWS, COLUMNS),
            encoding="utf-8",
            timeout=SECONDS,
        )

    def end(self, child):
        """What such a command says until it ends."""
        output = child.read()
        child.close()
        assert child.signalstatus is None, output
        return seen(child.exitstatus, output)

    def type(self, command):
        """In a fork."""
        ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (ROWS, COLUMNS))
        arguments = (shlex.split(command), str(self.folder), os.ttyname(theirs))
        process = FORKS.Process(target=run, args=arguments)
        process.start()
        output = b""
        while ours in (ready := wait([ours, process.sentinel], SECONDS)):
            output += os.read(ours, 65536)
        assert ready, output
        process.join()
        os.close(theirs)
        try:
            # What is left; at the end reading fails, as nobody has the other side.
            while True:
                output += os.read(ours, 65536)
        except OSError:
            os.close(ours)
        return seen(process.exitcode, output.decode())


def run(arguments, folder, terminal):
    """Run a command as a process of its own on a terminal would."""
    os.setsid()
    side = os.open(terminal, os.O_RDWR)
    for number in range(3):
        os.dup2(side, number)
    os.close(side)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", errors=sys.stdout.errors, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", errors=sys.stderr.errors, closefd=False)  # noqa: SIM115
    # Readers of images are started as they are everywhere else.
    multiprocessing.set_start_method(None, force=True)
    os.chdir(folder)
    sys.argv = ["acmix", *arguments]
    sys.exit(main())


def seen(code, output):
    # Rich moves up and clears what it draws again; a carriage return writes over a line.
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output).split("\n")
    shown = (line.rstrip("\r").rpartition("\r")[2].rstrip() for line in plain)
    lines = [line for line in shown if line and "\u2501" not in line and not re.match(r"loading PyTorch \d", line)]
    text = "\n".join(lines)
    assert "Traceback" not in text, text
    # Nothing is cut; only what is to be copied may be longer than the terminal.
    assert "\u2026" not in text, text
    return Screen(code, lines)
