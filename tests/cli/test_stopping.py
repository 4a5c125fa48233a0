"""Ctrl-C at any moment: one line, and the whole command where there is something to continue."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from acmix.cli import main
from acmix.cli.stopping import at_once_in_imports, continued, stopped, telling

# A module that takes an interrupted import for a missing one, as libraries do.
MODULE = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except BaseException:
    pass
"""
PROGRAM = """
import sys
import acmix.cli
{patch}
sys.exit(acmix.cli.main({arguments}))
"""
INSTEAD = """
import acmix.cli.commands
def run(arguments):
    {context}:
        import stubborn
acmix.cli.commands.run = run
"""


@pytest.mark.parametrize(
    ("arguments", "context", "line"),
    [
        (["info"], "if True", "acmix info: stopped"),
        (["study", "run", "a b"], "if True", "acmix study run: stopped; continue with: acmix study run 'a b'"),
        (["train", "a"], "with acmix.cli.stopping.telling(lambda: 'saved')", "acmix train: saved"),
    ],
)
def test_an_interrupted_import_ends_at_once(tmp_path, arguments, context, line):
    (tmp_path / "stubborn.py").write_text(MODULE)
    program = PROGRAM.format(patch=INSTEAD.format(context=context), arguments=arguments)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"\n{line}\n")


def test_what_was_said_already_stays():
    for said, told in (("", "it is saved"), ("it ended", "it ended")):
        with pytest.raises(KeyboardInterrupt, match=f"^{told}$"), telling(lambda: "it is saved"):
            raise KeyboardInterrupt(said)


def test_elsewhere_it_is_an_exception_and_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), at_once_in_imports(["info"]):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    # Another thread cannot have signals, and works without.
    done = []
    thread = threading.Thread(target=lambda: done.append(main(["recipes", "--name", "none"])))
    thread.start()
    thread.join()
    assert done == [2]


@pytest.mark.parametrize(
    ("arguments", "said", "line"),
    [
        (["train", "digits"], "", "acmix train: stopped"),
        (
            ["train", "digits", "--output", "a b", "--resume"],
            "",
            "stopped; continue with: acmix train digits --output 'a b' --resume",
        ),
        (
            ["train", "digits", "--output", "a", "--requeue"],
            "stopped; acmix report a",
            "acmix train: stopped; acmix report a",
        ),
        (["--help"], "", "acmix: stopped"),
        ([], "", "acmix: stopped"),
        (
            ["study", "run", "digits"],
            "a, seed 1, is saved",
            "a, seed 1, is saved; continue with: acmix study run digits",
        ),
        (["study", "show", "a.json"], "", "acmix study show: stopped"),
        (["bench", "layer", "--repeat"], "", "acmix bench layer: stopped"),
    ],
)
def test_what_continues_is_the_whole_command(arguments, said, line):
    assert stopped(arguments, said).startswith("\nacmix")
    assert stopped(arguments, said).endswith(f"{line}\n")


def test_what_is_stopped_is_said_once():
    assert (
        continued(["study", "run", "a"], "it is saved; continue with: acmix x") == "it is saved; continue with: acmix x"
    )
