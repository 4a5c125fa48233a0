"""What a run folder may hold, as the table in `acmix.tasks.loop.run` has it, and what may happen to a run."""

import re
from pathlib import PurePosixPath

import torch

from acmix.storage import PARTIAL
from acmix.tasks.loop import run
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
