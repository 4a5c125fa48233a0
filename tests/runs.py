"""What a run folder may hold, as the table in `acmix.tasks.loop.run` has it, and what may happen to a run."""

import os
import re
import signal
from dataclasses import replace
from pathlib import PurePosixPath

import pytest
import torch

from acmix import InputError
from acmix.errors import PreemptedError
from acmix.storage import PARTIAL
from acmix.tasks.loop import learner, run, states
from acmix.tasks.loop.progress import Reporting

LISTED = [name for row in re.findall(r"^\| ([^|]+\..*?) \|", run.__doc__, re.MULTILINE) for name in row.split(", ")]


def unlisted(folder):
    """Files of a run folder that are in no row of the table."""
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(file for file in files if not any(matches(file, name) for name in LISTED))


def matches(file, pattern):
    # The whole path: a pattern alone would match its end.
    return PurePosixPath("/", file).match(f"/{pattern}")


def unfinished(folder):
    """What processes that were killed have left, in the run folder and in its states."""
    return [len([*place.glob(PARTIAL.format("*"))]) for place in (folder, folder / "states")]


def same(one, other):
    """Whether two state dicts are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def after(updates, action):
    """Do something when so many updates were made, and save every one."""
    made = []

    def on_update(progress):
        made.append(progress)
        if len(made) == updates:
            action()

    return Reporting(on_update=on_update, save_minutes=0)


def assert_goes_on_with_its_own_optimizer_alone(train, settings, output):
    """A run that was stopped is refused any other: one that a person asks for, and one of another version's groups.

    Args:
        train: Called with settings and options of `Room.fit`.
        settings: Of the run.
        output: Its folder.
    """
    with pytest.raises(PreemptedError):
        train(settings, reporting=after(1, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    state = states.paths(output)[-1]
    saved = state.read_bytes()
    for name, value in {"weight_decay": 0.3, "optimizer": "lion", "momentum": 0.5, "learning_rate": 0.1}.items():
        with pytest.raises(InputError, match=rf"^resume needs the settings .*: {name} was \S+, is {value}(;|$)"):
            train(replace(settings, **{name: value}), resume=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(learner, "make_optimizer", lambda network, *_: torch.optim.AdamW(network.parameters()))
        with pytest.raises(InputError, match="with an optimiser of other groups of parameters"):
            train(settings, resume=True)
    assert states.paths(output)[-1] == state
    assert state.read_bytes() == saved
