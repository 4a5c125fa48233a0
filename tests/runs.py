"""What a run folder may hold, as the table in `acmix.tasks.loop.run` has it."""

import re
from pathlib import PurePosixPath

from acmix.storage import PARTIAL
from acmix.tasks.loop import run

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
