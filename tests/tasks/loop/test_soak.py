"""The command line under torchrun, killed as a whole at random moments and resumed, as a cluster would."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.runs import unfinished, unlisted

KILLS = 20


def launch(output, *options):
    command = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2", "-m", "acmix"]
    command += ["train", "digits", "--epochs", "6", "--output", str(output), "--requeue", "--save-minutes", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *options], start_new_session=True, env=environment)  # noqa: S603


def family(parent):
    """A process and all that it has started; torchrun's workers are in sessions of their own."""
    found = [parent]
    # Some may end in this very moment.
    with suppress(FileNotFoundError):
        for task in Path(f"/proc/{parent}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


@pytest.mark.soak
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_killed_at_random_moments(tmp_path, strategy):
    began = time.monotonic()
    assert launch(tmp_path / "whole", "--strategy", strategy).wait() == 0
    seconds = time.monotonic() - began
    output, moments = tmp_path / "killed", random.Random(time.time_ns())  # noqa: S311
    for kill in range(KILLS + 1):
        process = launch(output, "--strategy", strategy)
        try:
            # The last is left to finish, unless one was quicker than its death.
            if process.wait(None if kill == KILLS else moments.uniform(0.2, 0.8) * seconds) == 0:
                break
        except subprocess.TimeoutExpired:
            for number in family(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            process.wait()
            assert max(unfinished(output)) <= 1
    assert unlisted(output) == []
    found, expected = (safetensors.torch.load_file(run / "last.safetensors") for run in (output, tmp_path / "whole"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
