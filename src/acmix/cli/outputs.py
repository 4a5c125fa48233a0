"""What commands write: checked before any work starts, so that no result is lost for want of a place."""

import importlib
import os
from pathlib import Path

from acmix import storage
from acmix.errors import InputError

PICTURES = (".png", ".svg")
# A page in place of a checkpoint would be the end of it.
PAGES = (".html", ".htm")


def check_file(option: str, path: Path | None, suffixes: tuple[str, ...] = ()) -> None:
    """Raise InputError unless a file can be written there.

    Args:
        option: As it is typed, `--output` for instance.
        path: The file, there already or not; None is fine.
        suffixes: Those that it may have; any where there are none.
    """
    if path is None:
        return
    if suffixes and path.suffix not in suffixes:
        raise InputError(f"{option} must end in {' or '.join(suffixes)}, got {path}")
    if suffixes == PICTURES:
        # A missing matplotlib is said before anything is measured.
        importlib.import_module("matplotlib")
    storage.check_file(option, path)
    _try(option, path, path.parent)


def check_folder(option: str, path: Path) -> None:
    """Raise InputError unless a folder can be made there, or is there and can be written into."""
    _try(option, path, storage.check_folder(option, path))


def _try(option: str, path: Path, folder: Path) -> None:
    """Write something into the folder: nothing else tells what a system, a quota and a mount allow."""
    try:
        with storage.folder_beside(folder / path.name):
            pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"{option} {path} cannot be written: {folder}: {reason}") from error
